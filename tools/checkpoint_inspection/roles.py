"""What the tensors of a checkpoint are for: the model, its optimizer, or something beside them."""

import re
from collections.abc import Collection

import tensorflow as tf

from checkpoints.loading.checkpoint_reader import CheckpointReader
from tools.checkpoint_inspection.object_names import OBJECT_GRAPH

MODEL, SLOT, OTHER = "model", "slot", "other"
ROLES = (MODEL, SLOT, OTHER)

_COUNTER = re.compile(r"(.*/)?(global_step|save_counter)(/.*)?")
# What tf.train.ExponentialMovingAverage and the moving averages of contrib keep of a variable.
_AVERAGE = re.compile(r"(.+)/(ExponentialMovingAverage|biased|local_step|avg)(_\d+)?")


def role_of(key: str, reader: CheckpointReader, slots: Collection[str]) -> str:
    """One of `ROLES`.

    `other` is what is no parameter: counters and other single integers, flags and texts, and moving
    averages of what is there itself.

    Args:
      key: of a tensor.
      reader: of its checkpoint.
      slots: the keys that only the optimizer needs.
    """
    if key in slots:
        return SLOT
    dtype: tf.DType = reader.dtypes[key]
    is_single = not reader.shapes[key] and not (dtype.is_floating or dtype.is_complex)
    average = _AVERAGE.fullmatch(key)
    if key == OBJECT_GRAPH or is_single or dtype == tf.string or _COUNTER.fullmatch(key):
        return OTHER
    return OTHER if average and average[1] in reader.shapes else MODEL
