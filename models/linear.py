"""Linear regression: y = w x + b.

Tensor names (they never change): `x:0`, `y_:0`, `w:0`, `b:0`, `y:0`, `loss:0`, `global_step:0`;
the collection `predict` holds `y:0`.
"""

import tensorflow as tf

from models import blocks
from models.blocks import ModelGraph


def inference(x: tf.Tensor, seed: int) -> tf.Tensor:
    """`y:0`, the line's value at each x, both float32 [N].

    The seed draws the initial values, w from U(-20, 20) and b from U(-10, 10).
    """
    w = blocks.weight("w", [1], blocks.uniform(-20.0, 20.0, seed, stream=0))
    b = blocks.weight("b", [1], blocks.uniform(-10.0, 10.0, seed, stream=1))
    return tf.add(w * x, b, name="y")  # [1] * [N] + [1] -> [N]


def build(*, learning_rate: float, seed: int) -> ModelGraph:
    """Builds the training graph; the initial values follow from the seed, in [0, 2**32)."""
    graph = tf.Graph()
    with graph.as_default():
        step = blocks.global_step()
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        target = tf.compat.v1.placeholder(tf.float32, [None], name="y_")
        y = inference(x, seed)
        loss = tf.reduce_mean(tf.square(y - target), name="loss")  # float32 []
        tf.compat.v1.add_to_collection("predict", y)
        optimizer = tf.compat.v1.train.GradientDescentOptimizer(learning_rate)
        train_op, gradients = blocks.minimize(optimizer, loss, step)
        return ModelGraph(
            graph=graph,
            inputs=(x, target),
            training_feeds={},
            loss=loss,
            accuracy=None,
            train_op=train_op,
            gradients=gradients,
            signature_inputs={"x": x},
            signature_outputs={"y": y},
        )
