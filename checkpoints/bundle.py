"""The variables of a checkpoint: the `.index` and `.data` files, TensorFlow's tensor bundle.

They are written here, and the entries of an index are checked before TensorFlow reads it. Format
of both files: `tensorflow/core/util/tensor_bundle/tensor_bundle.h`.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from checkpoints.file_io import HEAD_BYTES, kind_of, read_bounded
from errors import CheckpointError

FedCallable: TypeAlias = Callable[..., list[np.ndarray[Any, Any]]]


def make_fed_callable(
    session: tf.compat.v1.Session,
    feeds: Sequence[tf.Tensor],
    fetches: Sequence[tf.Tensor],
    targets: Sequence[tf.Operation] = (),
    timeout_ms: int = 0,
) -> FedCallable:
    """Prepares a call that feeds and fetches the same tensors every time.

    `Session.make_callable`, the public way, hands every call with a feed to `Session.run`, which
    works out feeds and fetches anew: 144 microseconds a call of the linear model's step, against
    19 in this way. Hence a private method here, and only here; its test notices when it goes.

    Args:
      session: where it runs.
      feeds: each call takes as many arrays, in this order, each of its tensor's very dtype.
      fetches: what a call returns the values of. A ref variable comes as its own memory, which
        later runs write to: copy it to keep it.
      targets: what a call runs besides.
      timeout_ms: after which a call raises tf.errors.DeadlineExceededError; 0 for never. Queues
        and loops end at once, any other kernel is waited for.
    """
    options = config_pb2.CallableOptions(
        feed=[tensor.name for tensor in feeds],
        fetch=[tensor.name for tensor in fetches],
        target=[operation.name for operation in targets],
    )
    options.run_options.timeout_in_ms = timeout_ms
    make: Callable[..., FedCallable] = session._make_callable_from_options  # noqa: SLF001
    return make(options)


# TensorFlow aborts the process over an index that declares an impossible shape, such as one with a
# negative size: there is no error to catch. Hence a look at the file first.
#
# It is the table of `tensorflow/core/lib/io/format.cc` (that of LevelDB), not compressed, whose
# values are of `tensorflow/core/protobuf/tensor_bundle.proto`.

MAX_BYTES = 1 << 28
_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # Of a block: its compression, and a checksum that TensorFlow compares.
_NOT_COMPRESSED = 0
_MAX_RANK = 254
_MAX_ELEMENTS = 2**63 - 1
_FIRST_REF_DTYPE = 100


def read_index(path: str) -> dict[bytes, BundleEntryProto]:
    """Key -> entry of an `.index` file, each with a dtype, a shape and a place that can be.

    Raises:
      CheckpointError: one has not, or the file is damaged or longer than MAX_BYTES.
    """
    content = read_bounded(path, MAX_BYTES)
    entries: dict[bytes, BundleEntryProto] = {}
    try:
        for key, value in table_entries(content):
            entries[key] = BundleEntryProto.FromString(value)
            _check_entry(entries[key])
    except (DecodeError, ValueError, IndexError, struct.error) as error:
        if kind := kind_of(content[:HEAD_BYTES]):
            raise CheckpointError(f"{path} is no index of a checkpoint: it is {kind}") from error
        raise CheckpointError(
            f"{path.removesuffix('.index')} is damaged: its index cannot be read: {error}"
        ) from error
    return entries


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
    if min(entry.offset, entry.size, entry.shard_id) < 0:
        raise ValueError("a place in its files is negative")
    _check_slices(entry, sizes)


def _check_slices(entry: BundleEntryProto, sizes: Sequence[int]) -> None:
    """Raises ValueError over a slice that is not one of a tensor of these sizes."""
    for part in entry.slices:
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


def _block(content: bytes, offset: int, size: int) -> bytes:
    """The block at a place."""
    if offset + size + _TRAILER_SIZE > len(content):
        raise ValueError("a block is not inside of it")
    if content[offset + size] != _NOT_COMPRESSED:
        raise ValueError("a block is compressed, as TensorFlow writes none")
    return content[offset : offset + size]


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
    """A number of up to ten bytes, and where what follows starts."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a number is too long")


class VariableSpec(NamedTuple):
    """The shape and the dtype of a variable, as they are compared with a checkpoint's."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        """As in an error line: `float32 [3, 3]`."""
        return f"{self.dtype} {list(self.shape)}"


class BundleWriter:
    """Writes the values of a fixed set of variables, from any thread, in a session of its own."""

    def __init__(self, specs: Mapping[str, VariableSpec]) -> None:
        self._names = list(specs)
        graph = tf.Graph()
        with graph.as_default():
            prefix = tf.compat.v1.placeholder(tf.string, [])
            values = [tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in specs.values()]
            save = tf.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=self._names,
                shape_and_slices=[""] * len(values),
                tensors=values,
            )
        self._session = tf.compat.v1.Session(graph=graph)
        self._save = make_fed_callable(self._session, [prefix, *values], [], [save])

    def write(self, prefix: str, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Writes `<prefix>.data-00000-of-00001`, then `<prefix>.index`.

        Raises:
          tf.errors.OpError: the file system refused, or the disk is full.
        """
        self._save(np.array(prefix, object), *(values[name] for name in self._names))

    def close(self) -> None:
        """Frees the session."""
        self._session.close()
