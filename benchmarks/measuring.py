"""What benchmarks share: how they measure times, and runs in processes of their own."""

import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from absl import logging

import train_cnn
import train_linear
import train_mlp
from cli.fields import parse
from cli.terminal import import_tensorflow
from training.workers import take_place

if TYPE_CHECKING:
    from training.loop import Outcome
    from training.task import Batch

Figure: TypeAlias = Callable[[], float]

NUM_CLASSES = 4
PAIRS = 5  # Measurements of each of two that are compared.
PROJECT = Path(__file__).resolve().parent.parent
WARM_UP_STEPS = 20


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rate(count: int, work: Callable[[], object]) -> float:
    """So many of something a second, as a call does them all."""
    return count / seconds(work)


def compare(name: str, ours: Figure, theirs: Figure, unit: str, bound: str) -> str:
    """Measures both once to warm up, then in turn, so that a machine's mood falls on both alike.

    Returns:
      A line with the medians of both, in `unit`, and of their ratio, which is taken pair by pair,
      with what it is held to, such as "at least 0.97".
    """
    ours()
    theirs()
    return summary(name, [(ours(), theirs()) for _ in range(PAIRS)], unit, bound)


def summary(name: str, figures: Sequence[tuple[float, float]], unit: str, bound: str) -> str:
    """The line of `compare`, for pairs of figures that were measured in turn."""
    mine, other = (statistics.median(column) for column in zip(*figures, strict=True))
    ratio = statistics.median(one / two for one, two in figures)
    return f"{name:<58} {mine:>10,.2f} {other:>10,.2f} {unit:<9} ratio {ratio:.3f} ({bound})"


def python(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Runs Python in the project's folder; `options` are those of `subprocess.run`."""
    options = {"check": True, "capture_output": True, "text": True, "cwd": PROJECT, **options}
    return subprocess.run([sys.executable, *arguments], **options)  # noqa: PLW1510 (it is there)


def start(batch_size: int = 0) -> None:
    """Imports TensorFlow with as many threads as train_cnn.py has at a size, and no log lines."""
    import_tensorflow(1 if batch_size == 10 else None)
    logging.get_absl_logger().setLevel("ERROR")


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


def write_digits(folder: Path, count: int) -> None:
    """Writes the four files of MNIST with random pixels, as yann.lecun.com/exdb describes them.

    Both parts have so many digits.
    """
    import numpy as np

    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pixels = draw.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images", pixels), ("labels", labels)):
            head = struct.pack(f">4B{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
            path = folder / f"{part}-{name}-idx{array.ndim}-ubyte"
            path.write_bytes(head + array.tobytes())


# Runs of the trainers, and what lasts of them.

KEEP = 3  # Checkpoints.
# The manifests hold the time, and are never the same.
LASTING = (".data-00000-of-00001", ".index", ".meta", "checkpoint")


class Trainer(NamedTuple):
    """A script that trains, with flags that all its runs have."""

    script: ModuleType
    config_type: type
    flags: tuple[str, ...] = ()

    def config(self, path: Path | str, *more: str) -> Any:
        """What a run in `path` is asked for, with more flags."""
        name = f"{self.script.__name__}.py"
        return parse(self.config_type, [name, *self.flags, f"--ckpt_dir={path}", *more])

    def train(self, path: Path | str, *more: str) -> "Outcome":
        """Trains in `path` to the end, as the script does."""
        config = self.config(path, *more)
        take_place(config.run)
        outcome: Outcome = self.script.train(config)
        return outcome


LINE = Trainer(train_linear, train_linear.LinearConfig)
CNN = Trainer(train_cnn, train_cnn.CnnConfig)
MLP = Trainer(train_mlp, train_mlp.MlpConfig)


def run_flags(steps: int, save_every: int, log_every: int) -> tuple[str, ...]:
    """Of a run to a step, which keeps KEEP checkpoints, and saves and logs so often."""
    often = (f"--save_every_steps={save_every}", f"--log_every_steps={log_every}")
    return (f"--train_steps={steps}", *often, f"--max_to_keep={KEEP}")


def speed_flags(data: Path, batch_size: int, steps: int) -> tuple[str, ...]:
    """Of a run of the CNN on the images of `data` whose speed is measured."""
    often = ("--save_every_steps=100", "--log_every_steps=10")
    return (f"--data={data}", f"--batch_size={batch_size}", f"--train_steps={steps}", *often)


def training_speed(data: Path, batch_size: int, steps: int, *more: str) -> float:
    """Trains the CNN; images a second after the warm-up, the last save included.

    `more` are flags of train_cnn.py. The run is beside the data, and deleted.
    """
    from training import loop

    with tempfile.TemporaryDirectory(dir=data.parent) as path, open(os.devnull, "w") as log:
        config = CNN.config(path, *speed_flags(data, batch_size, WARM_UP_STEPS + steps), *more)
        task = train_cnn.make_task(config)
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


def log_lines(path: Path | str) -> list[bytes]:
    """The lines of a run's log, none where it has none yet."""
    from training.metrics import LOGS_FOLDER, METRICS_FILE, lines_of

    return lines_of(os.path.join(path, LOGS_FOLDER, METRICS_FILE))


def lasting(path: Path) -> dict[str, bytes]:
    """Name -> content of the files of a run that must be equal at the end."""
    files = {p.name: p.read_bytes() for p in path.iterdir() if p.name.endswith(LASTING)}
    if not (lines := log_lines(path)):
        raise FileNotFoundError(f"{path} has no metrics to compare")
    return files | {"metrics": b"".join(lines)}


def report(count: int, name: str, run: Callable[[Path], Counter[str]]) -> int:
    """Runs a campaign in a temporary folder and prints what was found.

    Returns:
      1 if anything was found that must not be: a line with LOST or DEFECT.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        found = run(Path(folder))
        print(f"{count} {name} in {time.monotonic() - started:.0f} s")
    for finding, times in sorted(found.items()):
        print(f"  {finding}: {times}")
    return int(any("LOST" in finding or "DEFECT" in finding for finding in found))


def fork(work: Callable[[], object], log: str = os.devnull) -> int:
    """Starts a process that does some work, with its output in a file; returns its number.

    No session may exist in this process yet: a fork has none of its threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return child
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 (the process ends here; the log tells its parent why)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)  # Whatever happens, the child does not go on as its parent.
