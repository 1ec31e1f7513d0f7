"""Checkpoints of a stock Saver, to load and run."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks.reference import LEARNING_RATE, NUM_CLASSES, Array, random_images
from models import cnn

v1 = tf.compat.v1


class Checkpoint(NamedTuple):
    """A checkpoint, and how to predict with it.

    Attributes:
      meta: the `.meta` file.
      output: the tensor to fetch.
      rows: values for `x:0`.
    """

    meta: str
    output: str
    rows: Array


def write_cnn(folder: Path, rows: int) -> Checkpoint:
    """The four-class CNN, and random images."""
    model = cnn.build(num_classes=NUM_CLASSES, learning_rate=LEARNING_RATE, seed=0)
    return Checkpoint(_save(folder, model.graph), "fc2/add:0", random_images(rows)[0])


def write_perceptron(folder: Path, rows: int) -> Checkpoint:
    """784-128-10, where a run takes less time and what is around it more of it."""
    with tf.Graph().as_default() as graph:
        _train(_dense(_dense(_placeholder(784), 128, "a"), 10, "b"))
    meta = _save(folder, graph)
    values = np.random.default_rng(0).random((rows, 784), np.float32)
    return Checkpoint(meta, "b/y:0", values)


def write_deep(folder: Path, nodes: int) -> Checkpoint:
    """A training graph of about so many nodes: layers, gradients, slots, saver. One row."""
    with tf.Graph().as_default() as graph:
        y, layer = _placeholder(16), 0
        while len(graph.get_operations()) * _TRAINING_NODES < nodes:
            y = _dense(y, 16, f"layer{layer}")
            layer += 1
        _train(tf.identity(y, name="y"))
    return Checkpoint(_save(folder, graph), "y:0", np.ones((1, 16), np.float32))


_TRAINING_NODES = 2.6  # With gradients, slots and saver, to each node of a layer.


def _placeholder(size: int) -> tf.Tensor:
    return v1.placeholder(tf.float32, [None, size], name="x")


def _dense(x: tf.Tensor, size: int, name: str) -> tf.Tensor:
    """`<name>/y:0` = tanh(x w + b)."""
    with v1.variable_scope(name, use_resource=False):
        w = v1.get_variable("w", [x.shape[1], size])
        b = v1.get_variable("b", [size])
    return tf.tanh(tf.matmul(x, w) + b, name=f"{name}/y")


def _train(y: tf.Tensor) -> None:
    v1.train.AdamOptimizer().minimize(tf.reduce_mean(tf.square(y)))


def _save(folder: Path, graph: tf.Graph) -> str:
    folder.mkdir()
    with graph.as_default(), v1.Session() as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "m"))
    return str(folder / "m.meta")
