"""Where examples come from: files, stores and sources, which give rows by their numbers.

Of a file, what is missing is a `DataError`, what the file system refuses a `RefusedError`. Features
are kept in an array or in a store: on disk, or read from there into memory.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EINVAL
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

import file_io
from errors import BadRowsError, DataError, RefusedError, reason

T = TypeVar("T")
Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
# A graph that was trained on uint8 images records this factor, so that others scale as we do.
UINT8_SCALE = np.float32(1 / 255)
SAMPLED = "sampled:"  # Before a digest that takes samples: it compares with no other.
# A future costs tens of microseconds, about as much as a small image.
_ROWS_PER_TASK = 64


# Files of data.


@contextmanager
def refusals_as_data_errors(path: str) -> Iterator[None]:
    """Raises DataError for what is missing, RefusedError for what the file system refuses."""
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
    """Opens a file for reading bytes; no pipe or device, which may never end."""
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
    """The length of a file in bytes."""
    with refusals_as_data_errors(path):
        return file_io.stat(path).size


def read_bytes(path: str, max_bytes: int) -> bytes:
    """The content of a file; DataError where it is longer than `max_bytes`."""
    length = size(path)
    if length > max_bytes:
        raise DataError(f"{path}: holds {length:,} bytes; at most {max_bytes:,} are read")
    with open_binary(path) as stream:
        return stream.read()


def retried(read: Callable[[str], T], path: str) -> T:
    """What `read` gives for a file, where need be the second time.

    RefusedError where its folder is away, such as a network mount.
    """
    try:
        return read(path)
    except DataError as error:
        folder = os.path.dirname(path) or "."
        is_open = "://" in folder or os.access(folder, os.R_OK | os.X_OK)
        if not (file_io.is_folder(folder) and is_open):
            raise RefusedError(
                f"{error}: its folder cannot be reached; see to its disk, mount or permissions, "
                "then run the same line again"
            ) from error
    return read(path)


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted; DataError where one is not UTF-8, too."""
    with refusals_as_data_errors(path):
        names = file_io.listed(path)
    for name in names:
        if not file_io.is_utf8(name):
            raw = os.fsencode(name)
            raise DataError(f"{path}: holds {raw!r}, a name that is not UTF-8; rename it")
    return names


def exists(path: str) -> bool:
    """Whether there is a file or a folder."""
    with refusals_as_data_errors(path):
        return file_io.exists(path)


def write_atomically(path: str, content: bytes | Iterable[bytes]) -> None:
    """Writes a file that is there as a whole or not at all, and makes its folder where needed."""
    folder = os.path.dirname(path) or "."
    with refusals_as_data_errors(path):
        if not file_io.exists(folder):
            file_io.make_folder(folder)
        file_io.write_file(path + file_io.TEMPORARY_SUFFIX, content)
        file_io.rename(path + file_io.TEMPORARY_SUFFIX, path)


# Digests of files too many or too large to be read each time a run starts, by names, sizes and
# evenly spaced pieces. A change that leaves all sizes as they were goes unseen where none meets it.

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

    One that cannot be read is told from one that can; RefusedError where its folder is away.
    """
    digest = hashlib.sha256()
    for path, name in zip(paths, names, strict=True):
        digest.update(f"{name}\0{_or_none(size, path)}\0".encode())
    sampled = np.linspace(0, len(paths) - 1, min(_SAMPLED_FILES, len(paths)), dtype=np.int64)
    for index in sampled.tolist():
        digest.update(hashlib.sha256(_or_none(_read_start, paths[index]) or b"").digest())
    return digest.hexdigest()


def _read_start(path: str) -> bytes:
    with open_binary(path) as stream:
        return stream.read(_SAMPLE_BYTES)


def _or_none(read: Callable[[str], T], path: str) -> T | None:
    try:
        return retried(read, path)
    except RefusedError:
        raise
    except DataError:
        return None


# Sources, and the stores that features are kept in.


class Store(Protocol):
    """The features of N examples, in no array; several threads may call `take` at once."""

    shape: tuple[int, ...]  # [N, ...].
    dtype: np.dtype[Any]  # As they are kept, uint8 or float32.
    workers: int  # How many threads that call `take` get the most examples a second.

    def take(self, indices: Indices) -> Array:
        """The features of these examples, [B, ...], new; BadRowsError where some are bad."""

    def digest(self) -> str:
        """Tells these features from others: a SHA-256 in hex, of samples."""


@dataclass(frozen=True, eq=False)
class LabelledSource:
    """Examples with their labels in memory, and their features there or in a store."""

    features: Array | Store  # uint8 or float32 [N, ...]; uint8 comes out as float32, times `scale`.
    labels: Array  # [N, ...], in the dtype that the model takes; not to be changed.
    scale: np.float32 = UINT8_SCALE

    def __post_init__(self) -> None:
        if self.features.shape[0] != len(self.labels):
            raise ValueError(f"{self.features.shape[0]} features and {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one example's features."""
        return self.features.shape[1:]

    @property
    def workers(self) -> int:
        """As of the store; copying from an array gains nothing from more than one."""
        return 1 if isinstance(self.features, np.ndarray) else self.features.workers

    def rows(self, indices: Indices) -> tuple[Array, ...]:
        """The features and labels of these examples, int64 [B], as new arrays [B, ...].

        They are what a batch has, x as float32 and y. Several threads may ask at once.
        BadRowsError where some cannot be read, or are no numbers.
        """
        if isinstance(self.features, np.ndarray):
            features: Array = self.features.take(indices, axis=0)
        else:
            features = self.features.take(indices)
        if features.dtype == np.uint8:
            features = features * self.scale
        return features, self.labels.take(indices, axis=0)

    def digest(self) -> str:
        """Tells these examples, in this order, from others: a SHA-256 in hex.

        Before that of a store, which is the same wherever the store is, stands `SAMPLED`.
        """
        if isinstance(self.features, np.ndarray):
            return _digest_of(b"", self.features, self.labels)
        return SAMPLED + _digest_of(self.features.digest().encode(), self.labels)


