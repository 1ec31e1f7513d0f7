"""How benchmarks measure: memory, times, two ways to do one work, training after a warm-up."""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from absl import logging

from cli.fields import parse
from cli.terminal import import_tensorflow

if TYPE_CHECKING:
    from collections.abc import Generator

    from train_cnn import CnnConfig
    from training.task import Batch

NUM_CLASSES = 4
PAIRS = 5  # Measurements of each of two that are compared.
PROJECT = Path(__file__).resolve().parent.parent
_INTERVAL_SECS = 0.02
_STATUS = Path("/proc/self/status")
WARM_UP_STEPS = 20


class Memory(NamedTuple):
    """Megabytes (10**6 bytes) in memory.

    `own` (RssAnon) is what only this process has: arrays, stacks, TensorFlow's buffers. `mapped`
    (RssFile) is of mapped files, mostly TensorFlow's code. The page cache counts in neither.
    """

    own: float
    mapped: float


def memory_now() -> Memory:
    """What the process takes at this moment."""
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    own, mapped = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile"))
    return Memory(own, mapped)


@contextmanager
def memory_samples() -> "Generator[list[Memory]]":
    """Samples the memory in a thread, from the start to the end; the first is that of the start."""
    samples, ended = [memory_now()], threading.Event()

    def sample() -> None:
        while not ended.wait(_INTERVAL_SECS):
            samples.append(memory_now())

    thread = threading.Thread(target=sample, name="memory-meter", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rate(count: int, work: Callable[[], object]) -> float:
    """So many of something a second, as a call does them all."""
    return count / seconds(work)


Figure: TypeAlias = Callable[[], float]


def compare(name: str, ours: Figure, theirs: Figure, unit: str, bound: str) -> str:
    """Measures both once to warm up, then in turn, so that a machine's mood falls on both alike.

    Returns:
      A line with the medians of both, in `unit`, and of their ratio, which is taken pair by pair,
      with what it is held to, such as "at least 0.97".
    """
    ours()
    theirs()
    figures = [(ours(), theirs()) for _ in range(PAIRS)]
    mine, other = (statistics.median(column) for column in zip(*figures, strict=True))
    ratio = statistics.median(one / two for one, two in figures)
    return f"{name:<58} {mine:>10,.2f} {other:>10,.2f} {unit:<9} ratio {ratio:.3f} ({bound})"


def run_parts(module: str, parts: Iterable[str], one: str, other: str, *arguments: str) -> None:
    """Runs each part of a benchmark in a process of its own, under the heads of two columns."""
    print(f"{'':<58} {one:>10} {other:>10}", flush=True)
    for name in parts:
        command = [sys.executable, "-m", f"benchmarks.{module}", f"--part={name}", *arguments]
        subprocess.run(command, cwd=PROJECT, check=True)


def run_part(work: Callable[[Path], Iterator[str]], folder: Path) -> None:
    """Prints the lines of a part, each as soon as it is measured."""
    for line in work(folder):
        print(line, flush=True)


def start(batch_size: int = 0) -> None:
    """Imports TensorFlow with as many threads as train_cnn.py has at a size, and no log lines."""
    import_tensorflow(1 if batch_size == 10 else None)
    logging.get_absl_logger().setLevel("ERROR")


def log_lines(ckpt_dir: str) -> list[bytes]:
    """The lines of a run's log, none where it has none yet."""
    from training.metrics import LOGS_FOLDER, METRICS_FILE, lines_of

    return lines_of(os.path.join(ckpt_dir, LOGS_FOLDER, METRICS_FILE))


def write_image_files(folder: Path, count: int) -> None:
    """Writes random images as PNG files in a folder a class."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in range(NUM_CLASSES):
        (folder / f"class {label}").mkdir(parents=True)
    for number in range(count):
        pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
        label = number % NUM_CLASSES
        Image.fromarray(pixels).save(folder / f"class {label}" / f"{number:06d}.png")


def training_config(
    data: str, ckpt_dir: str, batch_size: int, steps: int, *more: str
) -> "CnnConfig":
    """A run of train_cnn.py on the images of `data`, with `more` of its flags."""
    from train_cnn import CnnConfig

    given = [f"--data={data}", f"--ckpt_dir={ckpt_dir}", f"--batch_size={batch_size}"]
    given += [f"--train_steps={steps}", "--save_every_steps=100", "--log_every_steps=10"]
    return parse(CnnConfig, ["train_cnn.py", *given, *more])


def training_speed(data: str, folder: Path, batch_size: int, steps: int, *more: str) -> float:
    """Trains in a folder of `folder`; images a second after the warm-up, the last save included.

    `more` are flags of train_cnn.py.
    """
    from train_cnn import make_task
    from training import loop

    with tempfile.TemporaryDirectory(dir=folder) as ckpt_dir, open(os.devnull, "w") as log:
        config = training_config(data, ckpt_dir, batch_size, WARM_UP_STEPS + steps, *more)
        task = make_task(config)
        clock: list[float] = []

        def batches(start: int, stop: int) -> "Generator[Batch, None, None]":
            """Notes when the warm-up is over."""
            for count, batch in enumerate(task.batches(start, stop)):
                if count == WARM_UP_STEPS:
                    clock.append(time.perf_counter())
                yield batch

        with redirect_stderr(log):
            loop.train(task._replace(batches=batches), config.run)
        return steps * batch_size / (time.perf_counter() - clock[0])
