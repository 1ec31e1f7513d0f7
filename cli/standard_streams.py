"""The three standard streams, also where whoever started the process has closed one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def fill_closed_streams() -> None:
    """Opens the null device for each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next file that is opened gets the number, and what is printed goes into it;
    Python itself has None for such a stream.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number: this one.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (for as long as the process lives)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


@contextmanager
def stdout_written_out() -> Iterator[None]:
    """Writes to stdout, at the end, what Python still holds for it.

    Python itself would do so when nobody can be told any more, and exit with a code of its own.

    Raises:
      OSError: it cannot be written, such as to a full disk; a BrokenPipeError where its reader has
        gone. What is held for it then is dropped.
    """
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise OSError(error.errno, error.strerror, "stdout") from error
