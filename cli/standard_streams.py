"""The three standard streams, also where whoever started the process has closed one."""

import os
import sys


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
