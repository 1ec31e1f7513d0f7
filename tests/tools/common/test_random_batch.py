"""Values that are made up for a graph's inputs."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import Array
from errors import CheckpointError, ToolError
from metagraph.meta import MetaGraphFile, TensorInfo
from tools.random_batch import try_batches

v1 = tf.compat.v1

NO_GRAPH = MetaGraphFile("m.meta", "m", MetaGraphDef())


def _value(dtype: tf.DType, shape: tuple[int | None, ...] | None) -> Array:
    """The first that is tried."""
    (value,), _ = try_batches(NO_GRAPH, [TensorInfo("x:0", dtype, shape)], len)
    return value


@pytest.mark.parametrize(
    "dtype",
    [tf.float16, tf.bfloat16, tf.float64, tf.uint8, tf.int8, tf.int64, tf.bool, tf.complex64],
    ids=lambda dtype: dtype.name,
)
def test_it_is_of_the_tensors_dtype_and_within_what_models_take(dtype: tf.DType) -> None:
    value = _value(dtype, (None, 5, None))
    assert value.shape == (2, 5, 8)
    assert tf.as_dtype(value.dtype) == dtype
    numbers = np.abs(value.astype(np.complex128))
    assert numbers.max() <= (255 if dtype == tf.uint8 else 1.5)
    assert (numbers.max() > 200) == (dtype == tf.uint8)
    assert np.unique(value).size > 1


def test_texts_are_empty_and_unknown_ranks_are_rows() -> None:
    assert _value(tf.string, (None, 1)).tolist() == [[b""], [b""]]
    assert _value(tf.float32, None).shape == (2,)
    assert _value(tf.float32, ()).shape == ()


@pytest.mark.parametrize("shape", [(), None])
def test_a_single_bool_is_a_switch_that_is_off(shape: tuple[int, ...] | None) -> None:
    value = _value(tf.bool, shape)
    assert value.shape == ()
    assert not value


def test_a_resource_has_no_value() -> None:
    with pytest.raises(ToolError, match="x:0 is a resource"):
        _value(tf.resource, ())


def _refuses(refused: Callable[[Array], bool]) -> Callable[[Sequence[Array]], float]:
    """A graph that takes only some batches."""

    def run(values: Sequence[Array]) -> float:
        if refused(values[0]):
            raise CheckpointError(f"refused {values[0].shape}")
        return float(values[0].sum())

    return run


def test_the_first_batch_that_the_graph_takes_is_used() -> None:
    info = TensorInfo("x:0", tf.float32, (None,))
    (value,), total = try_batches(NO_GRAPH, [info], _refuses(lambda value: len(value) < 30))
    assert value.shape == (32,)
    assert total == value.sum()


def test_where_it_takes_none_the_reason_is_that_of_the_first() -> None:
    info = TensorInfo("x:0", tf.float32, (None,))
    with pytest.raises(CheckpointError, match=r"refused \(2,\)"):
        try_batches(NO_GRAPH, [info], _refuses(lambda _: True))


def test_it_is_the_same_each_time() -> None:
    infos = [TensorInfo(name, tf.float32, (None, 3)) for name in ("x:0", "z:0")]
    first, second = (try_batches(NO_GRAPH, infos, len)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])
