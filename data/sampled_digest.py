"""Digests of files too many or too large to be read each time a run starts.

They tell data sets apart by names, sizes and evenly spaced samples of the content, which takes a
bounded number of bytes. A change of a few bytes that no sample meets, and that leaves all sizes as
they were, goes unseen.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from data import files
from data.errors import DataError, UnreachableError

T = TypeVar("T")

_SAMPLE_BYTES = 2**16
_SAMPLES_OF_A_FILE = 256  # 16 MB; a shorter file is read as a whole.
_SAMPLED_FILES = 1024  # At most 64 MB of them.


def digest_of_file(path: str) -> str:
    """Of a file's length and of 256 evenly spaced pieces of 64 KB, the first and the last included.

    Raises:
      DataError: the file cannot be read.
    """
    length = files.size(path)
    digest = hashlib.sha256(f"{length} ".encode())
    last = max(length - _SAMPLE_BYTES, 0)
    pieces = min(_SAMPLES_OF_A_FILE, -(-length // _SAMPLE_BYTES))
    with files.open_binary(path) as stream:
        for start in np.linspace(0, last, pieces, dtype=np.int64).tolist():
            stream.seek(start)
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def digest_of_files(paths: Sequence[str], names: Sequence[str]) -> str:
    """Of all files' names and sizes, and of the first 64 KB of 1,024 evenly spaced files.

    A file that cannot be read is told from one that can.

    Args:
      paths: N files, 1 or more.
      names: of each, relative to what holds them all.

    Raises:
      UnreachableError: a file's folder cannot be reached.
    """
    digest = hashlib.sha256()
    for path, name in zip(paths, names, strict=True):
        digest.update(f"{name}\0{_or_none(files.size, path)}\0".encode())
    sampled = np.linspace(0, len(paths) - 1, min(_SAMPLED_FILES, len(paths)), dtype=np.int64)
    for index in sampled.tolist():
        digest.update(hashlib.sha256(_or_none(_start, paths[index]) or b"").digest())
    return digest.hexdigest()


def _start(path: str) -> bytes:
    with files.open_binary(path) as stream:
        return stream.read(_SAMPLE_BYTES)


def _or_none(read: Callable[[str], T], path: str) -> T | None:
    try:
        return files.patiently(read, path)
    except UnreachableError:
        raise
    except DataError:
        return None
