"""What speed is measured against: above all the CNN of train_cnn.py, trained by others.

Each of these functions gives steps -> images a second: a bare loop of `session.run`, with a stock
Saver or without, Keras, and where they are installed PyTorch in eager mode and JAX under jit. All
take the same batches in the same order, with the same optimizer, loss and dropout; none saves, logs
or tests but where that is its point.
"""

import importlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchmarks.measuring import NUM_CLASSES, WARM_UP_STEPS, rate
from cli.terminal import processors

if TYPE_CHECKING:
    import tensorflow as tf

Array: TypeAlias = np.ndarray[Any, Any]
Loop: TypeAlias = Callable[[int], float]

_LEARNING_RATE, _KEEP_PROB, _BETAS, _EPSILON = 1e-3, 0.5, (0.9, 0.999), 1e-7
_MATRIX = 2048


def _loop(step: Callable[[Array, Array], object], x: Array, y: Array, size: int) -> Loop:
    """Steps on one batch after another, some of them already taken to warm up."""

    def train(steps: int) -> None:
        for number in range(steps):
            first = number * size % (len(x) - size)
            step(x[first : first + size], y[first : first + size])

    train(WARM_UP_STEPS)
    return lambda steps: rate(steps * size, partial(train, steps))


def session_run(
    x: Array, y: Array, size: int, save_to: Path | None = None, *, fsync: bool = False
) -> Loop:
    """`session.run` on the project's own graph with a feed_dict.

    With `save_to`, a stock Saver saves after each tenth step, without the graph, perhaps durably.
    """
    import tensorflow as tf

    from models import cnn

    model = cnn.build(num_classes=NUM_CLASSES, learning_rate=_LEARNING_RATE, seed=0)
    with model.graph.as_default():
        saver = tf.compat.v1.train.Saver(max_to_keep=4)
    session = tf.compat.v1.Session(graph=model.graph)
    session.run([v.initializer for v in model.graph.get_collection("variables")])
    done = 0

    def step(images: Array, labels: Array) -> None:
        nonlocal done
        feeds = {**dict(zip(model.inputs, (images, labels), strict=True)), **model.training_feeds}
        session.run([model.loss, model.train_op], feeds)
        done += 1
        if save_to and done % 10 == 0:
            with model.graph.as_default():  # Where Keras is, TensorFlow is in eager mode.
                prefix = saver.save(session, str(save_to / "stock"), done, write_meta_graph=False)
            for suffix in (".index", ".data-00000-of-00001") if fsync else ():
                with open(prefix + suffix, "rb") as file:
                    os.fsync(file.fileno())

    return _loop(step, x, y, size)


def keras_model() -> Any:
    """The same architecture, optimizer and loss as a compiled Keras model."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPool2D(3, 3, padding="same"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPool2D(3, 3, padding="same"),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(1 - _KEEP_PROB),
            layers.Dense(NUM_CLASSES),
        ]
    )
    model.compile(
        keras.optimizers.Adam(_LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def keras_fit(x: Array, y: Array, size: int) -> Loop:
    """`Model.fit` with its defaults, which shuffle."""
    model = keras_model()

    def fit(steps: int) -> float:
        epochs, rows = max(1, size * steps // len(x)), min(size * steps, len(x))
        given = {"batch_size": size, "epochs": epochs, "verbose": 0}
        return rate(epochs * rows, partial(model.fit, x[:rows], y[:rows], **given))

    fit(WARM_UP_STEPS)
    return fit


def torch_eager(x: Array, y: Array, size: int) -> Loop:
    """PyTorch without compilation; raises ImportError where it is not installed."""
    torch: Any = importlib.import_module("torch")
    nn = torch.nn
    torch.set_num_threads(processors())
    pool = partial(nn.MaxPool2d, 3, 3, padding=0, ceil_mode=True)
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), pool()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), pool()),
        *(nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(1 - _KEEP_PROB)),
        nn.Linear(128, NUM_CLASSES),
    )
    optimizer = torch.optim.Adam(model.parameters(), _LEARNING_RATE, _BETAS, _EPSILON)
    loss_of = nn.CrossEntropyLoss()

    def step(images: Array, labels: Array) -> None:
        optimizer.zero_grad()
        loss = loss_of(model(torch.from_numpy(images)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        loss.item()

    return _loop(step, np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y, size)


def jax_jit(x: Array, y: Array, size: int) -> Loop:
    """JAX, a step compiled as a whole; raises ImportError where it is not installed.

    It has as many threads as the process may use processors.
    """
    jax: Any = importlib.import_module("jax")
    stax: Any = importlib.import_module("jax.example_libraries.stax")
    optimizers: Any = importlib.import_module("jax.example_libraries.optimizers")
    conv, pool = partial(stax.Conv, padding="SAME"), stax.MaxPool((3, 3), (3, 3), "SAME")
    initialize, network = stax.serial(
        *(conv(32, (3, 3)), stax.Relu, pool, conv(64, (3, 3)), stax.Relu, pool),
        *(stax.Flatten, stax.Dense(128), stax.Relu, stax.Dropout(_KEEP_PROB)),
        stax.Dense(NUM_CLASSES),
    )
    key = jax.random.key(0)
    start, move, weights_of = optimizers.adam(_LEARNING_RATE, *_BETAS, _EPSILON)

    def loss_of(weights: Any, images: Any, labels: Any, key: Any) -> Any:
        logits = jax.nn.log_softmax(network(weights, images, rng=key))
        return -jax.numpy.take_along_axis(logits, labels[:, None], 1).mean()

    def update(count: Any, state: Any, images: Any, labels: Any) -> Any:
        drop = jax.random.fold_in(key, count)
        weights = weights_of(state)
        loss, gradients = jax.value_and_grad(loss_of)(weights, images, labels, drop)
        return count + 1, move(count, gradients, state), loss

    compiled, count, state = jax.jit(update), 0, start(initialize(key, (-1, 32, 32, 3))[1])

    def step(images: Array, labels: Array) -> None:
        nonlocal count, state
        count, state, loss = compiled(count, state, images, labels)
        loss.block_until_ready()

    return _loop(step, x, y, size)


# Beside training: what a stock client does, and what the machine can.


def restored(meta: str) -> "tf.compat.v1.Session":
    """A session as a stock client makes it: import_meta_graph and Saver.restore."""
    import tensorflow as tf

    v1 = tf.compat.v1
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        v1.train.import_meta_graph(meta).restore(session, meta.removesuffix(".meta"))
    return session


def matrix_product() -> Callable[[], float]:
    """GFLOP a second in the product of two square matrices, which fit into no cache."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        matrix = tf.compat.v1.get_variable("matrix", [_MATRIX, _MATRIX])
        product = tf.matmul(matrix, matrix).op
    session = tf.compat.v1.Session(graph=graph)
    session.run(matrix.initializer)
    return lambda: rate(2 * _MATRIX**3, lambda: session.run([product])) / 1e9
