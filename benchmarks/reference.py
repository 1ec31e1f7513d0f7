"""What the benchmarks measure against: the same network, bare and in Keras, and random images.

Also checkpoints of a stock Saver, and the rows a second of predict.py's own loop.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from metagraph.session import InferenceGraph
from models import cnn
from prediction.rows import ArrayRows, Kind, run_rows

Array = np.ndarray[Any, Any]
NUM_CLASSES = 4
LEARNING_RATE = 1e-3
_WARM_UP_STEPS = 20


def random_images(count: int) -> tuple[Array, Array]:
    """Images x float32 [count, 32, 32, 3] in [0, 1) and labels y int64 [count] in [0, 4)."""
    generator = np.random.default_rng(0)
    x = generator.random((count, *cnn.IMAGE_SHAPE), np.float32)
    return x, generator.integers(0, NUM_CLASSES, count)


class BareLoop:
    """`session.run` over the project's own graph with a feed_dict, and nothing else."""

    def __init__(self, x: Array, y: Array, batch_size: int) -> None:
        """Prepares a session that trains on slices of x and y."""
        self._model = cnn.build(num_classes=NUM_CLASSES, learning_rate=LEARNING_RATE, seed=0)
        self._session = tf.compat.v1.Session(graph=self._model.graph)
        variables = self._model.graph.get_collection("variables")
        self._session.run([variable.initializer for variable in variables])
        self._x, self._y, self._batch_size = x, y, batch_size
        self._run(0, _WARM_UP_STEPS)

    def _run(self, start: int, stop: int) -> None:
        model, size = self._model, self._batch_size
        for step in range(start, stop):
            first = step * size % (len(self._x) - size)
            batch = (self._x[first : first + size], self._y[first : first + size])
            feeds = {**dict(zip(model.inputs, batch, strict=True)), **model.training_feeds}
            self._session.run([model.loss, model.train_op], feeds)

    def images_per_second(self, steps: int) -> float:
        """Trains for so many steps."""
        started = time.perf_counter()
        self._run(0, steps)
        return steps * self._batch_size / (time.perf_counter() - started)


def keras_model() -> Any:
    """The same architecture, optimizer and loss as a compiled Keras model."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            layers.Input(cnn.IMAGE_SHAPE),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPool2D(3, 3, padding="same"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPool2D(3, 3, padding="same"),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(1 - cnn.KEEP_PROB),
            layers.Dense(NUM_CLASSES),
        ]
    )
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


# Checkpoints of a stock Saver, to load and run.

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


# The rows a second of predict.py's own loop, for whatever they are compared with.


def rows_a_second(graph: InferenceGraph, rows: Array, batch_size: int) -> float:
    """Runs all rows through a graph with one feed and one fetch that has an entry a row."""
    started = time.perf_counter()
    run_rows(graph, [ArrayRows(rows, graph.feeds[0], "rows")], [Kind.ROWS], batch_size)
    return len(rows) / (time.perf_counter() - started)
