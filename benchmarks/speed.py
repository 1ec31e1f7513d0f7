"""Speed against a bare loop, a minimal script and Keras, in one run.

  python -m benchmarks.speed

prints, for each comparison, our figure, the other's and their ratio; about five minutes. The
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
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags, logging

from benchmarks.measuring import Comparison, compare, training_config, training_speed
from cli.run import run
from cli.terminal import import_tensorflow

if TYPE_CHECKING:
    from benchmarks.reference import Array

_PROJECT = Path(__file__).resolve().parent.parent
_NUM_IMAGES = 20_000
_IMAGES = "images.npz"
_STEPS_BY_BATCH_SIZE = {10: 1000, 128: 200}  # about two seconds each
_PREDICT_BATCH_SIZES = (32, 256)  # the defaults of Keras and of predict.py
_PAIRS = 5


class Part(NamedTuple):
    """What is measured in one process.

    Attributes:
      comparisons: yields them, given a folder with the images.
      threads: for an operation; None for one a processor.
    """

    comparisons: Callable[[Path, "Array", "Array"], Iterator[Comparison]]
    threads: int | None = None


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    flags.DEFINE_enum(
        "part", None, list(_PARTS), "Measures this alone; all by default.", flag_values=values
    )


def main(values: flags.FlagValues) -> None:
    """Prints all comparisons, each as soon as it is measured."""
    if values.part is None:
        print(f"{'':<58} {'ours':>10} {'theirs':>10}", flush=True)
        for name in _PARTS:
            command = [sys.executable, "-m", "benchmarks.speed", f"--part={name}"]
            subprocess.run(command, cwd=_PROJECT, check=True)
        return
    part = _PARTS[values.part]
    import_tensorflow(part.threads)
    import numpy as np

    from benchmarks.reference import random_images

    logging.get_absl_logger().setLevel("ERROR")
    x, y = random_images(_NUM_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / _IMAGES, X=x, Y=y)
        for comparison in part.comparisons(Path(folder), x, y):
            print(comparison, flush=True)


def _processes(folder: Path, x: "Array", y: "Array") -> Iterator[Comparison]:
    del x, y
    yield _whole_process(folder)


def _training(batch_size: int) -> Callable[[Path, "Array", "Array"], Iterator[Comparison]]:
    steps = _STEPS_BY_BATCH_SIZE[batch_size]

    def comparisons(folder: Path, x: "Array", y: "Array") -> Iterator[Comparison]:
        yield _against_bare_loop(folder, x, y, batch_size, steps)
        yield _against_keras_fit(folder, x, y, batch_size, steps)
        yield _against_no_saves(folder, batch_size, steps)
        yield _against_no_augmentation(folder, batch_size, steps)

    return comparisons


def _prediction(folder: Path, x: "Array", y: "Array") -> Iterator[Comparison]:
    del y
    for batch_size in _PREDICT_BATCH_SIZES:
        yield _against_keras_predict(folder, x, batch_size)


def _whole_process(folder: Path) -> Comparison:
    """The default run of train_cnn.py against the shortest script for it."""

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

    return compare(
        "train_cnn.py as a process / minimal TF1 script",
        lambda: seconds("train_cnn.py", "--ckpt_dir={run}/ours"),
        lambda: seconds("benchmarks/minimal_tf1.py", "{run}/theirs"),
        pairs=_PAIRS,
        unit="s",
        bound="at most 1.05",
    )


def _against_bare_loop(
    folder: Path, x: "Array", y: "Array", batch_size: int, steps: int
) -> Comparison:
    from benchmarks.reference import BareLoop

    bare, data = BareLoop(x, y, batch_size), str(folder / _IMAGES)
    return compare(
        f"training, batch {batch_size} / bare session.run",
        lambda: training_speed(data, folder, batch_size, steps),
        lambda: bare.images_per_second(steps),
        pairs=_PAIRS,
        unit="images/s",
        bound="at least 0.97",
    )


def _against_keras_fit(
    folder: Path, x: "Array", y: "Array", batch_size: int, steps: int
) -> Comparison:
    from benchmarks.reference import keras_model

    model, count, data = keras_model(), batch_size * steps, str(folder / _IMAGES)

    def fit() -> float:
        epochs, size = max(1, count // len(x)), min(count, len(x))
        started = time.perf_counter()
        model.fit(x[:size], y[:size], batch_size=batch_size, epochs=epochs, verbose=0)
        return epochs * size / (time.perf_counter() - started)

    return compare(
        f"training, batch {batch_size} / Keras fit",
        lambda: training_speed(data, folder, batch_size, steps),
        fit,
        pairs=_PAIRS,
        unit="images/s",
        bound="at least 1.1",
    )


def _against_no_saves(folder: Path, batch_size: int, steps: int) -> Comparison:
    data = str(folder / _IMAGES)
    return compare(
        f"training, batch {batch_size}, save every 10 / only at the end",
        lambda: training_speed(data, folder, batch_size, steps, save_every_steps=10),
        lambda: training_speed(data, folder, batch_size, steps, save_every_steps=10**9),
        pairs=_PAIRS,
        unit="images/s",
        bound="at least 0.9" if batch_size == 10 else "not asked for",
    )


def _against_no_augmentation(folder: Path, batch_size: int, steps: int) -> Comparison:
    data = str(folder / _IMAGES)
    return compare(
        f"training, batch {batch_size}, augmented / not",
        lambda: training_speed(data, folder, batch_size, steps, augment=True),
        lambda: training_speed(data, folder, batch_size, steps),
        pairs=_PAIRS,
        unit="images/s",
        bound="not asked for",
    )


def _against_keras_predict(folder: Path, x: "Array", batch_size: int) -> Comparison:
    from benchmarks.reference import keras_model, rows_a_second
    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    model = keras_model()
    meta = read_meta_graph(_trained_meta(folder))
    with load_inference_graph(meta, ["fc2/add:0"], ["x:0"]) as graph:

        def theirs() -> float:
            started = time.perf_counter()
            model.predict(x, batch_size=batch_size, verbose=0)
            return len(x) / (time.perf_counter() - started)

        return compare(
            f"predict, {len(x):,} images, batch {batch_size} / Keras predict",
            lambda: rows_a_second(graph, x, batch_size),
            theirs,
            pairs=_PAIRS,
            unit="images/s",
            bound="at least 1.0",
        )


def _trained_meta(folder: Path) -> str:
    """The .meta file of a network that was trained for one step."""
    from train_cnn import train

    with open(os.devnull, "w") as log, redirect_stderr(log):
        config = training_config(str(folder / _IMAGES), str(folder / "one-step"), 10, 1)
        return train(config).prefix + ".meta"


_PARTS = {
    "process": Part(_processes),
    "train-10": Part(_training(10), threads=1),
    "train-128": Part(_training(128)),
    "predict": Part(_prediction),
}

if __name__ == "__main__":
    run(main, define_flags, __doc__)
