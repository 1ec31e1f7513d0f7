"""Speed against a bare loop, a minimal script, Keras and plain TensorFlow, in one run.

  python -m benchmarks.speed

prints, for each comparison, our figure, the other's and their ratio; about eight minutes. The
figures are of this machine and this hour; the ratios are what to compare. Each part is a process
of its own, as the number of threads is: training has as many as train_cnn.py gives it, and so has
what it is compared with.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.measuring import (
    NUM_CLASSES,
    PROJECT,
    WARM_UP_STEPS,
    Figure,
    compare,
    rate,
    run_part,
    run_parts,
    seconds,
    start,
    training_config,
    training_speed,
)
from cli.fields import flag
from cli.run import run

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from metagraph.session import InferenceGraph

    Array: TypeAlias = np.ndarray[Any, Any]

_NUM_IMAGES = 20_000
_IMAGES = "images.npz"
_STEPS_BY_BATCH_SIZE = {10: 1000, 128: 200}  # about two seconds each
_PREDICT_BATCH_SIZES = (32, 256)  # the defaults of Keras and of predict.py
_NODES = 12_000
_LEARNING_RATE = 1e-3
_TRAINING_NODES = 2.6  # With gradients, slots and saver, to each node of a layer.


def main(request: "Request") -> None:
    """Prints all comparisons, each as soon as it is measured."""
    if request.part is None:
        run_parts("speed", _PARTS, "ours", "theirs")
        return
    start(10 if request.part == "train-10" else 0)
    with tempfile.TemporaryDirectory() as folder:
        run_part(_PARTS[request.part], Path(folder))


def _images(folder: Path) -> tuple["Array", "Array"]:
    """Makes random images, x float32 [N, 32, 32, 3] in [0, 1), y int64 [N], and a file of them."""
    import numpy as np

    generator = np.random.default_rng(0)
    x = generator.random((_NUM_IMAGES, 32, 32, 3), np.float32)
    y = generator.integers(0, NUM_CLASSES, _NUM_IMAGES)
    np.savez(folder / _IMAGES, X=x, Y=y)
    return x, y


def _process(folder: Path) -> Iterator[str]:
    """A run of train_cnn.py on the ramp against the shortest script for it."""

    def process(*command: str) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as run:
            filled = [sys.executable, *(part.format(run=run) for part in command)]
            options: Any = {"cwd": PROJECT, "capture_output": True}
            return seconds(lambda: subprocess.run(filled, check=True, **options))

    yield compare(
        "train_cnn.py as a process / minimal TF1 script",
        lambda: process("train_cnn.py", "--data=ramp", "--ckpt_dir={run}/ours"),
        lambda: process("benchmarks/minimal_tf1.py", "{run}/theirs"),
        "s",
        "at most 1.05",
    )


def _training(batch_size: int, folder: Path) -> Iterator[str]:
    """Training against a bare loop, against Keras, and against itself with less to do."""
    steps = _STEPS_BY_BATCH_SIZE[batch_size]
    ours = partial(training_speed, str(folder / _IMAGES), folder, batch_size, steps)
    x, y = _images(folder)
    bare, model = _bare_loop(x, y, batch_size), _keras_model()

    def fit() -> float:
        count = batch_size * steps
        epochs, size = max(1, count // len(x)), min(count, len(x))
        given = {"batch_size": batch_size, "epochs": epochs, "verbose": 0}
        return rate(epochs * size, partial(model.fit, x[:size], y[:size], **given))

    every, once = (partial(ours, f"--save_every_steps={n}") for n in (10, 10**9))
    dense = "at least 0.9" if batch_size == 10 else "not asked for"
    sides: tuple[tuple[str, Figure, Figure, str], ...] = (
        (" / bare session.run", ours, partial(bare, steps), "at least 0.97"),
        (" / Keras fit", ours, fit, "at least 1.1"),
        (", save every 10 / only at the end", every, once, dense),
        (", augmented / not", partial(ours, "--augment"), ours, "not asked for"),
    )
    for name, one, other, bound in sides:
        title = f"training, batch {batch_size}{name}"
        yield compare(title, one, other, "images/s", bound)


def _prediction(folder: Path) -> Iterator[str]:
    """predict.py's own loop against Keras, and against a stock client's `session.run`."""
    import numpy as np

    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    x, _ = _images(folder)
    model, meta = _keras_model(), _trained_meta(folder)

    def run_stock(batch_size: int) -> None:
        starts = range(0, len(x), batch_size)
        np.concatenate([session.run("fc2/add:0", {"x:0": x[i : i + batch_size]}) for i in starts])

    with (
        closing(_restored(meta)) as session,  # To enter it would end eager mode, as Keras needs it.
        load_inference_graph(read_meta_graph(meta), ["fc2/add:0"], ["x:0"]) as graph,
    ):
        sides: dict[str, Callable[[int], object]] = {
            "Keras predict": lambda size: model.predict(x, batch_size=size, verbose=0),
            "session.run": run_stock,
        }
        for name, work in sides.items():
            for size in _PREDICT_BATCH_SIZES:
                title = f"predict, {len(x):,} images, batch {size} / {name}"
                ours = partial(rate, len(x), partial(_run_ours, graph, x, size))
                theirs = partial(rate, len(x), partial(work, size))
                yield compare(title, ours, theirs, "images/s", "at least 1.0")


def _run_ours(graph: "InferenceGraph", x: "Array", batch_size: int) -> None:
    from prediction.evaluation import Kind, run_rows
    from prediction.file_inputs import array_rows

    run_rows(graph, [array_rows(x, graph.feeds[0], "rows")], [Kind.ROWS], batch_size)


def _trained_meta(folder: Path) -> str:
    """The .meta file of a network that was trained for one step."""
    from train_cnn import train

    with open(os.devnull, "w") as log, redirect_stderr(log):
        config = training_config(str(folder / _IMAGES), str(folder / "one-step"), 10, 1)
        return train(config).prefix + ".meta"


def _start(folder: Path) -> Iterator[str]:
    """Seconds from the file to the first row of a graph with some 12,000 nodes."""
    import numpy as np

    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    path, row = _write_deep(folder), np.ones((1, 16), np.float32)
    nodes = len(read_meta_graph(path).proto.graph_def.node)

    def ours() -> float:
        started = time.perf_counter()
        with load_inference_graph(read_meta_graph(path), ["y:0"], ["x:0"]) as graph:
            graph.run(row)
            return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        with _restored(path) as session:
            session.run("y:0", {"x:0": row})
            return time.perf_counter() - started

    name = f"ready to run and one row, {nodes:,} nodes / plain import"
    yield compare(name, ours, theirs, "s", "at most 1.0")


# What is measured against.


def _bare_loop(x: "Array", y: "Array", batch_size: int) -> Callable[[int], float]:
    """`session.run` over the project's own graph with a feed_dict: steps -> images a second."""
    import tensorflow as tf

    from models import cnn

    model = cnn.build(num_classes=NUM_CLASSES, learning_rate=_LEARNING_RATE, seed=0)
    session = tf.compat.v1.Session(graph=model.graph)
    session.run([v.initializer for v in model.graph.get_collection("variables")])

    def train(steps: int) -> None:
        for step in range(steps):
            first = step * batch_size % (len(x) - batch_size)
            batch = (x[first : first + batch_size], y[first : first + batch_size])
            feeds = {**dict(zip(model.inputs, batch, strict=True)), **model.training_feeds}
            session.run([model.loss, model.train_op], feeds)

    train(WARM_UP_STEPS)
    return lambda steps: rate(steps * batch_size, partial(train, steps))


