"""Speed against a bare loop, a minimal script, Keras and plain TensorFlow, in one run.

  python -m benchmarks.speed

prints, for each comparison, our figure, the other's and their ratio; about twenty minutes. The
figures are of this machine and this hour; the ratios are what to compare. Each part is a process of
its own, as the number of threads is: training has as many as train_cnn.py gives it, and so has what
it is compared with.
"""

import importlib.util
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

from benchmarks import peers
from benchmarks.measuring import (
    NUM_CLASSES,
    PAIRS,
    PROJECT,
    Figure,
    compare,
    rate,
    run_part,
    run_parts,
    seconds,
    start,
    summary,
    training_config,
    training_speed,
)
from cli.fields import flag
from cli.run import run
from cli.terminal import ONEDNN_VARIABLE

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from metagraph.session import InferenceGraph

    Array: TypeAlias = np.ndarray[Any, Any]

_NUM_IMAGES = 20_000
_IMAGES = "images.npz"
_STEPS_BY_BATCH_SIZE = {10: 1000, 128: 200}  # about two seconds each
_PEER_STEPS, _PEER_TRIALS = 60, 3  # of a batch of 128, for which JAX takes a fifth of a second
_PREDICT_BATCH_SIZES = (32, 256)  # the defaults of Keras and of predict.py
_NODES = 12_000
# Of an image in a step, forward and backward, but for the gradient of the images.
_CONV1, _CONV2, _DENSE = 1024 * 27 * 32, 121 * 288 * 64, 1024 * 128 + 128 * NUM_CLASSES
_FLOPS = 2 * (2 * _CONV1 + 3 * _CONV2 + 3 * _DENSE)
_MATRIX = 2048
_RATED_TRAINING, _RATED_PREDICTION = (10, 32, 128), (1, 256, 4096)
_TRAINING_NODES = 2.6  # With gradients, slots and saver, to each node of a layer.


def main(request: "Request") -> None:
    """Prints all comparisons, each as soon as it is measured."""
    if request.part is None:
        run_parts("speed", _PARTS, "ours", "theirs")
        return
    if request.part not in ("torch", "jax"):  # PyTorch and TensorFlow in one process crash.
        start(10 if request.part in ("train-10", "row-sizes", "exact") else 0)
    with tempfile.TemporaryDirectory() as folder:
        if request.part in _FIGURES:
            print(_FIGURES[request.part](Path(folder)))
        else:
            run_part({**_PARTS, "rates": _rates}[request.part], Path(folder))


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
    """Training against the same network trained by others, and against itself with less to do."""
    steps, title = _STEPS_BY_BATCH_SIZE[batch_size], f"training, batch {batch_size}"
    ours = partial(training_speed, str(folder / _IMAGES), folder, batch_size, steps)
    given = (*_images(folder), batch_size)
    bare = partial(peers.session_run(*given), steps)
    every, once = (partial(ours, f"--save_every_steps={n}") for n in (10, 10**9))
    dense = "at least 0.9" if batch_size == 10 else "not asked for"
    sides: list[tuple[str, Figure, Figure, str]] = [
        ("ours / bare session.run", ours, bare, "at least 0.97"),
        ("ours / Keras fit", ours, partial(peers.keras_fit(*given), steps), "at least 1.1"),
        ("save every 10 / only at the end", every, once, dense),
        ("augmented / not", partial(ours, "--augment"), ours, "not asked for"),
    ]
    for fsync in (False, True):
        stock = partial(peers.session_run(*given, folder, fsync=fsync), steps)
        named = "stock, flushed" if fsync else "stock Saver"
        bound = "not asked for" if fsync else "at least 1.0"
        sides += [
            (f"save every 10 / {named}", every, stock, bound),
            (f"{named} / bare session.run", stock, bare, "not asked for"),
        ]
    if batch_size == 128:
        bound = "at least 1.15"
        sides.append(("bf16 / float32", partial(ours, "--precision=bf16"), ours, bound))
    for name, one, other, bound in sides:
        yield compare(f"{title}: {name}", one, other, "images/s", bound)
    if batch_size == 128:
        step = lambda: bare() * _FLOPS / 1e9  # noqa: E731 (a figure, as the others are)
        bound = "0.60 to 0.75"
        yield compare(f"{title}: step / a matrix product", step, _matmul(), "GFLOP/s", bound)


