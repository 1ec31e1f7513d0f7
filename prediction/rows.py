"""Rows to feed, a batch at a time, and how they run through a graph.

The rows are of an array, or of files that are read as needed: images, or the records of a .tfrecord
file.
"""

import itertools
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, NoReturn, Protocol

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from data import files
from data.batches import read_ahead
from data.files import read_bytes
from data.image_folder import ImageStore
from data.images import MAX_FILE_BYTES, first_not_finite
from data.npy_store import NpyRows
from data.source import hold
from errors import DataError, PredictionError
from metagraph.casting import Array, fit_dtype
from metagraph.meta import TensorInfo
from metagraph.session import InferenceGraph


class Rows(Protocol):
    """Values whose first dimension is the row, ready for one tensor."""

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def batch(self, start: int, stop: int) -> Array:
        """The rows [start, stop), of the tensor's dtype.

        Raises:
          DataError: a file cannot be read, or is damaged.
          PredictionError: a value does not go over into the dtype, or is not finite.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of an array [N, ...], in any dtype that goes over into the tensor's.

    Attributes:
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
        """See `Rows`. Of an array in memory, without a change of dtype, it is a view."""
        if isinstance(self.values, NpyRows):
            rows = self.values.rows(start, stop)
        else:
            rows = self.values[start:stop]
        if self.finite:
            check_finite(rows, self.source, start)
        rows = rows.reshape(len(rows), -1) if self.flat else rows
        return _ready(rows, self.info, self.source, self.scale)


def check_finite(values: Array, source: str, first_row: int = 0) -> None:
    """Raises PredictionError with the number of the first row that holds NaN or infinity."""
    if (row := first_not_finite(values)) is not None:
        raise PredictionError(
            f"{source}: row {first_row + row} (the first such) holds NaN or infinity"
        )


@dataclass(frozen=True, eq=False)
class ColumnRows:
    """Rows [N, features] for a tensor [features, ?], whose last dimension is the row's."""

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
    """Rows of image files, resized to size x size pixels of 3 channels, or 1 for grey.

    The tensor is [N, size, size, channels] or flat, [N, size * size * channels]. `scale` and `flat`
    are as in `ArrayRows`, `ignore_exif` as in `ImageStore`.
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
        """See `Rows`."""
        image_shape = (self.size, self.size, self.channels)
        store = ImageStore(self.paths[start:stop], "", image_shape, self.ignore_exif)
        images = hold(store, keep_bad=False).values
        images = images.reshape(len(images), -1) if self.flat else images
        return _ready(images, self.info, self.paths[start], self.scale)


def _ready(values: Array, info: TensorInfo, source: str, scale: float | None) -> Array:
    """Values in the tensor's dtype; uint8 is scaled for a float32 as in training, bit for bit."""
    if values.dtype == np.uint8 and scale is not None and info.dtype.is_floating:
        values = np.multiply(values, np.float32(scale), dtype=np.float32)
    return fit_dtype(values, info, source)


@dataclass(frozen=True, eq=False)
class FileRows:
    """Rows that are the bytes of image files, for a graph that decodes them itself."""

    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, start: int, stop: int) -> Array:
        """See `Rows`."""
        return as_objects([read_bytes(path, MAX_FILE_BYTES) for path in self.paths[start:stop]])


