"""The entries of a checkpoint's index, checked before TensorFlow reads it.

TensorFlow aborts the process over an index that declares an impossible shape, such as one with a
negative size: there is no error to catch. Hence a look at the file first.

Formats: the table of `tensorflow/core/lib/io/format.cc` (that of LevelDB), whose values are of
`tensorflow/core/protobuf/tensor_bundle.proto`; Snappy's `format_description.txt`.
"""

import math
import struct
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.tensor_slice_pb2 import TensorSliceProto
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from checkpoints.bounded_file import read_bounded
from checkpoints.errors import CheckpointError
from checkpoints.file_kinds import HEAD_BYTES, kind_of

MAX_BYTES = 1 << 28
_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # Of a block: its compression, and a checksum that TensorFlow compares.
_SNAPPY = 1
_MAX_SNAPPY_RATIO = 64
_MAX_RANK = 254
_MAX_ELEMENTS = 2**63 - 1
_FIRST_REF_DTYPE = 100


def check_index(path: str) -> None:
    """Sees that each entry of an `.index` file has a dtype and a shape that can be.

    Raises:
      CheckpointError: one has not, or the file is damaged or longer than MAX_BYTES.
    """
    content = read_bounded(path, MAX_BYTES)
    try:
        for _, value in table_entries(content):
            _check_entry(BundleEntryProto.FromString(value))
    except (DecodeError, ValueError, IndexError, struct.error) as error:
        if kind := kind_of(content[:HEAD_BYTES]):
            raise CheckpointError(f"{path} is no index of a checkpoint: it is {kind}") from error
        raise CheckpointError(
            f"{path.removesuffix('.index')} is damaged: its index cannot be read: {error}"
        ) from error


def _check_entry(entry: BundleEntryProto) -> None:
    """Raises ValueError over what TensorFlow would abort over."""
    try:
        known = 0 < entry.dtype < _FIRST_REF_DTYPE and tf.as_dtype(entry.dtype)
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"there is no tensor of dtype {entry.dtype}")
    sizes = [dim.size for dim in entry.shape.dim]
    if (
        entry.shape.unknown_rank
        or len(sizes) > _MAX_RANK
        or min(sizes, default=0) < 0
        or math.prod(size or 1 for size in sizes) > _MAX_ELEMENTS
    ):
        raise ValueError(f"no tensor has the shape {sizes[:8]}")
    for part in entry.slices:
        _check_slice(part, sizes)


def _check_slice(part: TensorSliceProto, sizes: Sequence[int]) -> None:
    """Raises ValueError over a slice that is not one of a tensor of these sizes."""
    if len(part.extent) != len(sizes):
        raise ValueError(f"a slice has {len(part.extent)} dimensions, its tensor {len(sizes)}")
    for extent, size in zip(part.extent, sizes, strict=True):
        length = extent.length if extent.HasField("length") else 0
        if extent.start < 0 or length < 0 or extent.start + length > size:
            raise ValueError(f"a slice is not inside of its tensor {sizes[:8]}")