def _keras_model() -> Any:
    """The same architecture, optimizer and loss as a compiled Keras model."""
    import keras
    from keras import layers

    from models import cnn

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
        keras.optimizers.Adam(_LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _write_deep(folder: Path) -> str:
    """Saves a training graph of about _NODES nodes, as plain TensorFlow does; returns its `.meta`.

    Its layers y = tanh(x w + b) take `x:0` float32 [N, 16] to `y:0` float32 [N, 16].
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        y, layer = v1.placeholder(tf.float32, [None, 16], name="x"), 0
        while len(graph.get_operations()) * _TRAINING_NODES < _NODES:
            with v1.variable_scope(f"layer{layer}", use_resource=False):
                w, b = v1.get_variable("w", [16, 16]), v1.get_variable("b", [16])
            y = tf.tanh(tf.matmul(y, w) + b)
            layer += 1
        v1.train.AdamOptimizer().minimize(tf.reduce_mean(tf.square(tf.identity(y, name="y"))))
        session.run(v1.global_variables_initializer())
        return f"{v1.train.Saver().save(session, str(folder / 'deep'))}.meta"


def _restored(path: str) -> "tf.compat.v1.Session":
    """A session as a stock client makes it: import_meta_graph and Saver.restore."""
    import tensorflow as tf

    v1 = tf.compat.v1
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        v1.train.import_meta_graph(path).restore(session, path.removesuffix(".meta"))
    return session


_PARTS: dict[str, Callable[[Path], Iterator[str]]] = {
    "process": _process,
    "train-10": partial(_training, 10),
    "train-128": partial(_training, 128),
    "predict": _prediction,
    "start": _start,
}


@dataclass(frozen=True)
class Request:
    """What is measured."""

    part: str | None = flag("Measures this alone; all by default.", None, choices=[*_PARTS])


if __name__ == "__main__":
    run(main, Request, __doc__)