def _matmul() -> Figure:
    """The rate of the product of two square matrices, which fit into no cache."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        matrix = tf.compat.v1.get_variable("matrix", [_MATRIX, _MATRIX])
        product = tf.matmul(matrix, matrix).op
    session = tf.compat.v1.Session(graph=graph)
    session.run(matrix.initializer)
    return lambda: rate(2 * _MATRIX**3, lambda: session.run([product])) / 1e9


def _prediction(folder: Path) -> Iterator[str]:
    """predict.py's own loop against Keras, and against a stock client's `session.run`."""
    import numpy as np

    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    x, _ = _images(folder)
    model, meta = peers.keras_model(), _trained_meta(folder)

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


def _run_ours(graph: "InferenceGraph", x: "Array", batch_size: int, exact: bool = False) -> None:
    from prediction.evaluation import Kind, run_rows
    from prediction.file_inputs import array_rows

    run_rows(graph, [array_rows(x, graph.feeds[0], "rows")], [Kind.ROWS], batch_size, exact=exact)


def _processes(folder: Path) -> Iterator[str]:
    """What cannot share a process: other threads, or another framework that is not installed."""
    del folder

    def figure(part: str) -> float:
        return _in_process(part)[0]

    exact, not_exact, ours, torch, jax = (partial(figure, part) for part in _FIGURES)
    title = f"predict, {_NUM_IMAGES:,} images, batch 256: exact rows / not"
    yield compare(title, exact, not_exact, "images/s", "at least 0.95")
    for name, module, theirs in (("PyTorch eager", "torch", torch), ("JAX jit", "jax", jax)):
        title = f"training, batch 128: ours / {name}"
        if importlib.util.find_spec(module):
            yield compare(title, ours, theirs, "images/s", "not asked for")
        else:
            yield f"{title}: {module} is not installed"


def _row_sizes(folder: Path) -> Iterator[str]:
    """Of 128 images, those whose logits change when all move up by one, for sizes of a run."""
    import numpy as np

    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    x = _images(folder)[0][:128]
    meta = read_meta_graph(_trained_meta(folder))
    with load_inference_graph(meta, ["fc2/add:0"], ["x:0"]) as graph:

        def logits(images: "Array", size: int) -> "Array":
            starts = range(0, len(images), size)
            return np.concatenate([graph.run(images[i : i + size])[0] for i in starts])

        for size in (64, 32, 16, 8, 4):
            moved = np.roll(logits(np.roll(x, 1, axis=0), size), -1, axis=0)
            changed = (moved != logits(x, size)).any(axis=1).sum()
            yield f"{size} rows a run: {changed} of {len(x)} depend on their place"


def _in_process(part: str, onednn: str = "1") -> list[float]:
    """The numbers that a part prints."""
    command = [sys.executable, "-m", "benchmarks.speed", f"--part={part}"]
    options: Any = {"env": {**os.environ, ONEDNN_VARIABLE: onednn}, "cwd": PROJECT}
    ended = subprocess.run(command, check=True, capture_output=True, text=True, **options)
    return [float(number) for number in ended.stdout.split()]


def _onednn(folder: Path) -> Iterator[str]:
    """The rates of `session.run` with oneDNN's kernels against those without, in turn."""
    del folder

    pairs = [(_in_process("rates", "1"), _in_process("rates", "0")) for _ in range(3)]
    names = [f"training, batch {n}" for n in _RATED_TRAINING]
    names += [f"predict, batch {n}" for n in _RATED_PREDICTION]
    for number, name in enumerate(names):
        on, off = ([side[number] for side in sides] for sides in zip(*pairs, strict=True))
        yield summary(f"{name}: oneDNN / without", [*zip(on, off, strict=True)], "images/s", "")


def _rates(folder: Path) -> Iterator[str]:
    """Images a second of training and prediction at some sizes of a batch."""
    x, y = _images(folder)
    for size in _RATED_TRAINING:
        loop, steps = peers.session_run(x, y, size), max(20, 2000 // size)
        yield str(max(loop(steps) for _ in range(3)))
    with closing(_restored(_trained_meta(folder))) as session:
        run_some = session.make_callable("fc2/add:0", ["x:0"])
        for size in _RATED_PREDICTION:
            count = max(1, 4096 // size // 4)
            same = [x[:size]] * count
            work = lambda: [*map(run_some, same)]  # noqa: B023, E731 (it runs at once)
            yield str(max(rate(count * size, work) for _ in range(3)))


def _rows_a_second(exact: bool, folder: Path) -> float:
    """The best of a few, with the threads that predict.py has."""
    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    x, _ = _images(folder)
    meta = read_meta_graph(_trained_meta(folder))
    with load_inference_graph(meta, ["fc2/add:0"], ["x:0"], side_by_side=exact) as graph:
        work = partial(_run_ours, graph, x, 256, exact)
        return max(rate(len(x), work) for _ in range(PAIRS))


def _images_a_second(make: Callable[..., peers.Loop] | None, folder: Path) -> float:
    """The best of a few trainings at batch 128, by us where nothing else is named."""
    given, steps = _images(folder), _PEER_STEPS
    ours = partial(training_speed, str(folder / _IMAGES), folder, 128, steps)
    work = ours if make is None else partial(make(*given, 128), steps)
    return max(work() for _ in range(_PEER_TRIALS))


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


# What is measured against, beside `benchmarks.peers`.


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
    "row-sizes": _row_sizes,
    "onednn": _onednn,
    "processes": _processes,
    "start": _start,
}
# Each prints one number.
_FIGURES: dict[str, Callable[[Path], float]] = {
    "exact": partial(_rows_a_second, True),
    "not-exact": partial(_rows_a_second, False),
    "ours": partial(_images_a_second, None),
    "torch": partial(_images_a_second, peers.torch_eager),
    "jax": partial(_images_a_second, peers.jax_jit),
}


@dataclass(frozen=True)
class Request:
    """What is measured."""

    part: str | None = flag(
        "Measures this alone; all by default.", None, choices=[*_PARTS, *_FIGURES, "rates"]
    )


if __name__ == "__main__":
    run(main, Request, __doc__)
