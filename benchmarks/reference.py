"""What the benchmarks measure against: the same network bare, in Keras, and by a stock client."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from models import cnn

v1 = tf.compat.v1

Array = np.ndarray[Any, Any]
NUM_CLASSES = 4
LEARNING_RATE = 1e-3
_WARM_UP_STEPS = 20
_TRAINING_NODES = 2.6  # With gradients, slots and saver, to each node of a layer.


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
        self._session = v1.Session(graph=self._model.graph)
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


def write_deep(folder: Path, nodes: int) -> str:
    """Saves a training graph of about so many nodes, as plain TensorFlow does.

    Its layers y = tanh(x w + b) take `x:0` float32 [N, 16] to `y:0` float32 [N, 16].

    Returns:
      The path of the `.meta` file.
    """
    with tf.Graph().as_default() as graph, v1.Session() as session:
        y, layer = v1.placeholder(tf.float32, [None, 16], name="x"), 0
        while len(graph.get_operations()) * _TRAINING_NODES < nodes:
            with v1.variable_scope(f"layer{layer}", use_resource=False):
                w, b = v1.get_variable("w", [16, 16]), v1.get_variable("b", [16])
            y = tf.tanh(tf.matmul(y, w) + b)
            layer += 1
        v1.train.AdamOptimizer().minimize(tf.reduce_mean(tf.square(tf.identity(y, name="y"))))
        session.run(v1.global_variables_initializer())
        return f"{v1.train.Saver().save(session, str(folder / 'deep'))}.meta"


def restored(path: str) -> "tf.compat.v1.Session":
    """A session as a stock client makes it: import_meta_graph and Saver.restore."""
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        v1.train.import_meta_graph(path).restore(session, path.removesuffix(".meta"))
    return session
