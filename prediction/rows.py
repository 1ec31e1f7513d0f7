"""Rows to feed, a batch at a time: of an array, or of files that are read as needed."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from checkpoints.loading.tensor_info import TensorInfo
from data.files import read_bytes
from data.image_file import MAX_FILE_BYTES
from data.image_store import ImageStore
from data.npy_stream import StreamedArray
from data.stored_source import hold
from prediction.casting import Array, fit_dtype
from prediction.errors import PredictionError
from prediction.text_rows import as_objects
from prediction.tf_records import count_records, read_records


class Rows(Protocol):
    """Values whose first dimension is the row, ready for one tensor."""

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def batch(self, start: int, stop: int) -> Array:
        """The rows [start, stop), of the tensor's dtype."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of an array.

    Attributes:
      values: [N, ...], in any dtype that goes over into the tensor's; in memory or in a file.
      info: the tensor they are for.
      source: where they are from, for an error line.
      scale: what uint8 values are multiplied by for a float tensor, None for nothing.
      finite: whether a NaN or an infinity is an error, as in an image.
      flat: whether each row is laid out as one dimension for the tensor.
    """

    values: Array | StreamedArray
    info: TensorInfo
    source: str
    scale: float | None = None
    finite: bool = False
    flat: bool = False

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, start: int, stop: int) -> Array:
        """See `Rows`. Of an array in memory, without a change of dtype, it is a view.

        Raises:
          DataError: the file is damaged.
          PredictionError: a value does not go over, or is not finite.
        """
        if isinstance(self.values, StreamedArray):
            rows = self.values.rows(start, stop)
        else:
            rows = self.values[start:stop]
        if self.finite:
            check_finite(rows, self.source, start)
        rows = rows.reshape(len(rows), -1) if self.flat else rows
        return _ready(rows, self.info, self.source, self.scale)


def check_finite(values: Array, source: str, first_row: int = 0) -> None:
    """Refuses NaN and infinity.

    Args:
      values: rows of floats, at least one.
      source: where they are from, for an error line.
      first_row: the number of the first one.

    Raises:
      PredictionError: with the number of the first row that holds one.
    """
    # The extremes are NaN where any value is, and need no array of the size of the images.
    if not np.isfinite([values.min(), values.max()]).all():
        row = next(row for row, image in enumerate(values) if not np.isfinite(image).all())
        raise PredictionError(
            f"{source}: row {first_row + row} (the first such) holds NaN or infinity"
        )


@dataclass(frozen=True, eq=False)
class ColumnRows:
    """Rows for a tensor whose last dimension is the row's, such as [features, batch].

    Attributes:
      values: [N, features].
      info: the tensor they are for, [features, ?].
      source: as in `ArrayRows`.
    """

    values: Array
    info: TensorInfo
    source: str

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, start: int, stop: int) -> Array:
        """The rows [start, stop) as columns, of the tensor's dtype."""
        columns = np.ascontiguousarray(self.values[start:stop].T)
        return fit_dtype(columns, self.info, self.source)


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Rows of image files.

    Attributes:
      paths: the files.
      size: height and width in pixels that each is resized to.
      info: the tensor they are for, [N, size, size, channels] or flat, [N, size * size * channels].
      scale: as in `ArrayRows`.
      channels: 3 for colour, 1 for grey.
      flat: as in `ArrayRows`.
      ignore_exif: as in `ImageStore`.
    """

    paths: Sequence[str]
    size: int
    info: TensorInfo
    scale: float | None
    channels: int = 3
    flat: bool = False
    ignore_exif: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, start: int, stop: int) -> Array:
        """See `Rows`.

        Raises:
          DataError: a file cannot be read or is no image.
        """
        image_shape = (self.size, self.size, self.channels)
        store = ImageStore(self.paths[start:stop], "", image_shape, self.ignore_exif)
        images = hold(store, keep_bad=False).values
        images = images.reshape(len(images), -1) if self.flat else images
        return _ready(images, self.info, self.paths[start], self.scale)


@dataclass(frozen=True, eq=False)
class FileRows:
    """Rows that are the bytes of image files, for a graph that decodes them itself.

    Attributes:
      paths: the files.
      info: the tensor they are for: strings, [N].
    """

    paths: Sequence[str]
    info: TensorInfo

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, start: int, stop: int) -> Array:
        """See `Rows`.

        Raises:
          DataError: a file cannot be read, or is longer than an image may be.
        """
        return as_objects([read_bytes(path, MAX_FILE_BYTES) for path in self.paths[start:stop]])


class RecordRows:
    """Rows of a .tfrecord file, read in order as needed."""

    def __init__(self, path: str, info: TensorInfo, max_bytes: int) -> None:
        """Counts the records.

        Args:
          path: the file.
          info: the tensor they are for: strings, [N].
          max_bytes: that one record may have.

        Raises:
          DataError: the file cannot be read, or is no .tfrecord file.
        """
        self._path = path
        self._info = info
        self._length = count_records(path, max_bytes)
        self._next = 0
        self._records = read_records(path)

    def __len__(self) -> int:
        return self._length

    def batch(self, start: int, stop: int) -> Array:
        """See `Rows`. Batches in order read the file once.

        Raises:
          DataError: the file is damaged.
        """
        if start != self._next:
            self._records = read_records(self._path, start)
        self._next = stop
        return fit_dtype(
            as_objects([*itertools.islice(self._records, stop - start)]), self._info, self._path
        )


def _ready(values: Array, info: TensorInfo, source: str, scale: float | None) -> Array:
    """Values in the tensor's dtype; uint8 is scaled for a float32 as in training, bit for bit."""
    if values.dtype == np.uint8 and scale is not None and info.dtype.is_floating:
        values = np.multiply(values, np.float32(scale), dtype=np.float32)
    return fit_dtype(values, info, source)
