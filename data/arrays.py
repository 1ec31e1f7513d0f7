"""Reads .npz, .npy, IDX and CSV files of unknown origin; an .npy also by rows, as a store.

A header is checked before memory is taken for its array, objects are never unpickled, and no more
than a given number of bytes is unpacked.
"""

import csv
import functools
import gzip
import io
import math
import os
import struct
import textwrap
import threading
import weakref
import zipfile
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any, BinaryIO, NamedTuple, cast

import numpy as np

from data import files
from data.files import Array, Indices
from data.images import check_images, not_finite
from errors import BadRowsError, DataError, UserError
from file_io import HEAD_BYTES, kind_of


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading; whatever its bytes lead to becomes a DataError."""
    try:
        with files.open_binary(path) as stream:
            yield stream
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and Python's parser raise nearly any kind.
        # NumPy quotes the header it could not parse, up to 10,000 characters.
        reason = textwrap.shorten(str(error) or type(error).__name__, width=200)
        raise DataError(
            f"{path}: cannot be unpacked, is it damaged or cut short? ({reason})"
        ) from error


def _check_size(num_bytes: int, max_bytes: int, name: str) -> None:
    if num_bytes > max_bytes:
        raise DataError(f"{name}: claims {num_bytes:,} bytes; at most {max_bytes:,} are unpacked")


# .npz and .npy as a whole. Format: https://numpy.org/neps/nep-0001-npy-format.html

_SUFFIX = ".npy"
_MAX_HEADER_BYTES = 1 << 16  # NumPy takes 10,000 characters.
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # The latter, of an archive of nothing.
# Other methods unpack a block of any length at once.
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


class Header(NamedTuple):
    """What an .npy file says of its array, and where its values begin."""

    shape: tuple[int, ...]
    fortran: bool  # Whether it is in Fortran's order.
    dtype: np.dtype[Any]
    start: int

    @property
    def num_bytes(self) -> int:
        """Of the values. In Python's integers: those of a hostile shape may pass 64 bits."""
        return math.prod(self.shape) * self.dtype.itemsize


