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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

import numpy as np

from data import files
from data.arrays import check_array, damage_as_data_error, read_header, read_npy
from data.files import digest_of_file
from data.images import IMAGE_SHAPE, as_labels, check_image_shape
from data.source import Array, Indices
from errors import BadRowsError, DataError

SUFFIX = ".npy"
LABELS_SUFFIX = ".labels.npy"
_MAX_LABEL_BYTES = 2**30
_NO_LIMIT = 2**63  # Nothing of the size of the array is ever allocated.


class NpyStore:
    """The rows of an .npy file of uint8 or floats, which stays open as long as the object lives.

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
        length = files.size(path)
        with damage_as_data_error(path):
            with files.open_binary(path) as stream:
                check_array(stream, length, path, _NO_LIMIT)
            with files.open_binary(path) as stream:
                shape, fortran, self._stored = read_header(stream, path)
                self._start = stream.tell()
        if not shape:
            raise DataError(f"{path}: expected an array with a row per example, found one value")
        if fortran:
            raise DataError(
                f"{path}: is in Fortran's order, in which a row lies all over the file; "
                "save np.ascontiguousarray of it"
            )
        if self._stored != np.uint8 and self._stored.kind != "f":
            raise DataError(
                f"{path}: expected uint8 in 0..255 or float in [0, 1], found {self._stored}"
            )
        self.path = path
        self.workers = 1
        self.shape = shape
        self.dtype = np.dtype(np.uint8 if self._stored == np.uint8 else np.float32)
        self._row_bytes = math.prod(shape[1:]) * self._stored.itemsize
        self._file = _OpenFile(path)

    def take(self, indices: Indices) -> Array:
        """See `Store.take`."""
        rows: Array = np.empty((len(indices), *self.shape[1:]), self._stored)
        errors = self._read(indices, rows.view(np.uint8).reshape(len(rows), self._row_bytes))
        if self.dtype != np.uint8:
            with np.errstate(over="ignore", invalid="ignore"):  # Found by the check that follows.
                rows = rows.astype(np.float32, copy=False)
            errors = self._not_finite(rows, indices) | errors
        if errors:
            raise BadRowsError(errors)
        return rows

    def _read(self, indices: Indices, memory: Array) -> dict[int, DataError]:
        """Fills `memory`, uint8 [B, bytes of a row]; returns what is missing.

        Rows that follow each other are read at once.
        """
        if not len(indices):
            return {}
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1
        if len(breaks) == len(indices) - 1:  # Each by itself, as in a shuffled batch.
            places, firsts = [*memory], indices
        else:
            places, firsts = np.split(memory, breaks), indices[[0, *breaks]]
        starts = (self._start + firsts * self._row_bytes).tolist()
        if self._file.read_each(places, starts) == memory.nbytes:
            return {}
        return {
            position: DataError(
                f"{self.path}: row {index} is not there any more; "
                "the file was cut short after it was opened"
            )
            for position, (index, row) in enumerate(zip(indices.tolist(), memory, strict=True))
            if self._file.read_into(row.data, self._start + index * self._row_bytes) < row.nbytes
        }

    def digest(self) -> str:
        """See `Store.digest`."""
        return digest_of_file(self.path)

    def _not_finite(self, rows: Array, indices: Indices) -> dict[int, DataError]:
        # The extremes are NaN where any value is; and they need no array of the size of the rows.
        if not rows.size or np.isfinite([rows.min(), rows.max()]).all():
            return {}
        return {
            position: DataError(f"{self.path}: row {index} holds NaN or infinity as float32")
            for position, (row, index) in enumerate(zip(rows, indices.tolist(), strict=True))
            if not np.isfinite(row).all()
        }


class _OpenFile:
    """A file that several threads read by position: without a lock where the system can do that."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        with ExitStack() as stack:
            if "://" not in path and hasattr(os, "preadv"):
                stream = stack.enter_context(open(path, "rb", buffering=0))
                self._descriptor = stream.fileno()
            else:
                self._stream: BinaryIO = stack.enter_context(files.open_binary(path))
            weakref.finalize(self, stack.pop_all().close)

    def read_each(self, places: Sequence[Array], starts: Sequence[int]) -> int:
        """Fills each place from its position on, with one call of the system where it can.

        Returns:
          How many bytes there were in all. Where that is less than there is room for, a read may
          have been interrupted: `read_into` tells.

        Raises:
          DataError: the disk fails.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return sum(map(self.read_into, (place.data.cast("B") for place in places), starts))
        with self._failures_as_data_errors():
            read: Callable[..., int] = os.preadv
            return sum([read(descriptor, (p,), s) for p, s in zip(places, starts, strict=True)])

    def read_into(self, memory: memoryview, start: int) -> int:
        """Fills `memory` from position `start` on; returns how many bytes there were.

        Raises:
          DataError: the disk fails.
        """
        with self._failures_as_data_errors():
            if self._descriptor is None:
                with self._lock, files.refusals_as_data_errors(self._path):
                    self._stream.seek(start)
                    content = self._stream.read(len(memory))
                    memory[: len(content)] = content
                    return len(content)
            count = os.preadv(self._descriptor, [memory], start)
            while 0 < count < len(memory):  # A read may give less than there is.
                got = os.preadv(self._descriptor, [memory[count:]], start + count)
                if not got:
                    break
                count += got
            return count

    @contextmanager
    def _failures_as_data_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self._path}: {error.strerror or error}") from error


def open_labelled_npy(
    path: str, image_shape: tuple[int, ...] = IMAGE_SHAPE
) -> tuple[NpyStore, Indices]:
    """Opens images and reads their labels: of images.npy, those in images.labels.npy.

    Args:
      path: of the images, uint8 or float [N, *image_shape]; ends with .npy.
      image_shape: of each.

    Returns:
      The images, not yet read, and the labels, int64 [N].

    Raises:
      DataError: one of the two files is missing or cannot be used, or their counts differ.
    """
    labels_path = path.removesuffix(SUFFIX) + LABELS_SUFFIX
    if path.endswith(LABELS_SUFFIX):
        raise DataError(
            f"--data={path}: holds the labels; give the images, "
            f"{path.removesuffix(LABELS_SUFFIX)}{SUFFIX}"
        )
    images = NpyStore(path)
    check_image_shape(images.shape, path, image_shape)
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
