"""How the tensors of a checkpoint lie in its files: their sizes there, their shards, their slices.

Told from the index, or of the format V1 from the headers of its files; no value is read.

Formats: `tensorflow/core/util/tensor_bundle/tensor_bundle.h`, whose slices have keys of
`tensorflow/core/util/saved_tensor_slice_util.cc`; `tensorflow/core/util/saved_tensor_slice.proto`.
"""

import struct
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.tensor_slice_pb2 import TensorSliceProto
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto
from tensorflow.core.util.saved_tensor_slice_pb2 import SavedTensorSlices

from checkpoints.bounded_file import read_bounded
from checkpoints.errors import CheckpointError, reason
from checkpoints.index_table import MAX_BYTES, table_entries, table_header
from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.naming import INDEX_SUFFIX

_OF_A_SLICE, _END_OF_NAME = b"\0", b"\0\1"
_ESCAPES = {b"\0\xff": b"\0", b"\xff\0": b"\xff"}
_MAX_HEADER_BYTES = 1 << 24  # The largest tensor of a file may be in the same block.


class StoredTensor(NamedTuple):
    """Where a tensor is.

    Attributes:
      files: the paths of those that hold values of it.
      slices: how many it was saved in; 0 where it was saved whole, None where that is not known.
      disk_bytes: it takes in the files; None in the format V1, which compresses.
    """

    files: tuple[str, ...]
    slices: int | None
    disk_bytes: int | None


def stored_tensors(reader: CheckpointReader) -> dict[str, StoredTensor]:
    """How each tensor of a checkpoint lies in its files.

    Raises:
      CheckpointError: the index is damaged, or a file is shorter than the index says.
    """
    found = _of_index(reader) if reader.version == "V2" else _of_headers(reader.files)
    files = tuple(reader.files[:1]) if len(reader.files) == 1 else ()
    unknown = StoredTensor(files, None, None)
    return {key: found.get(key, unknown) for key in reader.shapes}


def _of_index(reader: CheckpointReader) -> dict[str, StoredTensor]:
    try:
        content = read_bounded(reader.prefix + INDEX_SUFFIX, MAX_BYTES)
        entries = {k: BundleEntryProto.FromString(v) for k, v in table_entries(content)}
    except (DecodeError, ValueError, IndexError, struct.error) as error:
        raise CheckpointError(f"{reader.prefix} is damaged: {error}") from error
    parts: dict[str, list[BundleEntryProto]] = {}
    for key, entry in entries.items():
        if key.startswith(_OF_A_SLICE):
            parts.setdefault(_sliced_name(key), []).append(entry)
        elif not entry.slices:
            parts[key.decode(errors="replace")] = [entry]
    slices = {k.decode(errors="replace"): len(entry.slices) for k, entry in entries.items()}
    shards = _shards(reader, entries.values())
    return {
        name: StoredTensor(
            files=tuple(sorted({shards[entry.shard_id] for entry in held})),
            slices=slices.get(name),
            disk_bytes=sum(entry.size for entry in held),
        )
        for name, held in parts.items()
    }


def _sliced_name(key: bytes) -> str:
    """The tensor that a slice's key is of; after its name come its starts and its lengths."""
    name = key[len(_OF_A_SLICE) :].partition(_END_OF_NAME)[0]
    for escape, byte in _ESCAPES.items():
        name = name.replace(escape, byte)
    return name.decode(errors="replace")


def _shards(reader: CheckpointReader, entries: Collection[BundleEntryProto]) -> Mapping[int, str]:
    """Shard number -> data file, of those that have values, each long enough for them.

    Raises:
      CheckpointError: a file is missing, or shorter than the index says, or that makes no sense.
    """
    ends: dict[int, int] = {}
    for entry in entries:
        if entry.offset < 0 or entry.size < 0:
            raise CheckpointError(f"{reader.prefix} is damaged: a place in its files is negative")
        if entry.size:
            ends[entry.shard_id] = max(ends.get(entry.shard_id, 0), entry.offset + entry.size)
        else:
            ends.setdefault(entry.shard_id, 0)
    of = reader.files[-1].rpartition("-")[2]
    shards = {number: f"{reader.prefix}.data-{number:05d}-of-{of}" for number in ends}
    for number, end in ends.items():
        length = _length(shards[number])
        if length < end:
            raise CheckpointError(
                f"{reader.prefix} is damaged: {shards[number]} has {length} bytes, its index "
                f"speaks of {end}"
            )
    return shards


def _of_headers(files: Collection[str]) -> dict[str, StoredTensor]:
    """Of the format V1; what has no header that can be read is left out."""
    slices: dict[str, list[TensorSliceProto]] = {}
    where: dict[str, list[str]] = {}
    for file in files:
        header = SavedTensorSlices()
        with suppress(DecodeError, ValueError, IndexError, struct.error, tf.errors.OpError):
            header.ParseFromString(table_header(_range_of(file), _length(file), _MAX_HEADER_BYTES))
        for tensor in header.meta.tensor:
            slices.setdefault(tensor.name, []).extend(tensor.slice)
            where.setdefault(tensor.name, []).append(file)
    return {
        name: StoredTensor(tuple(where[name]), 0 if _is_whole(parts) else len(parts), None)
        for name, parts in slices.items()
    }


def _is_whole(parts: list[TensorSliceProto]) -> bool:
    """Whether the one slice that there is has all of the tensor."""
    return len(parts) == 1 and not any(extent.HasField("length") for extent in parts[0].extent)


def _range_of(path: str) -> Callable[[int, int], bytes]:
    def read(offset: int, count: int) -> bytes:
        with tf.io.gfile.GFile(path, "rb") as file:
            file.seek(offset)
            content: bytes = file.read(count)
            return content

    return read


def _length(path: str) -> int:
    try:
        return int(tf.io.gfile.stat(path).length)
    except tf.errors.OpError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
