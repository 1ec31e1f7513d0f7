"""The tensors of a checkpoint that is edited: read one by one, in the order they lie in."""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from checkpoints.bounded_file import read_bounded
from checkpoints.index_table import MAX_BYTES, table_entries
from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.naming import INDEX_SUFFIX
from tools.common.errors import ToolError


class Contents(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      reader: of its values.
      keys: of its tensors, in the order in which their values are in its files.
      in_slices: those of them that are saved in slices, as partitioned variables are.
    """

    reader: CheckpointReader
    keys: list[str]
    in_slices: frozenset[str]


class Tensor(NamedTuple):
    """A tensor of a checkpoint and what becomes of it.

    Attributes:
      old: its key.
      new: its key in the new checkpoint.
      shape: its sizes.
      dtype: its tf.DType.
      stored: that in the new checkpoint.
    """

    old: str
    new: str
    shape: tuple[int, ...]
    dtype: tf.DType
    stored: tf.DType

    @property
    def bytes(self) -> int:
        """Of its value in the new checkpoint; of strings, of which nobody knows, none."""
        return self._bytes_of(self.stored)

    @property
    def bytes_read(self) -> int:
        """Of its value in the old one."""
        return self._bytes_of(self.dtype)

    def _bytes_of(self, dtype: tf.DType) -> int:
        count = tf.TensorShape(self.shape).num_elements() or 0
        return 0 if dtype == tf.string else int(count * dtype.size)


def read_contents(prefix: str) -> Contents:
    """Opens a checkpoint of any format; no value is read.

    Raises:
      CheckpointError: a file is missing or damaged.
    """
    reader = CheckpointReader(prefix)
    reader.check_sizes(reader.shapes)
    places: dict[str, tuple[int, int]] = {}
    in_slices = set[str]()
    if reader.version == "V2":
        content = read_bounded(prefix + INDEX_SUFFIX, MAX_BYTES)
        for key, value in table_entries(content):
            entry = BundleEntryProto.FromString(value)
            name = key.decode("utf-8", errors="replace")
            places[name] = (entry.shard_id, entry.offset)
            if entry.slices:
                in_slices.add(name)
    keys = sorted(reader.shapes, key=lambda key: (places.get(key, (0, 0)), key))
    return Contents(reader, keys, frozenset(in_slices & reader.shapes.keys()))


def plan_tensors(
    contents: Contents, names: Mapping[str, str], cast: tf.DType | None
) -> list[Tensor]:
    """What becomes of the tensors that are kept.

    Args:
      contents: the checkpoint.
      names: old key -> new key, of those that are kept.
      cast: what numbers of any floating type become; None where they stay.

    Raises:
      ToolError: one is of a kind that cannot be read as a value.
    """
    tensors = []
    for key in (key for key in contents.keys if key in names):
        dtype = contents.reader.dtypes[key]
        if dtype in (tf.variant, tf.resource):
            raise ToolError(f"{key} is a {dtype.name}, which only its graph can read: --drop it")
        stored = cast if cast is not None and is_number(dtype) else dtype
        shape = tuple(contents.reader.shapes[key])
        tensors.append(Tensor(key, names[key], shape, dtype, stored))
    return tensors


def is_number(dtype: tf.DType) -> bool:
    """Whether --cast is for it."""
    return dtype in (tf.float16, tf.bfloat16, tf.float32, tf.float64)
