"""Files of data: what is missing is a `DataError`, what the file system refuses a `RefusedError`.

Also digests of files too many or too large to be read each time.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EINVAL
from typing import BinaryIO, TypeVar

import numpy as np

import file_io
from errors import DataError, RefusedError, reason

T = TypeVar("T")


@contextmanager
def refusals_as_data_errors(path: str) -> Iterator[None]:
    """Raises DataError for what is missing, RefusedError for what else is refused."""
    try:
        with file_io.os_errors(path):
            yield
    except OSError as error:
        if error.errno is None:  # No file system's, but a decoder's of what was in a file.
            raise
        kind = DataError if isinstance(error, FileNotFoundError) else RefusedError
        raise kind(f"{path}: {(error.strerror or '').removeprefix(f'{path}; ')}") from error


@contextmanager
def open_binary(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes; also no pipe or device, which may never end, is opened."""
    if file_io.is_endless(path):
        raise DataError(f"{path}: is no regular file")
    with refusals_as_data_errors(path):
        try:
            with file_io.opened(path) as stream:
                yield stream
        except OSError as error:
            # A number in a damaged file sent its reader before the start or past the end.
            if error.errno == EINVAL:
                raise DataError(f"{path}: is damaged or cut short: {reason(error)}") from error
            raise


def size(path: str) -> int:
    """The length of a file in bytes; DataError where it cannot be reached."""
    with refusals_as_data_errors(path):
        return file_io.stat(path).size


def read_bytes(path: str, max_bytes: int) -> bytes:
    """The content of a file; DataError where it cannot be read or is longer than `max_bytes`."""
    length = size(path)
    if length > max_bytes:
        raise DataError(f"{path}: holds {length:,} bytes; at most {max_bytes:,} are read")
    with open_binary(path) as stream:
        return stream.read()


def retried(read: Callable[[str], T], path: str) -> T:
    """What `read` gives for a file, where need be the second time: its folder may have been away.

    RefusedError where it is still away, such as a network mount.
    """
    try:
        return read(path)
    except DataError as error:
        folder = os.path.dirname(path) or "."
        if not is_folder(folder) or not ("://" in folder or os.access(folder, os.R_OK | os.X_OK)):
            raise RefusedError(
                f"{error}: its folder cannot be reached; see to its disk, mount or permissions, "
                "then run the same line again"
            ) from error
    return read(path)


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted, without their path; DataError where one is not UTF-8, too."""
    with refusals_as_data_errors(path):
        names = file_io.listed(path)
    for name in names:
        if not file_io.is_utf8(name):
            raw = os.fsencode(name)
            raise DataError(f"{path}: holds {raw!r}, a name that is not UTF-8; rename it")
    return names


def is_folder(path: str) -> bool:
    """Whether `path` is a folder; what cannot be reached is none."""
    return file_io.is_folder(path)


def exists(path: str) -> bool:
    """Whether there is a file or a folder."""
    with refusals_as_data_errors(path):
        return file_io.exists(path)


def join(folder: str, name: str) -> str:
    """The path of `name` in `folder`."""
    return os.path.join(folder, name)


def write_atomically(path: str, content: bytes | Iterable[bytes]) -> None:
    """Writes a file that is there as a whole or not at all, and makes its folder where needed."""
    folder = os.path.dirname(path) or "."
    with refusals_as_data_errors(path):
        if not file_io.exists(folder):
            file_io.make_folder(folder)
        file_io.write_file(path + file_io.TEMPORARY_SUFFIX, content)
        file_io.rename(path + file_io.TEMPORARY_SUFFIX, path)


def write_probe(path: str) -> None:
    """Writes an empty file and deletes it; DataError where it cannot."""
    with refusals_as_data_errors(path):
        file_io.write_file(path, b"")
        file_io.remove(path)


def remove(path: str) -> None:
    """Deletes a file; DataError where it cannot be."""
    with refusals_as_data_errors(path):
        file_io.remove(path)


# Digests of files too many or too large to be read each time a run starts: they tell data sets
# apart by names, sizes and evenly spaced pieces of the content. A change of a few bytes that no
# sample meets, and that leaves all sizes as they were, goes unseen.

_SAMPLE_BYTES = 2**16
_SAMPLES_OF_A_FILE = 256  # 16 MB; a shorter file is read as a whole.
_SAMPLED_FILES = 1024  # At most 64 MB of them.


def digest_of_file(path: str) -> str:
    """Of a file's length and of 256 evenly spaced pieces of 64 KB, from its first to its last."""
    length = size(path)
    digest = hashlib.sha256(f"{length} ".encode())
    last = max(length - _SAMPLE_BYTES, 0)
    pieces = min(_SAMPLES_OF_A_FILE, -(-length // _SAMPLE_BYTES))
    with open_binary(path) as stream:
        for start in np.linspace(0, last, pieces, dtype=np.int64).tolist():
            stream.seek(start)
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def digest_of_files(paths: Sequence[str], names: Sequence[str]) -> str:
    """Of all files' names and sizes, and of the first 64 KB of 1,024 evenly spaced files.

    The names are relative to what holds all files. One that cannot be read is told from one that
    can; RefusedError where its folder is away.
    """
    digest = hashlib.sha256()
    for path, name in zip(paths, names, strict=True):
        digest.update(f"{name}\0{_or_none(size, path)}\0".encode())
    sampled = np.linspace(0, len(paths) - 1, min(_SAMPLED_FILES, len(paths)), dtype=np.int64)
    for index in sampled.tolist():
        digest.update(hashlib.sha256(_or_none(_start, paths[index]) or b"").digest())
    return digest.hexdigest()


def _start(path: str) -> bytes:
    with open_binary(path) as stream:
        return stream.read(_SAMPLE_BYTES)


def _or_none(read: Callable[[str], T], path: str) -> T | None:
    try:
        return retried(read, path)
    except RefusedError:
        raise
    except DataError:
        return None
