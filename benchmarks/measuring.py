"""How benchmarks measure: memory, two ways to do one work in turn, training after a warm-up.

Fine-tuning is measured on few images of a class.
"""

import json
import os
import random
import statistics
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from training.config import RunConfig

if TYPE_CHECKING:
    from train_cnn import CnnConfig
    from training.task import Batch, Task

_INTERVAL_SECS = 0.02
_STATUS = Path("/proc/self/status")


class Memory(NamedTuple):
    """Megabytes (10**6 bytes) in memory.

    Attributes:
      own: what only this process has (RssAnon): arrays, stacks, TensorFlow's buffers.
      mapped: of files that are mapped (RssFile): mostly TensorFlow's code. The page cache of files
        that are read is the system's and belongs to neither.
    """

    own: float
    mapped: float


def memory_now() -> Memory:
    """What the process takes at this moment."""
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    own, mapped = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile"))
    return Memory(own, mapped)


class MemoryMeter:
    """Samples the memory in a thread of its own from `with` to its end.

    Attributes:
      start: when it began.
      peak: the most since, of each of the two.
    """

    def __init__(self) -> None:
        self.start = self.peak = memory_now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-meter", daemon=True)

    def __enter__(self) -> "MemoryMeter":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(_INTERVAL_SECS):
            now = memory_now()
            self.peak = Memory(max(self.peak.own, now.own), max(self.peak.mapped, now.mapped))


# Compares two ways to do the same work, in turn, so that a machine's mood falls on both alike.


class Comparison(NamedTuple):
    """What was measured.

    Attributes:
      name: what was compared.
      ours: the median of our figures.
      theirs: the median of theirs.
      ratio: the median of ours / theirs, taken pair by pair.
      unit: of both figures.
      bound: what the ratio is held to, such as "at least 0.97".
    """

    name: str
    ours: float
    theirs: float
    ratio: float
    unit: str
    bound: str

    def __str__(self) -> str:
        """One line of the report."""
        return (
            f"{self.name:<58} {self.ours:>10,.2f} {self.theirs:>10,.2f} {self.unit:<9} "
            f"ratio {self.ratio:.3f} ({self.bound})"
        )


def compare(
    name: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    pairs: int,
    unit: str,
    bound: str,
) -> Comparison:
    """Calls both once to warm up, then `pairs` times in turn; each call returns its figure."""
    ours()
    theirs()
    figures = [(ours(), theirs()) for _ in range(pairs)]
    return Comparison(
        name,
        statistics.median(mine for mine, _ in figures),
        statistics.median(other for _, other in figures),
        statistics.median(mine / other for mine, other in figures),
        unit,
        bound,
    )


# How fast train_cnn.py trains, with everything on, after a warm-up.

_WARM_UP_STEPS = 20


def training_config(
    data: str,
    ckpt_dir: str,
    batch_size: int,
    steps: int,
    *,
    save_every_steps: int = 100,
    data_memory_mb: int = 512,
    augment: bool = False,
) -> "CnnConfig":
    """A run on the images of `data`, with log lines every ten steps."""
    from train_cnn import CnnConfig
    from training.config import RunConfig

    return CnnConfig(
        run=RunConfig(
            ckpt_dir=ckpt_dir,
            seed=0,
            save_every_steps=save_every_steps,
            max_to_keep=4,
            keep_checkpoint_every_n_hours=0.0,
            log_every_steps=10,
            allow_config_change=False,
        ),
        data=data,
        validation_fraction=0.0,
        train_steps=steps,
        epochs=None,
        batch_size=batch_size,
        learning_rate=1e-3,
        data_memory_mb=data_memory_mb,
        augment=augment,
    )


def training_speed(data: str, folder: Path, batch_size: int, steps: int, **changes: Any) -> float:
    """Trains in a folder of `folder`; images a second after the warm-up, the last save included.

    `changes` are those of `training_config`.
    """
    from train_cnn import make_task
    from training import loop

    with tempfile.TemporaryDirectory(dir=folder) as ckpt_dir, open(os.devnull, "w") as log:
        steps_in_all = _WARM_UP_STEPS + steps
        config = training_config(data, ckpt_dir, batch_size, steps_in_all, **changes)
        task, clock = _timed(make_task(config))
        with redirect_stderr(log):
            loop.train(task, config.run)
        return steps * batch_size / (time.perf_counter() - clock[0])


def _timed(task: "Task") -> tuple["Task", list[float]]:
    """The same task, which notes the time when its warm-up is over."""
    clock: list[float] = []

    def batches(start: int, stop: int) -> "Generator[Batch, None, None]":
        for count, batch in enumerate(task.batches(start, stop)):
            if count == _WARM_UP_STEPS:
                clock.append(time.perf_counter())
            yield batch

    return task._replace(batches=batches), clock


# Few images of a class: what the measurements of fine-tuning train and test on.

CLASSES = ("airplane", "automobile", "bird", "cat")


def unpacked(archive: str, folder: Path) -> Path:
    """The folder with train/ and test/ of a .tar.gz, unpacked into `folder`."""
    with tarfile.open(archive) as file:
        file.extractall(folder / "all", filter="data")
    return next(path.parent for path in folder.glob("all/**/train"))


def run_config(folder: Path, seed: int) -> RunConfig:
    """A run that saves and tests at its end only."""
    return RunConfig(
        ckpt_dir=str(folder),
        seed=seed,
        save_every_steps=10**9,
        max_to_keep=1,
        keep_checkpoint_every_n_hours=0.0,
        log_every_steps=10**9,
        allow_config_change=False,
    )


def few(images: Path, classes: tuple[str, ...], folder: Path, count: int, seed: int) -> Path:
    """A folder with `count` training images of each class, and all test images."""
    few = folder / f"few-{'-'.join(classes)}-{seed}"
    chosen = random.Random(seed)  # noqa: S311 (a draw of images)
    for name in classes:
        (few / "train" / name).mkdir(parents=True)
        (few / "test").mkdir(exist_ok=True)
        for path in chosen.sample(sorted((images / "train" / name).iterdir()), count):
            os.symlink(path, few / "train" / name / path.name)
        os.symlink(images / "test" / name, few / "test" / name)
    return few


def test_accuracy(folder: Path) -> float:
    """The last one of a run's metrics."""
    line = (folder / "logs" / "metrics.jsonl").read_text().splitlines()[-1]
    return float(json.loads(line)["test_accuracy"])
