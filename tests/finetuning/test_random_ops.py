"""Random operations as functions of a key."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from finetuning.base import make_stateless, still_random, stream_of
from models import blocks

DRAWS = {
    "uniform": lambda: tf.random.uniform([2000], name="drawn"),
    "normal": lambda: tf.random.normal([2000], dtype=tf.float64, name="drawn"),
    "truncated": lambda: tf.random.truncated_normal([2000], name="drawn"),
    "integers": lambda: tf.random.uniform([2000], 3, 9, tf.int64, name="drawn"),
    "classes": lambda: tf.compat.v1.multinomial(tf.zeros([1, 4]), 2000, name="drawn"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_same_key_draws_the_same_and_another_one_others(draw: Callable[[], tf.Tensor]) -> None:
    with tf.Graph().as_default() as graph:
        result = draw()
    graph_def = graph.as_graph_def()
    ((node, name),) = make_stateless(graph_def).items()
    assert still_random(graph_def) == []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.placeholder(tf.int64, [])
        key = blocks.key(5, stream_of(node), step)
        (drawn,) = tf.import_graph_def(graph_def, {name: key}, [result.name], name="")
        first, again, other = (session.run(drawn, {step: number}) for number in (1, 1, 2))
    assert first.dtype == result.dtype.as_numpy_dtype
    assert first.shape == tuple(result.shape)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    low, high = {"uniform": (0, 1), "integers": (3, 8), "classes": (0, 3)}.get(node, (-9, 9))
    assert low <= first.min() <= first.max() <= high


def test_what_has_no_stateless_kin_is_named_also_in_functions() -> None:
    inner = tf.function(lambda: tf.random.uniform([2], name="inside"))
    with tf.Graph().as_default() as graph:
        tf.random.shuffle(tf.range(3), name="shuffled")
        inner()
    left = still_random(graph.as_graph_def())
    assert left[0] == "shuffled (RandomShuffle)"
    assert left[1].endswith("inside/RandomUniform (RandomUniform)")


def test_streams_lie_beyond_those_of_our_models() -> None:
    streams = [stream_of(f"node{number}") for number in range(1000)]
    assert len({*streams}) > 990
    assert all(2**30 <= stream < 2**31 for stream in streams)
