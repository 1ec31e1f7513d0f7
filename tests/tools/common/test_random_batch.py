"""Values that are made up for a model's inputs."""

import numpy as np
import pytest
import tensorflow as tf

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.tensor_info import TensorInfo
from tools.common.errors import ToolError
from tools.common.random_batch import random_value


def _value(dtype: tf.DType, shape: tuple[int | None, ...] | None) -> Array:
    return random_value(TensorInfo("x:0", dtype, shape), np.random.default_rng(0))


@pytest.mark.parametrize(
    "dtype",
    [tf.float16, tf.bfloat16, tf.float64, tf.uint8, tf.int8, tf.int64, tf.bool, tf.complex64],
    ids=lambda dtype: dtype.name,
)
def test_it_is_of_the_tensors_dtype_and_within_what_models_take(dtype: tf.DType) -> None:
    value = _value(dtype, (None, 5, None))
    assert value.shape == (2, 5, 2)
    assert tf.as_dtype(value.dtype) == dtype
    most = 255 if dtype == tf.uint8 else 1
    assert np.abs(value.astype(np.complex128)).max() <= most
    assert (np.unique(value).size == 1) == dtype.is_bool


def test_texts_are_empty_and_unknown_ranks_are_rows() -> None:
    assert _value(tf.string, (None, 1)).tolist() == [[b""], [b""]]
    assert _value(tf.float32, None).shape == (2,)
    assert _value(tf.float32, ()).shape == ()


def test_a_resource_has_no_value() -> None:
    with pytest.raises(ToolError, match="x:0 is a resource"):
        _value(tf.resource, ())
