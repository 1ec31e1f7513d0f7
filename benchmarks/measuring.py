"""What benchmarks share: how they measure memory and times, and runs in processes of their own."""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from absl import logging

import train_cnn
import train_linear
from cli.fields import parse
from cli.terminal import import_tensorflow

if TYPE_CHECKING:
    from train_cnn import CnnConfig
    from training.task import Batch

NUM_CLASSES = 4
PAIRS = 5  # Measurements of each of two that are compared.
PROJECT = Path(__file__).resolve().parent.parent
_INTERVAL_SECS = 0.02
_STATUS, _CPUINFO = Path("/proc/self/status"), Path("/proc/cpuinfo")
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
def memory_samples() -> Generator[list[Memory]]:
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
    return summary(name, [(ours(), theirs()) for _ in range(PAIRS)], unit, bound)


def summary(name: str, figures: Sequence[tuple[float, float]], unit: str, bound: str) -> str:
    """The line of `compare`, for pairs of figures that were measured in turn."""
    mine, other = (statistics.median(column) for column in zip(*figures, strict=True))
    ratio = statistics.median(one / two for one, two in figures)
    return f"{name:<58} {mine:>10,.2f} {other:>10,.2f} {unit:<9} ratio {ratio:.3f} ({bound})"


def run_parts(module: str, parts: Iterable[str], one: str, other: str, *arguments: str) -> None:
    """Runs each part of a benchmark in a process of its own, under the heads of two columns.

    The first line says what the figures are of, so that those of two machines are not mixed.
    """
    start()
    from training import resume

    described = (f"{name} {value}" for name, value in resume.environment().items())
    print(f"{_processor()}, {', '.join(described)}")
    print(f"{'':<58} {one:>10} {other:>10}", flush=True)
    for name in parts:
        command = [sys.executable, "-m", f"benchmarks.{module}", f"--part={name}", *arguments]
        subprocess.run(command, cwd=PROJECT, check=True)


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


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


def training_config(data: str, path: str, batch_size: int, steps: int, *more: str) -> "CnnConfig":
    """A run of train_cnn.py on the images of `data`, with `more` of its flags."""
    given = [f"--data={data}", f"--ckpt_dir={path}", f"--batch_size={batch_size}"]
    given += [f"--train_steps={steps}", "--save_every_steps=100", "--log_every_steps=10"]
    return parse(train_cnn.CnnConfig, ["train_cnn.py", *given, *more])


def training_speed(data: str, folder: Path, batch_size: int, steps: int, *more: str) -> float:
    """Trains in a folder of `folder`; images a second after the warm-up, the last save included.

    `more` are flags of train_cnn.py.
    """
    from training import loop

    with tempfile.TemporaryDirectory(dir=folder) as ckpt_dir, open(os.devnull, "w") as log:
        config = training_config(data, ckpt_dir, batch_size, WARM_UP_STEPS + steps, *more)
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


# The runs of the campaigns, and what lasts of them.

KEEP = 3  # Checkpoints.
# The manifests hold the time, and are never the same.
LASTING = (".data-00000-of-00001", ".index", ".meta", "checkpoint")


def report(count: int, name: str, seed: int, run: "Callable[..., Counter[str]]") -> int:
    """Runs a campaign in a temporary folder and prints what was found; 1 if anything was lost."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        found = run(Path(folder), count, seed)
        print(f"{count} {name} in {time.monotonic() - started:.0f} s")
    for finding, times in sorted(found.items()):
        print(f"  {finding}: {times}")
    return 1 if any(finding.startswith("LOST") for finding in found) else 0


def fork(work: Callable[[], object], log: str = os.devnull) -> int:
    """Starts a process that does some work, with its output in a file; returns its number.

    No session may exist in this process yet: a fork has none of its threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 (the process ends here; the log tells its parent why)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)  # Whatever happens, the child does not go on as its parent.


def train_line(*given: str) -> None:
    """Trains the line as train_linear.py does with these flags."""
    train_linear.train(parse(train_linear.LinearConfig, ["train_linear.py", *given]))


def train_network(*given: str) -> None:
    """Trains the CNN as train_cnn.py does with these flags."""
    train_cnn.train(parse(train_cnn.CnnConfig, ["train_cnn.py", *given]))


def run_flags(path: Path | str, steps: int, save_every: int, log_every: int) -> tuple[str, ...]:
    """A run in `path` to a step, which keeps KEEP checkpoints, and saves and logs so often."""
    often = (f"--save_every_steps={save_every}", f"--log_every_steps={log_every}")
    return (f"--ckpt_dir={path}", f"--train_steps={steps}", *often, f"--max_to_keep={KEEP}")


def lasting(path: Path) -> dict[str, bytes]:
    """Name -> content of the files of a run that must be equal at the end."""
    files = {p.name: p.read_bytes() for p in path.iterdir() if p.name.endswith(LASTING)}
    return files | {"metrics": (path / "logs" / "metrics.jsonl").read_bytes()}
