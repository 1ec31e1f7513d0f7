"""Models as others made them, in plain TensorFlow: each saves one and returns its `.meta` file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tests.prediction import stock

v1 = tf.compat.v1

SIZE = 32


def save(folder: Path, build: Callable[[], object]) -> str:
    """Saves what `build` builds; its global step is 7."""
    with stock.checkpoint(folder / "m-7"):
        v1.get_variable("global_step", [], tf.int64, v1.constant_initializer(7), trainable=False)
        build()
    return f"{folder}/m-7.meta"


def values_of(prefix: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a checkpoint, by name."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {key: np.asarray(reader.get_tensor(key)) for key in reader.get_variable_to_shape_map()}


def images(batch: int | None = None) -> tf.Tensor:
    """The placeholder `x` [batch, 32, 32, 3]."""
    return v1.placeholder(tf.float32, [batch, SIZE, SIZE, 3], name="x")


def colours() -> tf.Tensor:
    """The mean colour of each of `images`, [N, 3]."""
    return tf.reduce_mean(images(), axis=[1, 2])


def _weight(name: str, shape: list[int], *, resource: bool = False) -> tf.Variable:
    initializer = v1.truncated_normal_initializer(seed=3)
    return v1.get_variable(name, shape, initializer=initializer, use_resource=resource)


def _pooled(x: tf.Tensor) -> tf.Tensor:
    """[N, 32, 32, 3] -> [N, 4, 4, 3]."""
    return tf.nn.avg_pool2d(x, 8, 8, "VALID")


def small(*, resource: bool = False, batch: int | None = None) -> None:
    """`maps` [N, 4, 4, 5], `features` [N, 6], `batched` [N, 80]; scopes `first` and `second`."""
    x = images(batch)
    with v1.variable_scope("first"):
        w = _weight("w", [1, 1, 3, 5], resource=resource)
        maps = tf.nn.relu(tf.nn.conv2d(_pooled(x), w, 1, "SAME"))
    maps = tf.identity(maps, name="maps")
    with v1.variable_scope("second"):
        w = _weight("w", [80, 6], resource=resource)
        features = tf.matmul(tf.reshape(maps, [-1, 80]), w)
    tf.identity(features, name="features")
    tf.identity(tf.matmul(v1.placeholder(tf.float32, [1, 2], name="other"), _weight("o", [2, 2])))
    tf.reshape(maps, [batch or -1, 80], name="batched")


def dropout() -> None:
    """`features` [N, 48] after a dropout as TensorFlow 1 made them, with a rate as placeholder."""
    x = images()
    rate = v1.placeholder(tf.float32, [], name="share")
    flat = tf.reshape(_pooled(x), [-1, 48]) * _weight("scale", [48])
    tf.identity(v1.nn.dropout(flat, rate=rate), name="features")


def normed() -> None:
    """`features` [N, 3]: batch normalisation with a switch, and its averages in UPDATE_OPS."""
    x = images()
    training = v1.placeholder(tf.bool, [], name="is_training")
    with v1.variable_scope("norm"):
        gamma = v1.get_variable("gamma", initializer=tf.ones([3]))
        moving = v1.get_variable("moving_mean", initializer=tf.zeros([3]), trainable=False)
        mean = tf.reduce_mean(x, axis=[0, 1, 2])
        update = v1.assign_sub(moving, (moving - mean) * 0.1, name="AssignMovingAvg")
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, getattr(update, "op", update))
        used = tf.where(training, mean, moving)
        out = tf.reduce_mean(x, axis=[1, 2]) - used
    tf.identity(out * gamma, name="features")


def writing() -> None:
    """`features` [N, 3] whose computing counts a variable up, whoever asks for them."""
    x = images()
    for resource in (False, True):
        name = f"count{int(resource)}"
        count = v1.get_variable(name, initializer=0.0, use_resource=resource)
        with tf.control_dependencies([v1.assign_add(count, 1.0)]):
            x = tf.identity(x)
    tf.identity(tf.reduce_mean(x, axis=[1, 2]), name="features")
