"""Reads IDX files of unknown origin, plain or gzipped.

Format: "The IDX file format" on the MNIST page of Y. LeCun, C. Cortes and C. Burges. Two zero
bytes, a byte for the type of the values, a byte for the number of dimensions; each dimension as
four bytes, the highest first; then the values, the last dimension's next to each other.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import numpy as np

from data import files
from data.errors import DataError
from data.source import Array

_GZIP_START = b"\x1f\x8b"
_PLAIN_START = b"\0\0"
_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_RANK = 32  # NumPy 1 holds no more; the format has a byte for it.
_CHUNK_BYTES = 2**20  # Read at once, so that memory follows what is there, not what is claimed.


def is_idx(content_start: bytes) -> bool:
    """Whether a file that begins with these four bytes says it is a plain IDX file."""
    return (
        len(content_start) >= 4
        and content_start.startswith(_PLAIN_START)
        and content_start[2] in _DTYPES
        and 1 <= content_start[3] <= _MAX_RANK
    )


def read_idx(path: str, max_bytes: int) -> Array:
    """Reads the array of an IDX file; whether it is gzipped is told by its content.

    Args:
      path: of the file.
      max_bytes: the limit for the array's values, unpacked.

    Returns:
      The array, one dimension or more: uint8, int8, int16, int32, float32 or float64, in the
      machine's byte order. It may hold no value.

    Raises:
      DataError: no such file, no whole IDX file, bytes after its values, or more than max_bytes.
    """
    with _open_unpacked(path) as stream:
        shape, dtype = _read_header(stream, path)
        # Python's integers: the product of a hostile shape may pass 64 bits.
        num_bytes = math.prod(shape) * dtype.itemsize
        claim = f"its header claims {num_bytes:,} bytes, {list(shape)}"
        if num_bytes > max_bytes:
            raise DataError(f"{path}: {claim}; at most {max_bytes:,} are unpacked")
        content = _read_up_to(stream, num_bytes + 1)
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


def _read_header(stream: BinaryIO, path: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """The shape and the dtype as they are in the file; the stream is then at the values."""
    start = stream.read(4)
    if not is_idx(start):
        raise DataError(
            f"{path}: is no IDX file: expected to begin with two zero bytes, a type and a number "
            f"of dimensions, such as 00 00 08 03; found {start.hex(' ') or 'an empty file'}"
        )
    rank = start[3]
    dimensions = stream.read(4 * rank)
    if len(dimensions) < 4 * rank:
        raise DataError(f"{path}: is cut short: its header claims {rank} dimensions")
    return struct.unpack(f">{rank}I", dimensions), np.dtype(_DTYPES[start[2]])


def _read_up_to(stream: BinaryIO, limit: int) -> bytearray:
    """All that the stream still holds, but no more than `limit` bytes."""
    content = bytearray()
    while chunk := stream.read(min(limit - len(content), _CHUNK_BYTES)):
        content += chunk
    return content
