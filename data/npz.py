"""Reads .npz and .npy files of unknown origin.

A header is read before memory is taken for its array, objects are never unpickled, and no more
than a given number of bytes is unpacked. Format: https://numpy.org/neps/nep-0001-npy-format.html
"""

import math
import struct
import textwrap
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from data import files
from data.errors import DataError
from data.source import Array

_SUFFIX = ".npy"
ZIP_START = b"PK\x03\x04"
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


def read_npz(
    path: str, max_bytes: int, required: Sequence[str] = (), left_out: Collection[str] = ()
) -> dict[str, Array]:
    """Reads the arrays of an .npz file.

    Args:
      path: of the file; members that are not arrays are left out.
      max_bytes: the limit for all arrays together, unpacked.
      required: where given, these arrays are read and no others.
      left_out: arrays that are not read.

    Returns:
      The arrays by their keys.

    Raises:
      DataError: no such file, no whole .npz file, a required key is missing, an array of objects,
        or more than max_bytes.
    """
    with files.open_binary(path) as stream, damage_as_data_error(path):
        if stream.read(4) != ZIP_START:
            raise DataError(f"{path}: is no .npz file (a zip archive of arrays, see np.savez)")
        with zipfile.ZipFile(stream) as archive:
            members = members_of(archive, path, required)
            members = {key: member for key, member in members.items() if key not in left_out}
            total = sum(
                check_member(archive, member, f"{path}: {key}", max_bytes)
                for key, member in members.items()
            )
            _check_size(total, max_bytes, path)
            return {key: _read_member(archive, member) for key, member in members.items()}


def read_npy(path: str, max_bytes: int) -> Array:
    """Reads the array of an .npy file.

    Raises:
      DataError: no such file, no whole .npy file, an array of objects, or more than max_bytes.
    """
    length = files.size(path)
    with damage_as_data_error(path):
        with files.open_binary(path) as stream:
            check_array(stream, length, path, max_bytes)
        with files.open_binary(path) as stream:
            return _read_array(stream)


@contextmanager
def damage_as_data_error(path: str) -> Iterator[None]:
    """Raises DataError for what NumPy and zipfile raise on damaged bytes, with `path` in it."""
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


def members_of(
    archive: zipfile.ZipFile, path: str, required: Sequence[str]
) -> dict[str, zipfile.ZipInfo]:
    """The members of the archive that are to be read, by key."""
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


def check_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, max_bytes: int
) -> int:
    """Checks a member's header before it is read; returns the bytes of its array."""
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{name}: is encrypted; save it without a password")
    if member.compress_type not in _BOUNDED_METHODS:
        raise DataError(f"{name}: is packed in a way that np.savez does not use")
    with archive.open(member) as stream:
        return check_array(stream, member.file_size, name, max_bytes)


def check_array(stream: IO[bytes], length: int, name: str, max_bytes: int) -> int:
    """Checks the header at the start of a stream of `length` bytes; returns the array's bytes."""
    shape, _, dtype = read_header(stream, name)
    if dtype.hasobject:
        raise DataError(f"{name}: is an array of objects, which are never unpickled")
    if any(dimension < 0 for dimension in shape):
        raise DataError(f"{name}: its header claims the shape {list(shape)}")
    # Python's integers: the product of a hostile shape may pass 64 bits.
    num_bytes = math.prod(shape) * max(dtype.itemsize, 1)
    _check_size(num_bytes, max_bytes, name)
    if stream.tell() + num_bytes != length:
        raise DataError(
            f"{name}: its header claims {num_bytes:,} bytes of {dtype} {list(shape)}, "
            f"but it holds {length - stream.tell():,}"
        )
    return num_bytes


def read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether the order is Fortran's, and the dtype; the stream is then at the data."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise DataError(f"{name}: has the .npy version {version}; expected (1, 0) or (2, 0)")
    return shape, fortran, dtype


def _check_size(num_bytes: int, max_bytes: int, name: str) -> None:
    if num_bytes > max_bytes:
        raise DataError(f"{name}: claims {num_bytes:,} bytes; at most {max_bytes:,} are unpacked")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        return _read_array(stream)


def _read_array(stream: IO[bytes]) -> Array:
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
