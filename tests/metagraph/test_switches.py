"""What a value decides, told from the graph and from its name."""

from collections.abc import Callable

import pytest
import tensorflow as tf

from metagraph.graph import sub_graph
from metagraph.meta import TensorInfo
from metagraph.usage import Role, RoleFinder, off_value, says_switch
from tests.metagraph.made import of_graph

v1 = tf.compat.v1


@pytest.mark.parametrize(
    ("name", "role", "off"),
    [
        ("is_training:0", Role.SWITCH, False),
        ("phase:0", Role.SWITCH, False),
        ("testing:0", Role.SWITCH, True),
        ("is_inference:0", Role.SWITCH, True),
        ("train_or_test:0", Role.SWITCH, False),
        ("p:0", Role.KEEP, 1.0),
        ("p:0", Role.RATE, 0.0),
    ],
)
def test_what_is_off_and_which_names_speak_of_training(name: str, role: Role, off: object) -> None:
    assert off_value(name, role) == off
    assert says_switch(name) == ("p" not in name[:2])


@pytest.mark.parametrize(
    ("dtype", "shape", "role"),
    [
        (tf.bool, [], Role.SWITCH),
        (tf.bool, [None], None),
        (tf.int32, [], None),
        (tf.float32, [3], None),
        (tf.float32, [], Role.KEEP),
    ],
)
def test_only_single_values_decide(dtype: tf.DType, shape: list[int], role: Role | None) -> None:
    needed = sub_graph(of_graph(lambda: v1.placeholder(dtype, shape, name="keep")), ["keep:0"])
    assert RoleFinder(needed).role(TensorInfo("keep:0", dtype, tuple(shape))) is role


def _drawn(x: tf.Tensor) -> tf.Tensor:
    return tf.random.uniform(tf.shape(x))


@pytest.mark.parametrize(
    ("keep", "role"),
    [
        (lambda x, p: v1.nn.dropout(x, keep_prob=p), Role.KEEP),
        (lambda x, p: tf.nn.dropout(x, rate=p), Role.RATE),
        (lambda x, p: tf.nn.dropout(x, rate=1.0 - p), Role.KEEP),
        (lambda x, p: x * tf.floor(p + _drawn(x)) / p, Role.KEEP),  # Of TensorFlow 1 until 1.12.
        (lambda x, p: tf.where(_drawn(x) < tf.identity(p), x, 0.0), Role.KEEP),
        (lambda x, p: tf.where(p > _drawn(x), x, 0.0), Role.KEEP),
        (lambda x, p: tf.where(p <= _drawn(x), x, 0.0), Role.RATE),
        (lambda x, p: x * p + _drawn(x), None),
    ],
    ids=["keep", "rate", "1 - p", "floor", "below", "above", "not below", "no comparison"],
)
def test_a_dropout_of_any_name_is_found_by_what_is_compared(
    keep: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], role: Role | None
) -> None:
    def build() -> None:
        x, p = v1.placeholder(tf.float32, [4], name="x"), v1.placeholder(tf.float32, [], name="p")
        tf.identity(keep(x, p), name="y")

    needed = sub_graph(of_graph(build), ["y:0"])
    assert RoleFinder(needed).role(TensorInfo("p:0", tf.float32, ())) is role
