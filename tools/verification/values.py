"""Reads every value of a checkpoint, by which TensorFlow compares each with its checksum."""

import math
from typing import NamedTuple

import tensorflow as tf

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.checkpoint_reader import CheckpointReader

STEP_KEY = "global_step"
_MAX_NAMED = 4


class Values(NamedTuple):
    """What was read.

    Attributes:
      tensors: how many.
      value_bytes: what they take in memory, all together; strings count for nothing.
      problems: a line for each of those that are damaged, of many the first few.
      unread: the names of those that no reader gives, such as the state of an iterator.
      step: the value of the variable `global_step`; None where there is no such number.
    """

    tensors: int
    value_bytes: int
    problems: list[str]
    unread: list[str]
    step: int | None


def read_all(prefix: str) -> Values:
    """Reads the tensors one at a time: no more than the largest is in memory.

    Raises:
      CheckpointError: a file is missing, or so damaged that no tensor can be read.
    """
    reader = CheckpointReader(prefix)
    keys = sorted(reader.shapes)
    unread = [key for key in keys if reader.dtypes[key] == tf.variant]
    readable = [key for key in keys if reader.dtypes[key] != tf.variant]
    reader.check_sizes(readable)
    damaged, step = [], None
    for key in readable:
        try:
            value = reader.read(key)
        except CheckpointError as error:
            damaged.append(f"{key}: {error}")
            continue
        if key == STEP_KEY and value.dtype.kind in "iu" and value.size == 1:
            step = int(value.item())
    size = sum(math.prod(reader.shapes[key]) * reader.dtypes[key].size for key in readable)
    return Values(len(keys), size, _shortened(damaged, len(readable)), unread, step)


def _shortened(damaged: list[str], total: int) -> list[str]:
    """One line for all that are damaged."""
    if not damaged:
        return []
    named = first_few(damaged, _MAX_NAMED, "; ")
    return [f"{len(damaged)} of its {total} tensors cannot be read: {named}"]
