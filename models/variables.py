"""Variables whose name is a tensor of their value, as TF1 clients expect."""

from collections.abc import Callable, Sequence

import tensorflow as tf


def weight(name: str, shape: Sequence[int], initializer: Callable[..., tf.Tensor]) -> tf.Variable:
    """A trainable float32 variable.

    It is a ref variable: the tensor `<name>:0` is its value, so that it can be fetched by name.
    `<name>:0` of a resource variable is a handle that no client can read.
    """
    return tf.compat.v1.get_variable(
        name, shape, tf.float32, initializer=initializer, use_resource=False
    )


def global_step() -> tf.Variable:
    """The graph's `global_step:0`, int64 []: updates done. Created once a graph."""
    return tf.compat.v1.get_variable(
        "global_step",
        [],
        tf.int64,
        initializer=tf.compat.v1.zeros_initializer(),
        trainable=False,
        collections=[tf.compat.v1.GraphKeys.GLOBAL_VARIABLES, tf.compat.v1.GraphKeys.GLOBAL_STEP],
        use_resource=False,
    )