def table_entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table, without the empty key, whose value is its header.

    Raises:
      ValueError, IndexError, struct.error: it is no such table.
    """
    left = MAX_BYTES  # Of keys: a few bytes of a file may repeat all of a key before.
    footer = content[-_FOOTER_SIZE:]
    if len(footer) < _FOOTER_SIZE or not footer.endswith(_MAGIC):
        raise ValueError("it does not end as a table does")
    position = _handle(footer, 0)[2]
    offset, size, _ = _handle(footer, position)
    end = 0
    for _, handle in _block_entries(_block(content, offset, size)):
        offset, size, _ = _handle(handle, 0)
        if offset < end:  # Else a small file could have any number of blocks.
            raise ValueError("its blocks overlap")
        is_first, end = end == 0, offset + size
        for number, (key, value) in enumerate(_block_entries(_block(content, offset, size))):
            left -= len(key)
            if left < 0:
                raise ValueError("its keys are too long")
            if key:
                yield key, value
            elif number or not is_first:
                raise ValueError("a key is empty")


def table_header(read: Callable[[int, int], bytes], length: int, most: int) -> bytes:
    """The value of the empty key of a table, of which no more is read than the block it is in.

    Args:
      read: gives the bytes at an offset, so many of them.
      length: of the table.
      most: bytes that the block may have.

    Raises:
      ValueError, IndexError, struct.error: it is no such table, or the block is larger.
    """
    footer = read(max(0, length - _FOOTER_SIZE), _FOOTER_SIZE)
    if len(footer) < _FOOTER_SIZE or not footer.endswith(_MAGIC):
        raise ValueError("it does not end as a table does")
    handle = footer[_handle(footer, 0)[2] :]
    for what in ("index", "first block"):  # The index begins with where the first block is.
        offset, size, _ = _handle(handle, 0)
        if size > most:
            raise ValueError(f"its {what} is too large")
        block = _block(read(offset, size + _TRAILER_SIZE), 0, size)
        key, handle = next(_block_entries(block), (b"", b""))
    if key:
        raise ValueError("it has no header")
    return handle


def _block(content: bytes, offset: int, size: int) -> bytes:
    """The block at a place, unpacked."""
    if offset + size + _TRAILER_SIZE > len(content):
        raise ValueError("a block is not inside of it")
    block = content[offset : offset + size]
    return _unpacked(block) if content[offset + size] == _SNAPPY else block


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The key and the value of each entry of a block."""
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block is too short")
    position, key = 0, b""
    whole = {0}  # Where an entry starts whose key shares nothing with the one before it.
    while position < end:
        begin = position
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        length, position = _varint(block, position)
        start = position + added
        position = start + length
        if shared > len(key) or position > end:
            raise ValueError("an entry is not inside of its block")
        key = key[:shared] + block[start - added : start]
        if not shared:
            whole.add(begin)
        yield key, block[start:position]
    # TensorFlow starts to read at a restart: one elsewhere would be entries that were not seen.
    if not restarts or not whole.issuperset(struct.unpack_from(f"<{restarts}I", block, end)):
        raise ValueError("a restart is at no entry")


def _handle(content: bytes, position: int) -> tuple[int, int, int]:
    """The offset and size of a block, and where what follows starts."""
    offset, position = _varint(content, position)
    size, position = _varint(content, position)
    return offset, size, position


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of a variable count of bytes, and where what follows starts."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a number is too long")


def _unpacked(packed: bytes) -> bytes:
    """Unpacks Snappy."""
    size, position = _varint(packed, 0)
    if size > min(_MAX_SNAPPY_RATIO * len(packed), MAX_BYTES):
        raise ValueError("a block unpacks to too much")
    out = bytearray()
    while position < len(packed) and len(out) <= size:
        tag = packed[position]
        position += 1
        if tag & 3 == 0:
            length = tag >> 2
            if length >= 60:
                count = length - 59
                length = int.from_bytes(packed[position : position + count], "little")
                position += count
            out += packed[position : position + length + 1]
            position += length + 1
        else:
            length, offset, position = _copy(packed, position, tag)
            if not 0 < offset <= len(out):
                raise ValueError("a block cannot be unpacked")
            start = len(out) - offset
            piece = out[start : start + length]
            # It may copy what it has itself just written, which repeats.
            out += (piece * -(-length // len(piece)))[:length]
    if len(out) != size:
        raise ValueError("a block cannot be unpacked")
    return bytes(out)


def _copy(packed: bytes, position: int, tag: int) -> tuple[int, int, int]:
    """How much a copy of Snappy takes, from how far back, and where what follows starts."""
    if tag & 3 == 1:
        return ((tag >> 2) & 7) + 4, (tag >> 5 << 8) | packed[position], position + 1
    count = 2 if tag & 3 == 2 else 4
    offset = int.from_bytes(packed[position : position + count], "little")
    return (tag >> 2) + 1, offset, position + count
