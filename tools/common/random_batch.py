"""Values for the inputs of a model that nobody has given any data for."""

import numpy as np
import tensorflow as tf

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.tensor_info import TensorInfo
from tools.common.errors import ToolError

ROWS = 2  # For each size that is not known: enough to tell rows apart.


def random_value(info: TensorInfo, rng: np.random.Generator) -> Array:
    """A value that most models take: floats in [0, 1), bytes, False, integers 0 and 1, empty texts.

    A bool is most often a switch for training. An integer may be an index.

    Args:
      info: the tensor; sizes that are not known are `ROWS`.
      rng: where it comes from.

    Raises:
      ToolError: there are no values of its dtype.
    """
    shape = (ROWS,) if info.shape is None else tuple(ROWS if n is None else n for n in info.shape)
    if info.dtype == tf.string:
        return np.full(shape, b"", object)
    if info.dtype.is_bool:
        return np.zeros(shape, bool)
    if not (info.dtype.is_floating or info.dtype.is_integer or info.dtype.is_complex):
        raise ToolError(f"{info.name} is a {info.dtype.name}, of which no value can be made up")
    if info.dtype == tf.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    whole = info.dtype.is_integer
    drawn = rng.integers(0, 2, shape) if whole else rng.random(shape)
    return np.asarray(drawn).astype(info.dtype.as_numpy_dtype)
