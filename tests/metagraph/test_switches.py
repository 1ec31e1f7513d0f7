"""What a value decides, told from the graph and from its name."""

import pytest
import tensorflow as tf

from metagraph.graph import sub_graph
from metagraph.meta import MetaGraphFile, TensorInfo
from metagraph.session import Role, RoleFinder, off_value, says_switch

v1 = tf.compat.v1


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("is_training:0", False),
        ("phase:0", False),
        ("testing:0", True),
        ("is_inference:0", True),
        ("train_or_test:0", False),
    ],
)
def test_a_switch_is_off_as_its_name_says(name: str, off: bool) -> None:
    assert off_value(name, Role.SWITCH) is off


def test_a_dropout_that_is_off_keeps_all() -> None:
    assert (off_value("p:0", Role.KEEP), off_value("p:0", Role.RATE)) == (1.0, 0.0)


def test_which_names_speak_of_training() -> None:
    assert says_switch("a/is_training:0")
    assert says_switch("evaluate:0")
    assert not says_switch("phase:0")


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
    with tf.Graph().as_default() as graph:
        v1.placeholder(dtype, shape, name="keep")
        proto = v1.train.export_meta_graph(graph=graph)
    needed = sub_graph(MetaGraphFile("m.meta", "m", proto), ["keep:0"])
    info = TensorInfo("keep:0", dtype, tuple(shape))
    assert RoleFinder(needed).role(info) is role
