"""TensorFlow's tensor bundle, format V2 of checkpoints: its `.index` and its `.data` files.

The index is a table as LevelDB has it, of an entry for each tensor, which says where in the data
files its values are. Everything here is a stranger's until it is checked: blocks and values have
checksums, and sizes are compared with the files before memory is taken.

Formats: `tensorflow/core/util/tensor_bundle/tensor_bundle.cc`,
`tensorflow/core/protobuf/tensor_bundle.proto`; the numbers of dtypes:
`tensorflow/core/framework/types.proto`.
"""

import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import google_crc32c
import ml_dtypes
import numpy as np
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from checkpoints import index_table
from checkpoints.layout import DATA_SUFFIX, INDEX_SUFFIX
from errors import DamagedError
from file_io import HEAD_BYTES, kind_of, opened, read_bounded

_MAX_RANK = 254
_MAX_ELEMENTS = 2**63 - 1
_MAX_SHARDS = 100_000  # A file's name has five digits for its number.
_VERSION = 1
Fields: TypeAlias = dict[int, list[Any]]

# The dtypes of TensorFlow, by their numbers in files.

_NAMES = (
    *("", "float32", "float64", "int32", "uint8", "int16", "int8", "string", "complex64", "int64"),
    *("bool", "qint8", "quint8", "qint32", "bfloat16", "qint16", "quint16", "uint16"),
    *("complex128", "float16", "resource", "variant", "uint32", "uint64", "float8_e5m2"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4"),
    *("uint4", "int2", "uint2", "float4_e2m1fn"),
)
MOST_NUMBER = len(_NAMES) - 1
_OBJECTS = ("string", "resource", "variant")
_FIRST_REFERENCE = 100  # The number of a reference is that of its dtype and this.


class DType(str):
    """The name of a dtype, such as `float32`, which says of it what a `tf.DType` does.

    TensorFlow takes it for a dtype, and it equals the tf.DType of that name; its hash is another.
    """

    name: str  # The name alone.
    is_floating: bool
    is_complex: bool
    is_integer: bool  # And not quantized.
    is_bool: bool

    def __new__(cls, name: str) -> "DType":
        """Tells its kind by its name."""
        self = super().__new__(cls, name)
        self.name = str(name)
        self.is_floating = name.startswith(("float", "bfloat"))
        self.is_complex = name.startswith("complex")
        self.is_integer = name.startswith(("int", "uint"))
        self.is_bool = name == "bool"
        return self

    @property
    def as_datatype_enum(self) -> int:
        """Its number in a file."""
        return _NAMES.index(self)

    @property
    def as_numpy_dtype(self) -> np.dtype[Any]:
        """NumPy's type of its values; of texts and handles, objects."""
        return _numpy_dtype(self.removesuffix("_ref"))

    @property
    def size(self) -> int:
        """The bytes of a value in memory; 0 where they differ from value to value."""
        return 0 if self in _OBJECTS else self.as_numpy_dtype.itemsize

    @property
    def min(self) -> int | float:
        """The least value of a number."""
        return self._limits.min  # type: ignore[no-any-return]

    @property
    def max(self) -> int | float:
        """The greatest value of a number."""
        return self._limits.max  # type: ignore[no-any-return]

    @property
    def _limits(self) -> Any:
        return (ml_dtypes.iinfo if self.is_integer else ml_dtypes.finfo)(self.as_numpy_dtype)


STRING, RESOURCE, VARIANT = map(DType, _OBJECTS)


def as_dtype(number: int) -> DType:
    """The dtype of a number in a file, a reference's with `_ref` at its end; or a TypeError."""
    is_reference = number > _FIRST_REFERENCE
    value = number - _FIRST_REFERENCE if is_reference else number
    if not 0 < value <= MOST_NUMBER:
        raise TypeError(f"there is no dtype {number}")
    return DType(_NAMES[value] + "_ref" * is_reference)


def dtype_of(array: np.ndarray[Any, Any]) -> DType:
    """The dtype of an array's values; objects are texts."""
    if array.dtype.names:
        return DType(array.dtype.names[0])
    return STRING if array.dtype.kind == "O" else DType(array.dtype.name)


@cache
def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name in _OBJECTS:
        return np.dtype(object)
    if name.lstrip("u").startswith("q"):  # Quantized: a field of its name, as TensorFlow has it.
        return np.dtype([(name, name.replace("q", ""))])
    return np.dtype(getattr(ml_dtypes, name, name))


# What an index says.


class VariableSpec(NamedTuple):
    """The shape and the dtype of a variable, as they are compared with a checkpoint's."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        """As in an error line: `float32 [3, 3]`."""
        return f"{self.dtype} {list(self.shape)}"


class Slice(NamedTuple):
    """A part of a tensor: where it starts in each dimension, and its length, None for all of it."""

    starts: tuple[int, ...]
    lengths: tuple[int | None, ...]


class Entry(NamedTuple):
    """What an index says of a tensor, or of a slice of one; what is in `slices` has no place."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard_id: int = 0  # The data file.
    offset: int = 0  # In it, as `size` in bytes.
    size: int = 0
    crc32c: int = 0
    slices: tuple[Slice, ...] = ()


class Index(NamedTuple):
    """An index: the number of its data files, whether their bytes run backwards, its entries."""

    num_shards: int
    is_big_endian: bool
    entries: Mapping[bytes, Entry]


def read_index(path: str) -> Index:
    """Reads an `.index` file; DamagedError where it is damaged or an entry makes no sense."""
    content = read_bounded(path, index_table.MAX_BYTES)
    try:
        table = index_table.table_entries(content)
        header = fields_of(next(table, (b"", b""))[1])
        version = fields_of(last_of(header, 3, b""))
        if last_of(version, 2, 0) > _VERSION:
            raise ValueError(f"its format is a later one, {last_of(version, 1, 0)}")
        num_shards = last_of(header, 1, 0)
        if not 0 < num_shards <= _MAX_SHARDS:
            raise ValueError(f"it speaks of {num_shards} data files")
        entries = {key: _entry(value) for key, value in table}
        return Index(num_shards, bool(last_of(header, 2, 0)), entries)
    except (ValueError, IndexError, TypeError, DecodeError, struct.error) as error:
        if kind := kind_of(content[:HEAD_BYTES]):
            raise DamagedError(f"{path} is no index of a checkpoint: it is {kind}") from error
        raise DamagedError(
            f"{path.removesuffix(INDEX_SUFFIX)} is damaged: its index cannot be read: {error}"
        ) from error


def _entry(message: bytes) -> Entry:
    """An entry, of which everything can be; else a ValueError, a TypeError or a DecodeError."""
    fields = fields_of(message)
    shape = fields_of(last_of(fields, 2, b""))
    sizes = tuple(_signed(last_of(fields_of(dim), 1, 0)) for dim in shape.get(2, ()))
    shard, offset, size = (_signed(last_of(fields, number, 0)) for number in (3, 4, 5))
    slices = tuple(_slice(part, sizes) for part in fields.get(7, ()))
    dtype = _signed(last_of(fields, 1, 0))
    entry = Entry(dtype, sizes, shard, offset, size, last_of(fields, 6, 0), slices)
    if not 0 < dtype <= MOST_NUMBER:
        raise ValueError(f"there is no tensor of dtype {dtype}")
    if (
        last_of(shape, 3, 0)  # Its rank is unknown.
        or len(sizes) > _MAX_RANK
        or min(sizes, default=0) < 0
        or math.prod(size or 1 for size in sizes) > _MAX_ELEMENTS
    ):
        raise ValueError(f"no tensor has the shape {list(sizes[:8])}")
    if min(entry.shard_id, entry.offset, entry.size) < 0:
        raise ValueError("a place in its files is negative")
    return entry


def _slice(message: bytes, sizes: Sequence[int]) -> Slice:
    """A slice of a tensor of these sizes; raises as `_entry` does."""
    extents = [fields_of(extent) for extent in fields_of(message).get(1, ())]
    if len(extents) != len(sizes):
        raise ValueError(f"a slice has {len(extents)} dimensions, its tensor {len(sizes)}")
    starts = tuple(_signed(last_of(extent, 1, 0)) for extent in extents)
    lengths = tuple(_signed(last_of(extent, 2, 0)) if 2 in extent else None for extent in extents)
    for start, length, size in zip(starts, lengths, sizes, strict=True):
        if start < 0 or (length or 0) < 0 or start + (length or 0) > size:
            raise ValueError(f"a slice is not inside of its tensor {list(sizes[:8])}")
    return Slice(starts, lengths)


# Messages by the numbers of their fields: TensorBoard has no class for them where TensorFlow is not
# installed.


def fields_of(message: bytes) -> Fields:
    """The fields of a message by number; DecodeError where it is none."""
    fields: Fields = {}
    found = UnknownFieldSet(Empty.FromString(message))
    for index in range(len(found)):
        fields.setdefault(found[index].field_number, []).append(found[index].data)
    return fields


def last_of(fields: Fields, number: int, default: Any) -> Any:
    """The value of a field, the last one counts; TypeError where it is of another kind."""
    value = fields.get(number, [default])[-1]
    if isinstance(value, bytes) != isinstance(default, bytes):
        raise TypeError(f"field {number} is of another kind")
    return value


def _signed(number: int) -> int:
    """A number of 64 bits, of which the first is its sign."""
    return number - (1 << 64) if number >> 63 else number


# Values.

_AT_ONCE = 1 << 20  # Bytes: what is read and checked at once stays in a processor's cache.


def read_values(path: str, entry: Entry, is_big_endian: bool = False) -> np.ndarray[Any, Any]:
    """The values of an entry without slices; ValueError where they are damaged, or OSError."""
    dtype = as_dtype(entry.dtype)
    if dtype == STRING:
        if is_big_endian:
            raise ValueError("it has texts of a big-endian machine")
        return _read_texts(path, entry)
    if not dtype.size:
        raise ValueError(f"a {dtype} has no value that could be read")
    if entry.size != (size := math.prod(entry.shape) * dtype.size):
        raise ValueError(f"a tensor of {size} bytes is stored in {entry.size}")
    value = np.empty(entry.shape, dtype.as_numpy_dtype)
    crc, content = 0, value.reshape(-1).view(np.uint8)
    with opened(path) as file:
        file.seek(entry.offset)
        for start in range(0, content.size, _AT_ONCE):
            size = min(_AT_ONCE, content.size - start)
            piece = file.read(size)
            if len(piece) < size:
                raise ValueError("its file is too short")
            content[start : start + _AT_ONCE] = np.frombuffer(piece, np.uint8)
            crc = google_crc32c.extend(crc, piece)
    _check_sum(crc, entry)
    return value.byteswap() if is_big_endian else value


def _read_texts(path: str, entry: Entry) -> np.ndarray[Any, Any]:
    """Texts: their lengths, a checksum of these, and all their bytes."""
    count = math.prod(entry.shape)
    if count > entry.size:
        raise ValueError("it has more texts than bytes")
    with opened(path) as file:
        file.seek(entry.offset)
        content = file.read(entry.size)
    position, lengths = 0, list[int]()
    for _ in range(count):
        length, position = index_table.read_varint(content, position)
        lengths.append(length)
    ends = [*itertools.accumulate(lengths, initial=position + 4)]
    if ends[-1] != entry.size or len(content) != entry.size:
        raise ValueError("its texts are not as long as their lengths say")
    crc = google_crc32c.value(_lengths_to_check(lengths))
    if index_table.masked(crc) != int.from_bytes(content[position : position + 4], "little"):
        raise ValueError("Checksum does not match: of the lengths of its texts")
    _check_sum(google_crc32c.extend(crc, content[position:]), entry)
    value = np.empty(count, object)
    value[:] = [content[start:end] for start, end in itertools.pairwise(ends)]
    return value.reshape(entry.shape)


def _lengths_to_check(lengths: Sequence[int]) -> bytes:
    return b"".join(n.to_bytes(4 if n < 1 << 32 else 8, "little") for n in lengths)


def _check_sum(crc: int, entry: Entry) -> None:
    found = index_table.masked(crc)
    if found != entry.crc32c:
        raise ValueError(
            f"Checksum does not match: stored {entry.crc32c}, of what was read {found}"
        )


def slice_key(name: bytes, part: Slice) -> bytes:
    """The key of a slice of a tensor: numbers and texts such that keys sort as these do.

    Source: `tensorflow/core/util/saved_tensor_slice_util.cc`, `.../lib/strings/ordered_code.cc`.
    """
    escaped = name.replace(b"\0", b"\0\xff")
    rank = bytes([1, len(part.starts)]) if part.starts else b"\0"
    extents = zip(part.starts, part.lengths, strict=True)
    # Of all of a dimension, the length is -1.
    numbers = (_ordered(-1 if n is None else n) for extent in extents for n in extent)
    return b"".join([b"\0", escaped, b"\0\1", rank, *numbers])


def _ordered(number: int) -> bytes:
    """A number in as few bytes as hold it: as many ones as bytes, turned over if it is negative."""
    length = number.bit_length() // 7 + 1
    digits = number.to_bytes(length, "big", signed=True)
    ones = ((1 << length) - 1 << 16 - length).to_bytes(2, "big")
    return bytes(d ^ one for d, one in zip(digits, ones, strict=False)) + digits[2:]


# Writing, the same bytes as TensorFlow's own writer.


def write_bundle(prefix: str, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Writes `<prefix>.data-00000-of-00001`, in the mapping's order, then `<prefix>.index`."""
    rows = {b"": _message((1, 1), (3, _message((1, _VERSION))))}
    offset = 0
    with opened(prefix + DATA_SUFFIX, "wb") as file:
        for name, value in values.items():
            dtype, content, crc = _stored(value)
            for start in range(0, len(content), _AT_ONCE):
                file.write(bytes(content[start : start + _AT_ONCE]))
            dims = [(2, _message((1, size))) for size in value.shape]
            places = ((4, offset), (5, len(content)))
            entry = _message((1, dtype.as_datatype_enum), (2, _message(*dims)), *places)
            rows[name.encode()] = entry + b"\x35" + index_table.masked(crc).to_bytes(4, "little")
            offset += len(content)
    with opened(prefix + INDEX_SUFFIX, "wb") as file:
        file.write(index_table.write_table(sorted(rows.items())))


def _stored(value: np.ndarray[Any, Any]) -> tuple[DType, Any, int]:
    """The dtype of an array, its bytes in a file, and their CRC32C."""
    if value.dtype.kind != "O":
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return dtype_of(value), flat.data, google_crc32c.value(flat)
    texts = [bytes(text) for text in value.reshape(-1)]
    lengths = [len(text) for text in texts]
    crc = google_crc32c.value(_lengths_to_check(lengths))
    content = b"".join([index_table.masked(crc).to_bytes(4, "little"), *texts])
    crc = google_crc32c.extend(crc, content)
    return STRING, b"".join(map(index_table.varint, lengths)) + content, crc


def _message(*fields: tuple[int, int | bytes]) -> bytes:
    """A message of numbers, of which one that is 0 is left out, and bytes."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, bytes):
            out += index_table.varint(number << 3 | 2) + index_table.varint(len(value)) + value
        elif value:
            out += index_table.varint(number << 3) + index_table.varint(value)
    return bytes(out)