def _digest_of(before: bytes, *arrays: Array) -> str:
    """A SHA-256 in hex of bytes, then of the dtypes, shapes and values of arrays."""
    digest = hashlib.sha256(before)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class Subset:
    """Some examples of another source, without a copy of them."""

    def __init__(self, source: "Source", members: Indices) -> None:
        """Takes their numbers in the source, int64 [M]; example i is then members[i]."""
        self.source = source
        self.members = members
        self.row_shape: tuple[int, ...] = source.row_shape
        self.workers: int = source.workers
        self.labels: Array = source.labels.take(members, axis=0)

    def __len__(self) -> int:
        return len(self.members)

    def rows(self, indices: Indices) -> tuple[Array, ...]:
        """See `LabelledSource.rows`."""
        return self.source.rows(self.members.take(indices))

    def digest(self) -> str:
        """See `LabelledSource.digest`."""
        whole = self.source.digest()
        digest = hashlib.sha256(whole.encode() + self.members.tobytes()).hexdigest()
        return SAMPLED + digest if whole.startswith(SAMPLED) else digest


Source: TypeAlias = LabelledSource | Subset


class HeldStore:
    """Another store, with its first rows in memory once they were asked for."""

    def __init__(self, store: Store, most: int) -> None:
        """Takes how many rows may be in memory."""
        self.shape, self.dtype, self.workers = store.shape, store.dtype, store.workers
        self._store = store
        self.values: Array = np.zeros((most, *store.shape[1:]), store.dtype)
        self._is_held = np.zeros(store.shape[0], bool)
        self._errors: dict[int, DataError] = {}  # Of rows that were found bad by `fill`.

    def fill(self, *, keep_bad: bool) -> dict[int, DataError]:
        """Asks for all rows, in parallel; gives the bad ones, or raises BadRowsError for them."""

        def ask(first: int) -> None:
            rows = np.arange(first, min(first + _ROWS_PER_TASK, self.shape[0]))
            while True:  # One kind of bad rows may be found before another.
                try:
                    self.take(rows)
                    return
                except BadRowsError as bad:
                    if not keep_bad:
                        raise
                    self._errors.update({int(rows[place]): e for place, e in bad.errors.items()})
                    rows = np.delete(rows, list(bad.errors))

        with ThreadPoolExecutor(self.workers, thread_name_prefix="hold") as executor:
            for _ in executor.map(ask, range(0, self.shape[0], _ROWS_PER_TASK)):
                pass  # In order, so that the error is of the first bad row.
        self.workers = self.workers if len(self.values) < self.shape[0] else 1
        return self._errors

    def take(self, indices: Indices) -> Array:
        """See `Store.take`."""
        is_held = self._is_held.take(indices)
        if is_held.all():
            return self.values.take(indices, axis=0)
        new = np.flatnonzero(~is_held)
        rows = indices.take(new)
        places = zip(new.tolist(), rows.tolist(), strict=True)
        if known := {place: self._errors[row] for place, row in places if row in self._errors}:
            raise BadRowsError(known)
        try:
            read = self._store.take(rows)
        except BadRowsError as bad:
            errors = {int(new[place]): error for place, error in bad.errors.items()}
            raise BadRowsError(errors) from bad
        has_room = rows < len(self.values)
        self.values[rows[has_room]] = read[has_room]  # Another thread may write the same there.
        self._is_held[rows[has_room]] = True  # Last: other threads read without a lock.
        values = np.empty((len(indices), *self.shape[1:]), self.dtype)
        values[new], values[is_held] = read, self.values[indices[is_held]]
        return values

    def digest(self) -> str:
        """See `Store.digest`."""
        return self._store.digest()
