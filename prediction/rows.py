"""Rows to feed, a batch at a time: of an array, or of files that are read as needed.

Such files are images, texts, CSV files, or the records of a .tfrecord file.
"""

import csv
import io
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from data import files
from data.files import read_bytes
from data.image_folder import ImageStore
from data.images import MAX_FILE_BYTES
from data.npy_store import NpyRows
from data.source import hold
from errors import DataError, PredictionError
from metagraph.casting import Array, fit_dtype
from metagraph.meta import TensorInfo


def read_csv(path: str, max_bytes: int) -> Array:
    """Reads comma-separated numbers, with or without quotes; empty lines are left out.

    Args:
      path: the file, in UTF-8, with no header line.
      max_bytes: that the file may have.

    Returns:
      float64 [rows, columns].

    Raises:
      PredictionError: a row is longer or shorter than the first, or an entry is no number; the
        message gives the line.
      DataError: the file cannot be read.
    """
    try:
        text = read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path}: is no text in UTF-8") from error
    if not text.strip():
        raise PredictionError(f"{path}: has no rows")
    # Lines may end as on any system.
    lines = io.StringIO(text, newline=None)
    try:
        return np.loadtxt(lines, np.float64, None, ",", ndmin=2, quotechar='"')
    except ValueError as error:
        # NumPy is fast, and counts rows without the empty lines; so the line is looked for here.
        lines.seek(0)
        raise PredictionError(f"{path}, {_first_fault(lines)}") from error


def _first_fault(lines: Iterable[str]) -> str:
    """The first line that is not a row of numbers, and why."""
    reader = csv.reader(lines)
    columns = None
    try:
        for row in filter(None, reader):
            columns = columns or len(row)
            if len(row) != columns:
                return f"line {reader.line_num}: expected {columns} numbers, found {len(row)}"
            for column, entry in enumerate(row, start=1):
                if not _is_number(entry):
                    return (
                        f"line {reader.line_num}, column {column}: {entry[:40]!r} is no number "
                        "(expected numbers only, separated by commas, no header)"
                    )
    except csv.Error as error:  # An entry of over 128 KiB.
        return f"line {reader.line_num}: {error}"
    return "expected rows of numbers, separated by commas"


def _is_number(text: str) -> bool:
    """Whether NumPy reads it as one, which knows no underscores."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


# Reads rows of text, for tensors of strings: one a line, or cells of a CSV file.


def read_lines(path: str, max_bytes: int) -> Array:
    """The lines of a text file, without their ends; an empty one is a row too.

    Args:
      path: the file; in any encoding that has line ends as in ASCII, for it is not decoded.
      max_bytes: that the file may have.

    Returns:
      Bytes, object [lines].

    Raises:
      PredictionError: the file is empty.
      DataError: it cannot be read.
    """
    content = read_bytes(path, max_bytes)
    if not content:
        raise PredictionError(f"{path}: has no rows")
    lines = content.removesuffix(b"\n").split(b"\n")
    return as_objects([line.removesuffix(b"\r") for line in lines])


def read_csv_texts(path: str, max_bytes: int) -> Array:
    """The cells of a CSV file as they are; empty lines are left out.

    Returns:
      Bytes in UTF-8, object [rows, columns].

    Raises:
      PredictionError: a row is longer or shorter than the first; the message gives the line.
      DataError: the file cannot be read.
    """
    try:
        text = read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path}: is no text in UTF-8") from error
    cells: list[bytes] = []
    columns = 0
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            columns = columns or len(row)
            if row and len(row) != columns:
                found = f"expected {columns} cells, found {len(row)}"
                raise PredictionError(f"{path}, line {reader.line_num}: {found}")
            cells += [cell.encode() for cell in row]
    except csv.Error as error:  # A cell of over 128 KiB, or a null character.
        raise PredictionError(f"{path}, line {reader.line_num}: {error}") from error
    if not cells:
        raise PredictionError(f"{path}: has no rows")
    return as_objects(cells).reshape(-1, columns)


def as_objects(texts: list[bytes]) -> Array:
    """An array of the texts that keeps null bytes at their ends, unlike NumPy's own strings."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


# Reads the records of a .tfrecord file of unknown origin.
#
# A record is its length (8 bytes, little-endian), a checksum of that (4), the data and a checksum
# of the data (4). Format: https://www.tensorflow.org/tutorials/load_data/tfrecord

_HEADER, _FOOTER = 12, 4
_GZIP_START = b"\x1f\x8b"


def count_records(path: str, max_bytes: int) -> int:
    """The number of records, from their lengths alone: no data is read.

    A length is checked against the file before anything takes memory for it.

    Args:
      path: the file, not compressed.
      max_bytes: that one record may have.

    Raises:
      DataError: the file cannot be read, or is no whole .tfrecord file.
    """
    length = files.size(path)
    with files.open_binary(path) as stream:
        if stream.read(len(_GZIP_START)) == _GZIP_START:
            raise DataError(f"{path}: is compressed; unpack it with gunzip")
        position = count = 0
        while position < length:
            stream.seek(position)
            header = stream.read(_HEADER)
            (size,) = struct.unpack("<Q", header[:8].ljust(8, b"\0"))
            position += _HEADER + size + _FOOTER
            if len(header) < _HEADER or position > length:
                raise DataError(
                    f"{path}: record {count} claims {size:,} bytes, past the end of the file: it "
                    "is no .tfrecord file, or is cut short"
                )
            if size > max_bytes:
                raise DataError(
                    f"{path}: record {count} claims {size:,} bytes; at most {max_bytes:,}"
                )
            count += 1
    return count


def read_records(path: str, start: int = 0) -> Iterator[bytes]:
    """The records of a file that `count_records` found whole, from record `start` on.

    Raises:
      DataError: a checksum does not fit.
    """
    try:
        for record in tf.data.TFRecordDataset(path).skip(start):
            yield bytes(record.numpy())
    except tf.errors.DataLossError as error:
        raise DataError(f"{path}: is damaged: the checksum of a record does not fit") from error
    except tf.errors.OpError as error:
        raise DataError(f"{path}: {' '.join(error.message.split())}") from error


# Rows to feed, a batch at a time: of an array, or of files that are read as needed.


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

    values: Array | NpyRows
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
        if isinstance(self.values, NpyRows):
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
