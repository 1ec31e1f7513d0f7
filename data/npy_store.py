"""An .npy file as a store: of an array larger than memory, only the rows asked for are read.

Rows are read by their position and not through a memory map: a map of a file that is cut short in
the middle of a run ends the process by SIGBUS, without a word, and its pages count as the process's
memory. What is read stays in the system's page cache either way, so that a second epoch costs no
disk as long as there is room.
"""

import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from data import files
from data.arrays import Header, read_npy, read_npy_header
from data.images import IMAGE_SHAPE, as_labels, check_image_shape
from data.source import Array, Indices
from errors import BadRowsError, DataError

SUFFIX = ".npy"
LABELS_SUFFIX = ".labels.npy"
_MAX_LABEL_BYTES = 2**30
_NO_LIMIT = 2**63  # Nothing of the size of the array is ever allocated.


class NpyRows:
    """The rows of an .npy file, which stays open as long as the object lives.

    Attributes:
      path: of the file.
      shape: of the array, [N, ...].
      dtype: of its values.
    """

    def __init__(self, path: str, header: Header, start: int) -> None:
        """Takes the header of the file, and where its values begin."""
        self.path = path
        self.shape = header.shape
        self.dtype = header.dtype
        self._start = start
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._descriptor: int | None = None
        if "://" not in path and hasattr(os, "preadv"):  # Threads read at once, without a lock.
            self._descriptor = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
            return
        self._lock = threading.Lock()
        with ExitStack() as stack:
            self._stream = stack.enter_context(files.open_binary(path))
            weakref.finalize(self, stack.pop_all().close)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Indices) -> tuple[Array, dict[int, DataError]]:
        """The rows of these numbers as they are stored, and what is missing, by its position.

        Rows that follow each other are read at once.

        Raises:
          DataError: the disk fails.
        """
        rows: Array = np.empty((len(indices), *self.shape[1:]), self.dtype)
        if not len(indices):
            return rows, {}
        memory: Array = rows.view(np.uint8).reshape(len(rows), self._row_bytes)
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1
        if len(breaks) == len(indices) - 1:  # Each by itself, as in a shuffled batch.
            places, firsts = [*memory], indices
        else:
            places, firsts = np.split(memory, breaks), indices[[0, *breaks]]
        starts = (self._start + firsts * self._row_bytes).tolist()
        try:
            if self._read_each(places, starts) == memory.nbytes:
                return rows, {}
            # A read may have been interrupted, or the file may be shorter than it was.
            return rows, {
                position: DataError(
                    f"{self.path}: row {index} is not there any more; "
                    "the file was cut short after it was opened"
                )
                for position, (index, row) in enumerate(zip(indices.tolist(), memory, strict=True))
                if not self._fills(row, self._start + index * self._row_bytes)
            }
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from error

    def _read_each(self, places: Sequence[Array], starts: Sequence[int]) -> int:
        """Reads each place from its position on, once; tells how many bytes there were in all."""
        descriptor = self._descriptor
        if descriptor is not None:
            read: Callable[..., int] = os.preadv
            return sum([read(descriptor, (p,), s) for p, s in zip(places, starts, strict=True)])
        total = 0
        for place, start in zip(places, starts, strict=True):
            with self._lock, files.refusals_as_data_errors(self.path):
                self._stream.seek(start)
                content = self._stream.read(place.nbytes)
            place.reshape(-1)[: len(content)] = np.frombuffer(content, np.uint8)
            total += len(content)
        return total

    def _fills(self, row: Array, start: int) -> bool:
        """Reads a row in as many parts as the system gives; whether all of it is there."""
        count = 0
        while count < row.nbytes and (got := self._read_each([row[count:]], [start + count])):
            count += got
        return count == row.nbytes

    def rows(self, start: int, stop: int) -> Array:
        """The rows [start, stop); DataError where one of them is not there."""
        rows, errors = self.read(np.arange(start, stop))
        if errors:
            raise BadRowsError(errors)
        return rows


