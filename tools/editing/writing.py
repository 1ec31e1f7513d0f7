"""Writes the tensors of a new checkpoint, a few at a time, so that they need not all fit in memory.

TensorFlow's own operation takes all tensors at once. What is larger than GROUP_BYTES is written as
several checkpoints, which are then made one: their data files become its shards.
"""

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from checkpoints.errors import reason
from checkpoints.loading.checkpoint_reader import Array, CheckpointReader
from checkpoints.tensor_bundle import BundleWriter, VariableSpec
from tools.common.errors import ToolError
from tools.editing.contents import Tensor

GROUP_BYTES = 128 << 20


def write_tensors(
    reader: CheckpointReader,
    tensors: Sequence[Tensor],
    prefix: str,
    allow_overflow: bool,
    group_bytes: int = GROUP_BYTES,
) -> None:
    """Writes `<prefix>.index` and its data files.

    Args:
      reader: of the values.
      tensors: in the order in which they are written.
      prefix: in a folder that is there and has nothing of that name.
      allow_overflow: keep numbers that are too large for their new dtype, as infinities.
      group_bytes: of values that are in memory at once; a larger tensor alone is.

    Raises:
      CheckpointError: the source is damaged.
      ToolError: a number overflows, or the disk refused.
    """
    groups = list(_groups(tensors, group_bytes))
    parts = [f"{prefix}-{number}" for number in range(len(groups))] if groups[1:] else [prefix]
    try:
        for part, group in zip(parts, groups, strict=True):
            _write(reader, group, part, allow_overflow)
        if groups[1:]:
            _merge(parts, prefix)
    except tf.errors.OpError as error:
        folder = os.path.dirname(prefix)
        raise ToolError(f"could not write into {folder}: {reason(error)}") from error


def _groups(tensors: Iterable[Tensor], most: int) -> Iterator[list[Tensor]]:
    """The tensors in their order, as many together as have at most so many bytes."""
    group: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if group and size + tensor.bytes_read > most:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += tensor.bytes_read
    yield group


def _write(
    reader: CheckpointReader, group: Sequence[Tensor], prefix: str, allow_overflow: bool
) -> None:
    specs = {t.new: VariableSpec(t.shape, t.stored.name) for t in group}
    writer = BundleWriter(specs)
    try:
        writer.write(prefix, {t.new: _value(reader, t, allow_overflow) for t in group})
    finally:
        writer.close()


def _value(reader: CheckpointReader, tensor: Tensor, allow_overflow: bool) -> Array:
    """A tensor's value in its new dtype, rounded to the nearest."""
    value = reader.read(tensor.old)
    if tensor.stored == tensor.dtype:
        return value
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(tensor.stored.as_numpy_dtype)
    if not allow_overflow:
        lost = np.isfinite(value) & ~np.isfinite(cast)
        if lost.any():
            raise ToolError(
                f"{tensor.old} holds {value[lost].flat[0]:g}, too large for {tensor.stored.name} "
                f"({int(lost.sum())} such of {lost.size}): --cast to a wider one, or "
                "--allow_overflow to make infinities of them"
            )
    return cast


def _merge(parts: Sequence[str], prefix: str) -> None:
    """Makes one checkpoint of several; theirs are gone."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        merge = tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=parts, destination_prefix=prefix, delete_old_dirs=False
        )
        session.run(merge)