def as_objects(texts: list[bytes]) -> Array:
    """An array of the texts that keeps null bytes at their ends, unlike NumPy's own strings."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


class RecordRows:
    """The records of a .tfrecord file, as strings; batches in order read the file once."""

    def __init__(self, path: str, max_bytes: int) -> None:
        """Counts the records, of at most `max_bytes` each."""
        self._path = path
        self._length = count_records(path, max_bytes)
        self._next = 0
        self._records = read_records(path, 0)

    def __len__(self) -> int:
        return self._length

    def batch(self, start: int, stop: int) -> Array:
        """See `Rows`."""
        if start != self._next:
            self._records = read_records(self._path, start)
        self._next = stop
        return as_objects([*itertools.islice(self._records, stop - start)])


def count_records(path: str, max_bytes: int) -> int:
    """The number of records in a .tfrecord file, from their lengths alone.

    A record is its length (8 bytes, little-endian), a checksum of that (4), the data and a checksum
    of the data (4); see https://www.tensorflow.org/tutorials/load_data/tfrecord. TensorFlow's own
    reader takes memory for any length, and crashes on one that is made up.

    Raises:
      DataError: the file cannot be read, or is no whole .tfrecord file of such records.
    """
    length, position, count = files.size(path), 0, 0
    with files.open_binary(path) as stream:
        while position < length:
            stream.seek(position)
            header = stream.read(12)
            if count == 0 and header.startswith(b"\x1f\x8b"):
                raise DataError(f"{path}: is compressed; unpack it with gunzip")
            (size,) = struct.unpack("<Q", header[:8].ljust(8, b"\0"))
            position += 12 + size + 4
            claim = f"{path}: record {count} claims {size:,} bytes"
            if position > length:
                raise DataError(
                    f"{claim}, past the end of the file: it is no .tfrecord file, or is cut short"
                )
            if size > max_bytes:
                raise DataError(f"{claim}; at most {max_bytes:,}")
            count += 1
    return count


def read_records(path: str, start: int) -> Iterator[bytes]:
    """The records from number `start` on; raises DataError where a checksum does not fit."""
    try:
        for record in tf.data.TFRecordDataset(path).skip(start):
            yield bytes(record.numpy())
    except tf.errors.DataLossError as error:
        raise DataError(f"{path}: is damaged: the checksum of a record does not fit") from error
    except tf.errors.OpError as error:
        raise DataError(f"{path}: {' '.join(error.message.split())}") from error


# How the rows run through a graph, batch by batch.

DEFAULT_BATCH_SIZE = 256
DEFAULT_BATCH_BYTES = 2**28  # The most of a batch whose size is not given.


class Kind(Enum):
    """How a fetched tensor goes with the rows."""

    ROWS = auto()  # its first dimension is the row's
    COLUMNS = auto()  # its last dimension is the row's
    CONSTANT = auto()  # it does not depend on the rows
    WHOLE = auto()  # one value over all rows, such as a mean


def kind_of(info: TensorInfo, depends_on_rows: bool, columns: bool = False) -> Kind:
    """The kind of a fetched tensor; `columns` says whether the rows are fed as `ColumnRows`."""
    shape = info.shape
    if not depends_on_rows:
        return Kind.CONSTANT
    if columns and shape is not None and len(shape) > 1 and shape[-1] is None:
        return Kind.COLUMNS
    return Kind.ROWS if shape is None or (shape and shape[0] is None) else Kind.WHOLE


class Batching(NamedTuple):
    """How rows are cut into runs: so many a run, and whether the graph takes no other number."""

    size: int
    fixed: bool


def choose_batching(
    feeds: Sequence[tuple[TensorInfo, Rows | Array]],
    fetches: Sequence[tuple[TensorInfo, Kind]],
    asked: int | None,
    num_rows: int,
) -> Batching:
    """Cuts rows as the graph takes them, or else as was `asked` for, or else into fast runs."""
    fixed = _fixed_size(feeds)
    if fixed is not None:
        name, size = fixed
        if asked not in (None, size):
            raise PredictionError(f"{name} takes {size} rows a run: leave out --batch_size")
        return Batching(size, fixed=True)
    whole = next((info.name for info, kind in fetches if kind is Kind.WHOLE), None)
    if whole is None:
        return Batching(asked or _fast_size([feed for _, feed in feeds]), fixed=False)
    if asked is not None and asked < num_rows:
        raise PredictionError(
            f"{whole} is one value over all {num_rows} rows, not one a row: leave out "
            f"--batch_size, or give at least {num_rows}"
        )
    if num_rows > DEFAULT_BATCH_SIZE:
        logging.info("%s is one value over all %d rows: they run at once", whole, num_rows)
    return Batching(num_rows, fixed=False)


def _fixed_size(feeds: Sequence[tuple[TensorInfo, Rows | Array]]) -> tuple[str, int] | None:
    """A tensor of a fixed number of rows, and that number; None where any number goes."""
    sizes = {
        info.shape[0]: info.name
        for info, feed in feeds
        if not isinstance(feed, np.ndarray | ColumnRows) and info.shape and info.shape[0]
    }
    if not sizes:
        return None
    if len(sizes) > 1:
        described = ", ".join(f"{name} {size}" for size, name in sizes.items())
        raise PredictionError(f"the graph takes different numbers of rows a run: {described}")
    ((size, name),) = sizes.items()
    if any(isinstance(feed, ColumnRows) for _, feed in feeds):
        raise PredictionError(f"{name} takes {size} rows a run, which none in columns goes with")
    return name, size


def _fast_size(feeds: Sequence[Rows | Array]) -> int:
    """The rows of one run where nobody asks for a number: fewer where they are large."""
    firsts = [feed.batch(0, 1) for feed in feeds if not isinstance(feed, np.ndarray)]
    row_bytes = sum(sum(map(len, f.flat)) if f.dtype.kind == "O" else f.nbytes for f in firsts)
    return max(1, min(DEFAULT_BATCH_SIZE, DEFAULT_BATCH_BYTES // max(1, row_bytes)))


def run_rows(
    graph: InferenceGraph,
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    batch_size: int | None = None,
    first_run: Callable[[Sequence[Array], Sequence[Array]], object] | None = None,
) -> list[Array]:
    """Runs all rows through the graph; gives the rows of each fetch in order, or its one value.

    Where a tensor that is fed by rows has a fixed first dimension, each run has as many rows: the
    last one is filled up, and its results are cut back.

    Args:
      graph: the restored graph.
      feeds: for each of `graph.feeds`, rows to be fed a batch at a time, or an array to be fed
        as it is in every batch. At least one has rows, and all that have are of equal length.
      kinds: of each of `graph.fetches`.
      batch_size: rows a run; None is a fast number, or, where a fetched tensor is one value over
        all rows, all of them.
      first_run: called with what the first run was fed and what it gave.

    Raises:
      PredictionError: rows and results do not go together in such batches.
      CheckpointError: the graph fails.
    """
    num_rows = len(next(feed for feed in feeds if not isinstance(feed, np.ndarray)))
    fetches = [*zip(graph.fetches, kinds, strict=True)]
    fed = [*zip(graph.feeds, feeds, strict=False)]
    size, fixed = batching = choose_batching(fed, fetches, batch_size, num_rows)
    values: list[Array] = []
    with _progress_bar(num_rows) as progress:
        for step, batch in enumerate(_batches(feeds, batching, num_rows)):
            results, start = graph.run(*batch), step * size
            rows = min(size, num_rows - start)
            if step == 0 and first_run is not None:
                first_run(batch, results)
            results = [_rows_first(*it) for it in zip(kinds, results, strict=True)]
            if rows == num_rows and (rows == size or not fixed):
                return results  # One run of all rows: its values as they are.
            if fixed and size == 1:  # All of a value is that row's.
                results = [r if r.shape[:1] == (1,) else r[np.newaxis] for r in results]
            values = values or [
                _for_all_rows(kind, first, num_rows)
                for kind, first in zip(kinds, results, strict=True)
            ]
            for (info, kind), value, result in zip(fetches, values, results, strict=True):
                if kind is not Kind.CONSTANT:
                    expected = (size if fixed else rows, *value.shape[1:])
                    _check_shape(info.name, result, expected, batching, num_rows)
                    value[start : start + rows] = result[:rows]
            progress.update(rows)
    return values


def _progress_bar(num_rows: int) -> "tqdm[NoReturn]":
    """A bar that appears after a second, on a terminal only, and goes when it is full."""
    return tqdm(total=num_rows, unit="row", file=sys.stderr, disable=None, leave=False, delay=1)


def _batches(
    feeds: Sequence[Rows | Array], batching: Batching, num_rows: int
) -> Iterator[list[Array]]:
    """What each run is fed, read while the one before it runs."""

    def batch(step: int) -> list[Array]:
        start = step * batching.size
        stop = min(start + batching.size, num_rows)
        return [
            feed if isinstance(feed, np.ndarray) else filled(feed.batch(start, stop))
            for feed in feeds
        ]

    def filled(rows: Array) -> Array:
        # With the last row, not with zeros: a zero may be divided by, and an empty string is no
        # image or record that a graph could decode.
        missing = batching.size - len(rows) if batching.fixed else 0
        return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows

    return read_ahead(batch, 0, -(-num_rows // batching.size))


def _rows_first(kind: Kind, result: Array) -> Array:
    return np.moveaxis(result, -1, 0) if kind is Kind.COLUMNS else result


def _for_all_rows(kind: Kind, first: Array, num_rows: int) -> Array:
    """An array for the results of all rows, given those of the first run."""
    has_rows = kind is not Kind.CONSTANT
    return np.empty((num_rows, *first.shape[1:]), first.dtype) if has_rows else first


def _check_shape(
    name: str, result: Array, expected: Sequence[int], batching: Batching, num_rows: int
) -> None:
    """Raises PredictionError where a result has not one entry a row."""
    if result.shape == expected:
        return
    found = f"{name} has shape {list(result.shape)} for"
    if batching.fixed:
        raise PredictionError(
            f"{found} the {batching.size} rows that the graph takes a run, and no row's own part "
            f"can be told in it: give exactly {batching.size} rows"
        )
    raise PredictionError(
        f"{found} {expected[0]} rows, not one entry a row: run all of them at once with "
        f"--batch_size={num_rows}"
    )
