"""Speed against a bare loop, a minimal script, Keras and plain TensorFlow, in one run.

  python -m benchmarks.speed

prints, for each comparison, our figure, the other's and their ratio; about eight minutes. The
figures are of this machine and this hour; the ratios are what to compare. Each part is a process
of its own, as the number of threads is a process's: training has as many as train_cnn.py gives it,
and so has what it is compared with.
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
from typing import TYPE_CHECKING

from absl import logging

from benchmarks.measuring import compare, training_config, training_speed
from cli.fields import flag
from cli.run import run
from cli.terminal import import_tensorflow

if TYPE_CHECKING:
    from benchmarks.reference import Array
    from metagraph.session import InferenceGraph

_PROJECT = Path(__file__).resolve().parent.parent
_NUM_IMAGES = 20_000
_IMAGES = "images.npz"
_STEPS_BY_BATCH_SIZE = {10: 1000, 128: 200}  # about two seconds each
_PREDICT_BATCH_SIZES = (32, 256)  # the defaults of Keras and of predict.py
_NODES = 12_000
_RAMP = ("--data=ramp", "--batch_size=10")
_PAIRS = 5


def main(request: "Request") -> None:
    """Prints all comparisons, each as soon as it is measured."""
    if request.part is None:
        print(f"{'':<58} {'ours':>10} {'theirs':>10}", flush=True)
        for name in _PARTS:
            command = [sys.executable, "-m", "benchmarks.speed", f"--part={name}"]
            subprocess.run(command, cwd=_PROJECT, check=True)
        return
    import_tensorflow(1 if request.part == "train-10" else None)  # As train_cnn.py does.
    import numpy as np

    from benchmarks.reference import random_images

    logging.get_absl_logger().setLevel("ERROR")
    x, y = random_images(_NUM_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / _IMAGES, X=x, Y=y)
        for line in _PARTS[request.part](Path(folder), x, y):
            print(line, flush=True)


def _process(folder: Path, x: "Array", y: "Array") -> Iterator[str]:
    """A run of train_cnn.py on the ramp against the shortest script for it."""
    del x, y

    def seconds(*command: str) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as run:
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, *(part.format(run=run) for part in command)],
                cwd=_PROJECT,
                check=True,
                capture_output=True,
            )
            return time.perf_counter() - started

    yield compare(
        "train_cnn.py as a process / minimal TF1 script",
        lambda: seconds("train_cnn.py", *_RAMP, "--ckpt_dir={run}/ours"),
        lambda: seconds("benchmarks/minimal_tf1.py", "{run}/theirs"),
        pairs=_PAIRS,
        unit="s",
        bound="at most 1.05",
    )


def _training(batch_size: int, folder: Path, x: "Array", y: "Array") -> Iterator[str]:
    """Training against a bare loop, against Keras, and against itself with less to do."""
    from benchmarks.reference import BareLoop, keras_model

    steps = _STEPS_BY_BATCH_SIZE[batch_size]
    ours = partial(training_speed, str(folder / _IMAGES), folder, batch_size, steps)
    bare, model = BareLoop(x, y, batch_size), keras_model()

    def fit() -> float:
        count = batch_size * steps
        epochs, size = max(1, count // len(x)), min(count, len(x))
        started = time.perf_counter()
        model.fit(x[:size], y[:size], batch_size=batch_size, epochs=epochs, verbose=0)
        return epochs * size / (time.perf_counter() - started)

    every, once = partial(ours, save_every_steps=10), partial(ours, save_every_steps=10**9)
    dense = "at least 0.9" if batch_size == 10 else "not asked for"
    sides: tuple[tuple[str, Callable[[], float], Callable[[], float], str], ...] = (
        (" / bare session.run", ours, partial(bare.images_per_second, steps), "at least 0.97"),
        (" / Keras fit", ours, fit, "at least 1.1"),
        (", save every 10 / only at the end", every, once, dense),
        (", augmented / not", partial(ours, augment=True), ours, "not asked for"),
    )
    for name, one, other, bound in sides:
        title = f"training, batch {batch_size}{name}"
        yield compare(title, one, other, pairs=_PAIRS, unit="images/s", bound=bound)


def _prediction(folder: Path, x: "Array", y: "Array") -> Iterator[str]:
    """predict.py's own loop against Keras, and against a stock client's `session.run`."""
    del y
    import numpy as np

    from benchmarks.reference import keras_model, restored
    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    model, meta = keras_model(), _trained_meta(folder)

    def run_stock(batch_size: int) -> None:
        starts = range(0, len(x), batch_size)
        np.concatenate([session.run("fc2/add:0", {"x:0": x[i : i + batch_size]}) for i in starts])

    with (
        closing(restored(meta)) as session,  # To enter it would end eager mode, as Keras needs it.
        load_inference_graph(read_meta_graph(meta), ["fc2/add:0"], ["x:0"]) as graph,
    ):
        sides: dict[str, Callable[[int], object]] = {
            "Keras predict": lambda size: model.predict(x, batch_size=size, verbose=0),
            "session.run": run_stock,
        }
        for name, work in sides.items():
            for batch_size in _PREDICT_BATCH_SIZES:
                yield compare(
                    f"predict, {len(x):,} images, batch {batch_size} / {name}",
                    partial(_rows_a_second, x, partial(_run_ours, graph, x, batch_size)),
                    partial(_rows_a_second, x, partial(work, batch_size)),
                    pairs=_PAIRS,
                    unit="images/s",
                    bound="at least 1.0",
                )


def _run_ours(graph: "InferenceGraph", x: "Array", batch_size: int) -> None:
    from prediction.evaluation import Kind, run_rows
    from prediction.file_inputs import array_rows

    run_rows(graph, [array_rows(x, graph.feeds[0], "rows")], [Kind.ROWS], batch_size)


def _rows_a_second(x: "Array", work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return len(x) / (time.perf_counter() - started)


def _trained_meta(folder: Path) -> str:
    """The .meta file of a network that was trained for one step."""
    from train_cnn import train

    with open(os.devnull, "w") as log, redirect_stderr(log):
        config = training_config(str(folder / _IMAGES), str(folder / "one-step"), 10, 1)
        return train(config).prefix + ".meta"


def _start(folder: Path, x: "Array", y: "Array") -> Iterator[str]:
    """Seconds from the file to the first row of a graph with some 12,000 nodes."""
    del x, y
    import numpy as np

    from benchmarks.reference import restored, write_deep
    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    path, row = write_deep(folder, _NODES), np.ones((1, 16), np.float32)
    nodes = len(read_meta_graph(path).proto.graph_def.node)

    def ours() -> float:
        started = time.perf_counter()
        with load_inference_graph(read_meta_graph(path), ["y:0"], ["x:0"]) as graph:
            graph.run(row)
            return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        with restored(path) as session:
            session.run("y:0", {"x:0": row})
            return time.perf_counter() - started

    name = f"ready to run and one row, {nodes:,} nodes / plain import"
    yield compare(name, ours, theirs, pairs=_PAIRS, unit="s", bound="at most 1.0")


_PARTS: dict[str, Callable[[Path, "Array", "Array"], Iterator[str]]] = {
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
