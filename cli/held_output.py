"""Catches what is written to stdout and stderr beneath Python, as C++ code does."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

STDOUT, STDERR = 1, 2


@contextmanager
def descriptors_into(file: IO[bytes], descriptors: Sequence[int]) -> Iterator[None]:
    """Leads file descriptors into a file, and gives them back.

    Args:
      file: one with a descriptor of its own; what is caught is written at its position.
      descriptors: `STDOUT`, `STDERR` or both.
    """
    _flush()
    kept = [os.dup(descriptor) for descriptor in descriptors]
    for descriptor in descriptors:
        os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        _flush()
        for descriptor, original in zip(descriptors, kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


def _flush() -> None:
    """Writes out what Python holds, so that it goes where it was meant to go."""
    sys.stdout.flush()
    sys.stderr.flush()
