"""What is known of single values before a graph runs."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from tools.folding import Scalars

v1 = tf.compat.v1


def _known(graph: tf.Graph, name: str) -> Any:
    return Scalars({node.name: node for node in graph.as_graph_def().node}).value(name)


@pytest.mark.parametrize(
    ("build", "value"),
    [
        (lambda: tf.constant(0.5) + 1.0, np.float32(1.5)),
        (lambda: 1 - tf.constant(0.25, tf.float16), np.float16(0.75)),
        (lambda: tf.cast(tf.constant(True), tf.float32) / 4, np.float32(0.25)),
        (lambda: tf.logical_or(tf.constant(False), tf.constant(3) > 2), True),
        (lambda: tf.logical_not(tf.identity(tf.equal(tf.constant(2), 2))), False),
        (lambda: tf.constant(1.0) / 0.0, np.float32("inf")),
    ],
)
def test_it_is_what_a_session_gives(build: Any, value: Any) -> None:
    with tf.Graph().as_default() as graph:
        tensor = build()
        with v1.Session() as session:
            assert session.run(tensor) == value
    known = _known(graph, tensor.op.name)
    assert known == value
    assert known.dtype == np.asarray(value).dtype


@pytest.mark.parametrize(
    "build",
    [
        lambda: tf.constant([1.0]),
        lambda: tf.constant("text"),
        lambda: v1.placeholder(tf.float32, []) + 1,
        lambda: tf.exp(tf.constant(1.0)),
    ],
    ids=["vector", "text", "placeholder", "function"],
)
def test_of_all_else_nothing_is_known(build: Any) -> None:
    with tf.Graph().as_default() as graph:
        tensor = build()
    assert _known(graph, tensor.op.name) is None


def test_a_damaged_constant_and_a_loop_are_unknown() -> None:
    graph = GraphDef()
    constant = graph.node.add(name="c", op="Const")
    constant.attr["value"].tensor.dtype = tf.float32.as_datatype_enum
    constant.attr["value"].tensor.float_val.extend([1.0, 2.0])
    graph.node.add(name="a", op="Identity", input=["b"])
    graph.node.add(name="b", op="Identity", input=["a"])
    known = Scalars({node.name: node for node in graph.node})
    assert [known.value(name) for name in ("c", "a", "b", "none")] == [None] * 4
