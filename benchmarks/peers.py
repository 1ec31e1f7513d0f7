"""The CNN of train_cnn.py, trained by others: each function gives steps -> images a second.

They are a bare loop of `session.run`, with a stock Saver or without, Keras, and where they are
installed PyTorch in eager mode and JAX under jit. All take the same batches in the same order, with
the same optimizer, loss and dropout; none saves, logs or tests but where that is its point.
"""

import importlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.measuring import NUM_CLASSES, WARM_UP_STEPS, rate
from cli.terminal import processors

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

Loop: TypeAlias = Callable[[int], float]

_LEARNING_RATE, _KEEP_PROB, _BETAS, _EPSILON = 1e-3, 0.5, (0.9, 0.999), 1e-7


def _loop(step: Callable[["Array", "Array"], object], x: "Array", y: "Array", size: int) -> Loop:
    """Steps on one batch after another, some of them already taken to warm up."""

    def train(steps: int) -> None:
        for number in range(steps):
            first = number * size % (len(x) - size)
            step(x[first : first + size], y[first : first + size])

    train(WARM_UP_STEPS)
    return lambda steps: rate(steps * size, partial(train, steps))


def session_run(
    x: "Array", y: "Array", size: int, save_to: Path | None = None, *, fsync: bool = False
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

    def step(images: "Array", labels: "Array") -> None:
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


def keras_fit(x: "Array", y: "Array", size: int) -> Loop:
    """`Model.fit` with its defaults, which shuffle."""
    model = keras_model()

    def fit(steps: int) -> float:
        epochs, rows = max(1, size * steps // len(x)), min(size * steps, len(x))
        given = {"batch_size": size, "epochs": epochs, "verbose": 0}
        return rate(epochs * rows, partial(model.fit, x[:rows], y[:rows], **given))

    fit(WARM_UP_STEPS)
    return fit


def torch_eager(x: "Array", y: "Array", size: int) -> Loop:
    """PyTorch without compilation; raises ImportError where it is not installed."""
    import numpy as np

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

    def step(images: "Array", labels: "Array") -> None:
        optimizer.zero_grad()
        loss = loss_of(model(torch.from_numpy(images)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        loss.item()

    return _loop(step, np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y, size)


def jax_jit(x: "Array", y: "Array", size: int) -> Loop:
    """JAX, a step compiled as a whole; raises ImportError where it is not installed.

    It has as many threads as the process may use processors.
    """
    import numpy as np

    jax: Any = importlib.import_module("jax")
    jnp = jax.numpy
    rng, (one, two) = np.random.default_rng(0), _BETAS
    shapes = ((3, 3, 3, 32), (3, 3, 32, 64), (1024, 128), (128, NUM_CLASSES))
    weights = [(rng.normal(0, 0.1, shape), np.full(shape[-1], 0.1)) for shape in shapes]
    weights = jax.tree.map(lambda w: jnp.array(w, jnp.float32), weights)
    loss_and_gradients = jax.value_and_grad(partial(_jax_loss, jax))

    def update(state: Any, images: Any, labels: Any) -> Any:
        count, weights, means, squares = state
        key = jax.random.fold_in(jax.random.key(0), count)
        loss, gradients = loss_and_gradients(weights, images, labels, key)
        means = jax.tree.map(lambda m, g: one * m + (1 - one) * g, means, gradients)
        squares = jax.tree.map(lambda s, g: two * s + (1 - two) * g * g, squares, gradients)
        length = _LEARNING_RATE * jnp.sqrt(1 - two ** (count + 1)) / (1 - one ** (count + 1))

        def moved(weight: Any, mean: Any, square: Any) -> Any:
            return weight - length * mean / (jnp.sqrt(square) + _EPSILON)

        return (count + 1, jax.tree.map(moved, weights, means, squares), means, squares), loss

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state, compiled = (0, weights, zeros, zeros), jax.jit(update)

    def step(images: "Array", labels: "Array") -> None:
        nonlocal state
        state, loss = compiled(state, images, labels)
        loss.block_until_ready()

    return _loop(step, x, y, size)


def _jax_loss(jax: Any, weights: Any, images: Any, labels: Any, key: Any) -> Any:
    """The mean cross entropy of a batch, with dropout."""
    hidden, layout, window = images, ("NHWC", "HWIO", "NHWC"), (1, 3, 3, 1)
    for w, b in weights[:2]:
        hidden = jax.lax.conv_general_dilated(hidden, w, (1, 1), "SAME", dimension_numbers=layout)
        hidden = jax.nn.relu(hidden + b)
        least = -jax.numpy.inf
        hidden = jax.lax.reduce_window(hidden, least, jax.lax.max, window, window, "SAME")
    (w3, b3), (w4, b4) = weights[2:]
    hidden = jax.nn.relu(hidden.reshape(len(images), -1) @ w3 + b3)
    kept = jax.random.bernoulli(key, _KEEP_PROB, hidden.shape)
    logits = jax.numpy.where(kept, hidden / _KEEP_PROB, 0) @ w4 + b4
    return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()
