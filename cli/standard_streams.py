"""The three standard streams: never closed, never in want of a character, stderr never failing."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def prepare_streams() -> None:
    """Makes the three streams fit for whatever is read and printed.

    The null device stands in for each of the descriptors 0, 1 and 2 that is closed. Otherwise the
    next file that is opened gets the number, and what is printed goes into it; Python itself has
    None for such a stream. What the encoding of stdout or stderr lacks is escaped, as are the bytes
    of a name that is no text.
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is sys.__stderr__:  # Not what a caller has put in its place.
        sys.stderr = unfailing_writer(2, sys.stderr.encoding if sys.stderr else "utf-8")


def unfailing_writer(descriptor: int, encoding: str) -> TextIO:
    """Text for people, to a file descriptor that is left open; what cannot be written is dropped.

    A full disk, a closed terminal or a reader that has gone must not keep a step from being saved.
    """
    raw = _UnfailingFile(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=True
    )


class _UnfailingFile(io.FileIO):
    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data) or len(memoryview(data))
        except OSError:
            return len(memoryview(data))


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
            drop_stdout()
            raise OSError(error.errno, error.strerror, "stdout") from error


def drop_stdout() -> None:
    """Leads stdout nowhere, and with it what Python holds for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
