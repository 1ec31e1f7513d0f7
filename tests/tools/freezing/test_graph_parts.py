"""The bytes of a graph, node by node."""

import tensorflow as tf

from tools.graph_nodes import graph_parts


def test_they_are_those_of_the_graph() -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        for size in (0, 1, 31, 32, 5000, 600_000):  # Lengths of one byte, two, three and more.
            tf.constant(b"a" * size)
        tf.function(lambda y: y + 1)(x)
    graph_def = graph.as_graph_def()
    parts = [*graph_parts(graph_def)]
    assert b"".join(parts) == graph_def.SerializeToString(deterministic=True)
    assert len(parts) == 2 * len(graph_def.node) + 1