def open_npy(path: str, max_bytes: int, min_bytes: int) -> NpyRows | None:
    """Opens an .npy file of at least `min_bytes`; None where it should rather be read as a whole.

    So should a smaller one, one value, and an array in Fortran's order, in which a row's values are
    all over the file.

    Raises:
      DataError: as `data.arrays.read_npy` does.
    """
    with files.open_binary(path) as stream:
        header, start = read_npy_header(stream, path, max_bytes), stream.tell()
    if header.num_bytes < min_bytes or not header.shape or header.fortran:
        return None
    return NpyRows(path, header, start)


class NpyStore:
    """The rows of an .npy file of uint8 or floats as a store.

    Attributes:
      path: of the file.
      shape: of the array, [N, ...].
      dtype: of what `take` gives: uint8, or float32 for floats of any width.
      workers: see `Store.workers`.
    """

    def __init__(self, path: str) -> None:
        """Reads the header.

        Raises:
          DataError: no whole .npy file, of another dtype, without rows, or in Fortran's order.
        """
        with files.open_binary(path) as stream:
            header, start = read_npy_header(stream, path, _NO_LIMIT), stream.tell()
        if not header.shape:
            raise DataError(f"{path}: expected an array with a row per example, found one value")
        if header.fortran:
            raise DataError(
                f"{path}: is in Fortran's order, in which a row lies all over the file; "
                "save np.ascontiguousarray of it"
            )
        if header.dtype != np.uint8 and header.dtype.kind != "f":
            raise DataError(
                f"{path}: expected uint8 in 0..255 or float in [0, 1], found {header.dtype}"
            )
        self.path, self.shape, self.workers = path, header.shape, 1
        self.dtype = np.dtype(np.uint8 if header.dtype == np.uint8 else np.float32)
        self._rows = NpyRows(path, header, start)

    def take(self, indices: Indices) -> Array:
        """See `Store.take`."""
        rows, errors = self._rows.read(indices)
        if self.dtype != np.uint8:
            with np.errstate(over="ignore", invalid="ignore"):  # Found by the check that follows.
                rows = rows.astype(np.float32, copy=False)
            errors = self._not_finite(rows, indices) | errors
        if errors:
            raise BadRowsError(errors)
        return rows

    def _not_finite(self, rows: Array, indices: Indices) -> dict[int, DataError]:
        # The extremes are NaN where any value is; and they need no array of the size of the rows.
        if not rows.size or np.isfinite([rows.min(), rows.max()]).all():
            return {}
        return {
            position: DataError(f"{self.path}: row {index} holds NaN or infinity as float32")
            for position, (row, index) in enumerate(zip(rows, indices.tolist(), strict=True))
            if not np.isfinite(row).all()
        }

    def digest(self) -> str:
        """See `Store.digest`."""
        return files.digest_of_file(self.path)


def open_labelled_npy(
    path: str, image_shape: tuple[int, ...] = IMAGE_SHAPE
) -> tuple[NpyStore, Indices]:
    """Images in x.npy, uint8 or float [N, *image_shape], and labels in x.labels.npy, int64 [N].

    The images are not yet read.

    Raises:
      DataError: one of the two files is missing or cannot be used, or their counts differ.
    """
    if path.endswith(LABELS_SUFFIX):
        raise DataError(
            f"--data={path}: holds the labels; give the images, "
            f"{path.removesuffix(LABELS_SUFFIX)}{SUFFIX}"
        )
    images = NpyStore(path)
    check_image_shape(images.shape, path, image_shape)
    labels_path = path.removesuffix(SUFFIX) + LABELS_SUFFIX
    if not files.exists(labels_path):
        raise DataError(
            f"--data={path}: expected the labels, whole numbers [N], beside it in {labels_path}; "
            "found no such file"
        )
    labels = as_labels(read_npy(labels_path, _MAX_LABEL_BYTES), labels_path)
    if len(labels) != images.shape[0]:
        raise DataError(
            f"{path}: holds {images.shape[0]} images, but {labels_path} {len(labels)} labels"
        )
    return images, labels