# Images and labels, to train on and then to test on, by the names that others give them.
_EXAMPLES = (
    ("X", "Y"),
    ("x", "y"),
    ("images", "labels"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("X_train", "y_train", "X_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)


def example_keys(keys: Collection[str]) -> tuple[str, ...]:
    """Which arrays of an .npz file are images and labels: X and Y, or else a pair that is known."""
    others = () if "X" in keys else (known for known in _EXAMPLES if {*known} <= {*keys})
    return next(iter(others), _EXAMPLES[0])


def read_npz(
    path: str, max_bytes: int, choose: Callable[[Collection[str]], Sequence[str]] = tuple
) -> dict[str, Array]:
    """The arrays of an .npz file by their keys, or those alone that are chosen of them.

    Raises DataError where there is no such file, it is no whole .npz file, a chosen key is
    missing, an array is of objects, or all of them together take more than max_bytes, unpacked.
    """
    with _open(path) as stream:
        if stream.read(len(_ZIP_STARTS[0])) not in _ZIP_STARTS:
            raise DataError(f"{path}: is no .npz file (a zip archive of arrays, see np.savez)")
        with zipfile.ZipFile(stream) as archive:
            members = {
                member.filename.removesuffix(_SUFFIX): member
                for member in archive.infolist()
                if member.filename.endswith(_SUFFIX)
            }
            chosen = choose(members)
            missing = [key for key in chosen if key not in members]
            if missing:
                raise DataError(
                    f"{path}: holds no array {' and no '.join(missing)}; "
                    f"it holds {', '.join(sorted(members)) or 'none'}"
                )
            num_bytes = 0
            for key in chosen:
                num_bytes += _member_bytes(archive, members[key], f"{path}: {key}", max_bytes)
            _check_size(num_bytes, max_bytes, path)
            return {key: _read_array(archive.open(members[key])) for key in chosen}


def _member_bytes(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, max_bytes: int
) -> int:
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _BOUNDED_METHODS:
        raise DataError(f"{name}: is encrypted, or packed in a way that np.savez does not use")
    with archive.open(member) as stream:
        return _read_header(stream, member.file_size, name, max_bytes).num_bytes


def read_npy(path: str, max_bytes: int) -> Array:
    """The array of an .npy file; DataError where it is no whole one, holds objects, or too much."""
    read_npy_header(path, max_bytes)
    with _open(path) as stream:
        return _read_array(stream)


def read_npy_header(path: str, max_bytes: int) -> Header:
    """The header of an .npy file; raises what `read_npy` does."""
    with _open(path) as stream:
        return _read_header(stream, files.size(path), path, max_bytes)


def _read_header(stream: IO[bytes], length: int, name: str, max_bytes: int) -> Header:
    """Reads and checks the header of a stream of `length` bytes."""
    # NumPy would read a header of up to 4 GiB before it refuses it.
    head = io.BytesIO(stream.read(_MAX_HEADER_BYTES))
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise DataError(f"{name}: has the .npy version {version}; expected (1, 0) or (2, 0)")
    header = Header(shape, fortran, dtype, head.tell())
    if dtype.hasobject:
        raise DataError(
            f"{name}: is an array of objects, which are never unpickled; save it in a dtype"
        )
    if any(dimension < 0 for dimension in shape):
        raise DataError(f"{name}: its header claims the shape {list(shape)}")
    if not dtype.itemsize:
        raise DataError(f"{name}: its values are of no bytes ({dtype})")
    _check_size(header.num_bytes, max_bytes, name)
    if header.start + header.num_bytes != length:
        raise DataError(
            f"{name}: its header claims {header.num_bytes:,} bytes of {dtype} {list(shape)}, "
            f"but it holds {length - header.start:,}"
        )
    return header


def _read_array(stream: IO[bytes]) -> Array:
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


# .npy by rows: of an array larger than memory, only the rows asked for are read. No memory map is
# made: once its file is cut short, it ends the process by SIGBUS, without a word, and its pages
# count as the process's memory. What is read stays in the system's page cache either way.

_NO_LIMIT = 2**63  # Nothing of the size of the array is ever allocated.


class NpyRows:
    """The rows of an .npy file of the shape [N, ...], open as long as the object lives."""

    def __init__(self, path: str, header: Header) -> None:
        self.path, self.shape, self.dtype = path, header.shape, header.dtype
        self._start = header.start
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._read_at: Callable[[Sequence[Array], int], int]  # As `os.preadv` of one file.
        if "://" not in path and hasattr(os, "preadv"):  # Threads read at once, without a lock.
            descriptor = os.open(path, os.O_RDONLY)
            self._read_at = functools.partial(os.preadv, descriptor)
            weakref.finalize(self, os.close, descriptor)
        else:
            stack = ExitStack()
            stream = stack.enter_context(files.open_binary(path))
            self._read_at = functools.partial(_seek_and_read, path, stream, threading.Lock())
            weakref.finalize(self, stack.close)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: Indices) -> Array:
        """The rows as they are stored; BadRowsError where some are not there any more."""
        rows: Array = np.empty((len(indices), *self.shape[1:]), self.dtype)
        if not len(indices):
            return rows
        memory: Array = rows.view(np.uint8).reshape(len(rows), self._row_bytes)
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1  # Others lie beside each other.
        edges = [0, *breaks.tolist(), len(rows)]
        starts = (self._start + indices[edges[:-1]] * self._row_bytes).tolist()
        errors = {}
        try:
            for first, end, start in zip(edges[:-1], edges[1:], starts, strict=True):
                part = memory[first:end]
                if self._read_at((part,), start) == part.nbytes:
                    continue  # As nearly always.
                for position in range(first + self._whole_rows(part, start), end):
                    errors[position] = DataError(
                        f"{self.path}: row {indices[position]} is not there any more; "
                        "the file was cut short after it was opened"
                    )
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from error
        if errors:
            raise BadRowsError(errors)
        return rows

    def _whole_rows(self, rows: Array, start: int) -> int:
        """Reads rows in as many parts as the system gives; how many of them are there."""
        left: Array = rows.reshape(-1)
        while len(left) and (count := self._read_at((left,), start)):
            left, start = left[count:], start + count
        return (rows.size - len(left)) // self._row_bytes


def _seek_and_read(
    path: str, stream: BinaryIO, lock: threading.Lock, places: Sequence[Array], start: int
) -> int:
    """Reads one place as `os.preadv` does, where the file or the system has no such thing."""
    with lock, files.refusals_as_data_errors(path):
        stream.seek(start)
        content = stream.read(places[0].nbytes)
    places[0].reshape(-1)[: len(content)] = np.frombuffer(content, np.uint8)
    return len(content)


def open_npy(path: str, max_bytes: int, min_bytes: int) -> NpyRows | None:
    """Opens an .npy file; None where it should rather be read as a whole.

    So should less than `min_bytes`, one value, and an array in Fortran's order, in which a row's
    values are all over the file. Raises what `read_npy` does.
    """
    header = read_npy_header(path, max_bytes)
    if header.num_bytes < min_bytes or not header.shape or header.fortran:
        return None
    return NpyRows(path, header)


class NpyStore:
    """The images of an .npy file as a store, see `data.files.Store`; floats become float32."""

    def __init__(self, path: str, image_shape: tuple[int, ...]) -> None:
        """DataError where the header is not one of such images."""
        header = read_npy_header(path, _NO_LIMIT)
        check_images(header.shape, header.dtype, path, image_shape)
        if header.fortran:
            raise DataError(
                f"{path}: is in Fortran's order, in which a row lies all over the file; "
                "save np.ascontiguousarray of it"
            )
        self.shape, self.workers = header.shape, 1
        self.dtype = np.dtype(np.uint8 if header.dtype == np.uint8 else np.float32)
        self._rows = NpyRows(path, header)

    def take(self, indices: Indices) -> Array:
        """See `Store.take`."""
        rows = self._rows.take(indices)
        if self.dtype == np.uint8:
            return rows
        with np.errstate(over="ignore", invalid="ignore"):  # Found by the check that follows.
            rows = rows.astype(np.float32, copy=False)
        if bad := not_finite(rows):
            name, end = f"{self._rows.path}: row", "holds NaN or infinity as float32"
            raise BadRowsError(
                {place: DataError(f"{name} {indices[place]} {end}") for place in bad}
            )
        return rows

    def digest(self) -> str:
        """See `Store.digest`."""
        return files.digest_of_file(self._rows.path)


# IDX, plain or gzipped. Format: "The IDX file format" on the MNIST page of Y. LeCun, C. Cortes and
# C. Burges. Two zero bytes, a byte for the type of the values, a byte for the number of dimensions;
# each dimension as four bytes, the highest first; then the values, the last dimension's together.

_GZIP_START = b"\x1f\x8b"
_IDX_START = b"\0\0"
_IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_CHUNK_BYTES = 2**20  # Read at once, so that memory follows what is there, not what is claimed.


def read_idx(path: str, max_bytes: int) -> Array:
    """The array of an IDX file, gzipped or not: [N, ...], N may be 0, in native order.

    Its dtype is uint8, int8, int16, int32, float32 or float64. DataError where it is no whole IDX
    file, or has bytes beyond its values or max_bytes.
    """
    with _open(path) as stream:
        packed = stream.read(len(_GZIP_START)) == _GZIP_START
        stream.seek(0)
        unpacked = cast("IO[bytes]", gzip.GzipFile(fileobj=stream) if packed else stream)
        shape, dtype = _read_idx_header(unpacked, path)
        # Python's integers: the product of a hostile shape may pass 64 bits.
        num_bytes = math.prod(shape) * dtype.itemsize
        _check_size(num_bytes, max_bytes, path)
        content = bytearray()
        while chunk := unpacked.read(min(num_bytes + 1 - len(content), _CHUNK_BYTES)):
            content += chunk
        claim = f"its header claims {num_bytes:,} bytes, {list(shape)}, but it holds"
        if len(content) < num_bytes:
            raise DataError(f"{path}: is cut short: {claim} {len(content):,}")
        if len(content) > num_bytes:
            raise DataError(f"{path}: {claim} more")
        values = np.frombuffer(content, dtype).reshape(shape)
        return values.astype(dtype.newbyteorder("="), copy=False)


def _read_idx_header(stream: IO[bytes], path: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """The shape and the dtype in the file; the stream is then at the values."""
    start = stream.read(4)
    is_idx = len(start) == 4 and start.startswith(_IDX_START) and start[2] in _IDX_DTYPES
    if not is_idx or not start[3]:
        raise DataError(
            f"{path}: is no IDX file: expected to begin with two zero bytes, a type and a number "
            "of dimensions, such as 00 00 08 03; found "
            f"{kind_of(start + stream.read(HEAD_BYTES)) or start.hex(' ')}"
        )
    rank = start[3]
    return struct.unpack(f">{rank}I", stream.read(4 * rank)), np.dtype(_IDX_DTYPES[start[2]])


# CSV.


def read_csv(path: str, max_bytes: int) -> Array:
    """The numbers of a CSV file in UTF-8 without a header: float64 [rows, columns].

    Empty lines are left out. DataError has the line where a row is of another length, or a
    cell is no number.
    """
    content = io.BytesIO(files.read_bytes(path, max_bytes))
    reader = csv.reader(io.TextIOWrapper(content, "utf-8-sig", newline=""))
    numbers, columns = array("d"), 0
    try:
        for row in filter(None, reader):
            columns = columns or len(row)
            if len(row) != columns:
                raise DataError(
                    f"{path}, line {reader.line_num}: expected {columns} numbers, found {len(row)}"
                )
            # Python alone takes 1_000 for a number.
            numbers.extend(float(cell.replace("_", "?")) for cell in row)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8") from error
    except csv.Error as error:  # A cell of over 128 KiB, or a null character.
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    except ValueError as error:
        column = len(numbers) % columns
        raise DataError(
            f"{path}, line {reader.line_num}, column {column + 1}: {row[column][:40]!r} is no "
            "number (expected numbers only, separated by commas, no header)"
        ) from error
    if not columns:
        raise DataError(f"{path}: has no rows")
    return np.array(numbers).reshape(-1, columns)
