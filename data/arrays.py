"""Reads .npz, .npy and IDX files of unknown origin.

A header is checked before memory is taken for its array, objects are never unpickled, and no more
than a given number of bytes is unpacked.
"""

import gzip
import io
import math
import struct
import textwrap
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, NamedTuple, cast

import numpy as np

from data import files
from data.source import Array
from errors import DataError

# .npz and .npy. Format: https://numpy.org/neps/nep-0001-npy-format.html

_SUFFIX = ".npy"
_MAX_HEADER_BYTES = 1 << 16  # NumPy takes 10,000 characters.
_ZIP_START = b"PK\x03\x04"
# Other methods unpack a block of any length at once.
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
# What zipfile raises for damaged bytes, and NumPy where a header is no Python literal.
_DAMAGE = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class Header(NamedTuple):
    """What an .npy file says of its array."""

    shape: tuple[int, ...]
    fortran: bool  # Whether it is in Fortran's order.
    dtype: np.dtype[Any]
    num_bytes: int  # Of its values.


def read_npz(path: str, max_bytes: int, required: Sequence[str] = ()) -> dict[str, Array]:
    """The arrays of an .npz file by their keys, or the `required` ones; other members are left out.

    Raises:
      DataError: no such file, no whole .npz file, a required key is missing, an array of objects,
        or more than max_bytes for all of them together, unpacked.
    """
    with files.open_binary(path) as stream, _damage_as_data_error(path):
        if stream.read(len(_ZIP_START)) != _ZIP_START:
            raise DataError(f"{path}: is no .npz file (a zip archive of arrays, see np.savez)")
        with zipfile.ZipFile(stream) as archive:
            members = _members(archive, path, required)
            total = sum(
                _check_member(archive, member, f"{path}: {key}", max_bytes)
                for key, member in members.items()
            )
            _check_size(total, max_bytes, path)
            arrays = {}
            for key, member in members.items():
                with archive.open(member) as content:
                    arrays[key] = _read_array(content)
            return arrays


def read_npy(path: str, max_bytes: int) -> Array:
    """The array of an .npy file.

    Raises:
      DataError: no such file, no whole .npy file, an array of objects, or more than max_bytes.
    """
    length = files.size(path)
    with files.open_binary(path) as stream, _damage_as_data_error(path):
        _read_header(stream, length, path, max_bytes)
        stream.seek(0)
        return _read_array(stream)


def read_npy_header(stream: BinaryIO, path: str, max_bytes: int) -> Header:
    """Checks the header of an .npy file as `read_npy` does; the stream is then at the values."""
    length = files.size(path)
    with _damage_as_data_error(path):
        header = _read_header(stream, length, path, max_bytes)
        stream.seek(length - header.num_bytes)
        return header


