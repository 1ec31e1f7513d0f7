"""Files and folders: local ones by Python, others through `tf.io.gfile`, with what that needs.

TensorFlow is imported only for what is not local, such as gs://. What is missing becomes a
`DataError`, what the file system refuses a `RefusedError`.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EINVAL
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from errors import DataError, RefusedError, reason

T = TypeVar("T")
_MISPLACED = ("InvalidArgumentError", "OutOfRangeError")  # Of TensorFlow, where it is asked.


def _is_local(path: str) -> bool:
    return "://" not in path


def _gfile() -> Any:
    """TensorFlow's file systems."""
    import tensorflow as tf

    return tf.io.gfile


@contextmanager
def refusals_as_data_errors(path: str) -> Iterator[None]:
    """Raises DataError for what is missing, RefusedError for what else is refused."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # No file system's, but a decoder's of what was in a file.
            raise
        kind = DataError if isinstance(error, FileNotFoundError) else RefusedError
        raise kind(f"{path}: {error.strerror}") from error
    except Exception as error:
        errors = sys.modules["tensorflow"].errors if "tensorflow" in sys.modules else None
        if errors is None or not isinstance(error, errors.OpError):
            raise
        told = " ".join(error.message.removeprefix(f"{path}; ").split())
        kind = DataError if isinstance(error, errors.NotFoundError) else RefusedError
        raise kind(f"{path}: {told}") from error


@contextmanager
def open_binary(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes; also no pipe or device, which may never end, is opened."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise DataError(f"{path}: is no regular file")
    with refusals_as_data_errors(path), _opened(path) as stream:
        try:
            yield stream
        except Exception as error:
            # A number in a damaged file sent its reader before the start or past the end.
            if getattr(error, "errno", 0) == EINVAL or type(error).__name__ in _MISPLACED:
                raise DataError(f"{path}: is damaged or cut short: {reason(error)}") from error
            raise


def _opened(path: str) -> BinaryIO:
    return open(path, "rb") if _is_local(path) else cast(BinaryIO, _gfile().GFile(path, "rb"))


def size(path: str) -> int:
    """The length of a file in bytes; DataError where it cannot be reached."""
    with refusals_as_data_errors(path):
        return int(os.stat(path).st_size if _is_local(path) else _gfile().stat(path).length)


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
        # Object stores mark their folders with a trailing slash.
        found = os.listdir(path) if _is_local(path) else _gfile().listdir(path)
        names = sorted(name.rstrip("/") for name in found)
    for name in names:
        raw = os.fsencode(name)
        if raw.decode(errors="ignore") != name:
            raise DataError(f"{path}: holds {raw!r}, a name that is not UTF-8; rename it")
    return names


def is_folder(path: str) -> bool:
    """Whether `path` is a folder; what cannot be reached is none."""
    return os.path.isdir(path) if _is_local(path) else bool(_gfile().isdir(path))


def exists(path: str) -> bool:
    """Whether there is a file or a folder."""
    with refusals_as_data_errors(path):
        return os.path.exists(path) if _is_local(path) else bool(_gfile().exists(path))


def join(folder: str, name: str) -> str:
    """The path of `name` in `folder`."""
    return os.path.join(folder, name) if _is_local(folder) else str(_gfile().join(folder, name))


def write_atomically(path: str, content: bytes | Iterable[bytes]) -> None:
    """Writes a file that is there as a whole or not at all, and makes its folder where needed.

    The content may come in parts.
    """
    temporary, folder = f"{path}.tmp", os.path.dirname(path) or "."
    parts = [content] if isinstance(content, bytes) else content
    with refusals_as_data_errors(path):
        if not _is_local(path):
            gfile = _gfile()
            gfile.makedirs(folder)
            with gfile.GFile(temporary, "wb") as stream:
                for part in parts:
                    stream.write(part)
            gfile.rename(temporary, path, overwrite=True)
            return
        if not os.path.exists(folder):
            os.makedirs(folder, exist_ok=True)
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())  # Else a power cut after the rename may leave an empty file.
        os.replace(temporary, path)


def write_probe(path: str) -> None:
    """Writes an empty file and deletes it; DataError where it cannot."""
    with refusals_as_data_errors(path):
        (open if _is_local(path) else _gfile().GFile)(path, "wb").close()
    remove(path)


def remove(path: str) -> None:
    """Deletes a file; DataError where it cannot be."""
    with refusals_as_data_errors(path):
        os.remove(path) if _is_local(path) else _gfile().remove(path)


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