@contextmanager
def _damage_as_data_error(path: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except _DAMAGE as error:
        # NumPy quotes the header it could not parse, up to 10,000 characters.
        reason = textwrap.shorten(str(error) or type(error).__name__, width=200)
        raise DataError(
            f"{path}: cannot be unpacked, is it damaged or cut short? ({reason})"
        ) from error


def _members(
    archive: zipfile.ZipFile, path: str, required: Sequence[str]
) -> dict[str, zipfile.ZipInfo]:
    """The members that are to be read, by key."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if not member.filename.endswith(_SUFFIX):
            continue
        key = member.filename.removesuffix(_SUFFIX)
        if key in members:
            raise DataError(f"{path}: holds the array {key} twice")
        members[key] = member
    missing = [key for key in required if key not in members]
    if missing:
        raise DataError(
            f"{path}: holds no array {' and no '.join(missing)}; "
            f"it holds {', '.join(sorted(members)) or 'none'}"
        )
    return {key: members[key] for key in required} if required else members


def _check_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, max_bytes: int
) -> int:
    """Checks a member's header before it is read; returns the bytes of its array."""
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{name}: is encrypted; save it without a password")
    if member.compress_type not in _BOUNDED_METHODS:
        raise DataError(f"{name}: is packed in a way that np.savez does not use")
    with archive.open(member) as stream:
        return _read_header(stream, member.file_size, name, max_bytes).num_bytes


def _read_header(stream: IO[bytes], length: int, name: str, max_bytes: int) -> Header:
    """Reads and checks the header of a stream of `length` bytes; it is somewhere in it then."""
    # NumPy would read a header of up to 4 GiB before it refuses it.
    head = io.BytesIO(stream.read(_MAX_HEADER_BYTES))
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise DataError(f"{name}: has the .npy version {version}; expected (1, 0) or (2, 0)")
    if dtype.hasobject:
        raise DataError(f"{name}: is an array of objects, which are never unpickled")
    if any(dimension < 0 for dimension in shape):
        raise DataError(f"{name}: its header claims the shape {list(shape)}")
    if not dtype.itemsize:
        raise DataError(f"{name}: its values are of no bytes ({dtype})")
    # Python's integers: the product of a hostile shape may pass 64 bits.
    num_bytes = math.prod(shape) * dtype.itemsize
    _check_size(num_bytes, max_bytes, name)
    if head.tell() + num_bytes != length:
        raise DataError(
            f"{name}: its header claims {num_bytes:,} bytes of {dtype} {list(shape)}, "
            f"but it holds {length - head.tell():,}"
        )
    return Header(shape, fortran, dtype, num_bytes)


def _check_size(num_bytes: int, max_bytes: int, name: str) -> None:
    if num_bytes > max_bytes:
        raise DataError(f"{name}: claims {num_bytes:,} bytes; at most {max_bytes:,} are unpacked")


def _read_array(stream: IO[bytes]) -> Array:
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


# IDX, plain or gzipped.
#
# Format: "The IDX file format" on the MNIST page of Y. LeCun, C. Cortes and C. Burges. Two zero
# bytes, a byte for the type of the values, a byte for the number of dimensions; each dimension as
# four bytes, the highest first; then the values, the last dimension's next to each other.

_GZIP_START = b"\x1f\x8b"
_PLAIN_START = b"\0\0"
_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_RANK = 32  # NumPy 1 holds no more; the format has a byte for it.
_CHUNK_BYTES = 2**20  # Read at once, so that memory follows what is there, not what is claimed.


def read_idx(path: str, max_bytes: int) -> Array:
    """The array of an IDX file; whether it is gzipped is told by its content.

    Returns:
      One dimension or more of uint8, int8, int16, int32, float32 or float64, in the machine's byte
      order. It may hold no value.

    Raises:
      DataError: no such file, no whole IDX file, bytes after its values, or more than max_bytes for
        them, unpacked.
    """
    with _open_unpacked(path) as stream:
        shape, dtype = _read_idx_header(stream, path)
        # Python's integers: the product of a hostile shape may pass 64 bits.
        num_bytes = math.prod(shape) * dtype.itemsize
        claim = f"its header claims {num_bytes:,} bytes, {list(shape)}"
        if num_bytes > max_bytes:
            raise DataError(f"{path}: {claim}; at most {max_bytes:,} are unpacked")
        content = bytearray()
        while chunk := stream.read(min(num_bytes + 1 - len(content), _CHUNK_BYTES)):
            content += chunk
    if len(content) < num_bytes:
        raise DataError(f"{path}: is cut short: {claim}, but it holds {len(content):,}")
    if len(content) > num_bytes:
        raise DataError(f"{path}: {claim}, but it holds more")
    values = np.frombuffer(content, dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


@contextmanager
def _open_unpacked(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading its bytes, those inside where it is gzipped."""
    with files.open_binary(path) as stream:
        packed = stream.read(len(_GZIP_START)) == _GZIP_START
        stream.seek(0)
        if not packed:
            yield stream
            return
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            try:
                yield cast(BinaryIO, unpacked)
            except (EOFError, OSError, zlib.error) as error:
                # `EOFError` is a file that ends too early, the others bytes that are no gzip.
                raise DataError(
                    f"{path}: cannot be unpacked, is it damaged or cut short? ({error})"
                ) from error


def _read_idx_header(stream: BinaryIO, path: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """The shape and the dtype as they are in the file; the stream is then at the values."""
    start = stream.read(4)
    is_idx = len(start) == 4 and start.startswith(_PLAIN_START) and start[2] in _DTYPES
    if not (is_idx and 1 <= start[3] <= _MAX_RANK):
        raise DataError(
            f"{path}: is no IDX file: expected to begin with two zero bytes, a type and a number "
            f"of dimensions, such as 00 00 08 03; found {start.hex(' ') or 'an empty file'}"
        )
    rank = start[3]
    dimensions = stream.read(4 * rank)
    if len(dimensions) < 4 * rank:
        raise DataError(f"{path}: is cut short: its header claims {rank} dimensions")
    return struct.unpack(f">{rank}I", dimensions), np.dtype(_DTYPES[start[2]])
