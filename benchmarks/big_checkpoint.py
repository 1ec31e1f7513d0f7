"""A checkpoint of 500 MB: what it costs to look into it and to freeze it, against reading its file.

  python -m benchmarks.big_checkpoint

makes a network of 500 MB and its checkpoint in a temporary folder, and removes them at the end;
about three minutes, and 2 GB of disk. Each figure is that of a process of its own, taken in turn,
with the checkpoint in the page cache. The start, which imports TensorFlow, is a line of its own;
time and memory of the others are beyond it. Against writing, as well: a frozen graph is a file of
that size, flushed to the disk.
"""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks.measuring import MemoryMeter, memory_now
from cli.fields import parse
from cli.run import run
from cli.terminal import import_tensorflow

_PROJECT = Path(__file__).resolve().parent.parent
_NAME, _FROZEN, _COPY = "big", "frozen.pb", "copy"
_LAYERS = 12
_BLOCK = 1 << 20
_DISK = 4  # Times the size of the checkpoint: that, a copy, a frozen graph and its temporary file.


class Figures(NamedTuple):
    """What one process took.

    Attributes:
      start: seconds until TensorFlow was imported.
      seconds: of the work.
      start_mb: megabytes (10**6 bytes) that it alone had at the start.
      peak_mb: the most beyond that.
    """

    start: float
    seconds: float
    start_mb: float
    peak_mb: float


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    flags.DEFINE_enum(
        "part", None, ["make", *_PARTS], "Measures this alone, in --folder.", flag_values=values
    )
    flags.DEFINE_string("folder", None, "Where the checkpoint is; for --part.", flag_values=values)
    for name, default, what in (
        ("megabytes", 500, "Size of the checkpoint."),
        ("rounds", 3, "Measurements of each."),
    ):
        flags.DEFINE_integer(name, default, what, lower_bound=1, flag_values=values)


def main(values: flags.FlagValues) -> int:
    """Prints the table."""
    if values.part is not None:
        return _in_this_process(values)
    with tempfile.TemporaryDirectory() as folder:
        needed = _DISK * values.megabytes * 10**6
        free = shutil.disk_usage(folder).free
        if free < needed:
            print(f"{folder}: {free:,} bytes are free, {needed:,} needed", file=sys.stderr)
            return 1
        _run_part("make", folder, values)
        size = _data_file(Path(folder)).stat().st_size
        rounds = [
            {part: _run_part(part, folder, values) for part in _PARTS}
            for _ in range(1 + values.rounds)
        ][1:]  # The first only warms up.
        medians = {part: _median([one[part] for one in rounds]) for part in _PARTS}
        print("\n".join(report(medians, size / 1e6)))
    return 0


def _in_this_process(values: flags.FlagValues) -> int:
    """Does one part; prints its figures as JSON."""
    folder = Path(values.folder)
    if values.part == "make":
        make_checkpoint(folder / _NAME, values.megabytes)
        return 0
    started = time.perf_counter()
    import_tensorflow()
    print(json.dumps(measure(_PARTS[values.part], folder, time.perf_counter() - started)))
    return 0


def _run_part(part: str, folder: str, values: flags.FlagValues) -> Figures:
    command = [sys.executable, "-m", "benchmarks.big_checkpoint", f"--part={part}"]
    command += [f"--folder={folder}", f"--megabytes={values.megabytes}"]
    ended = subprocess.run(command, cwd=_PROJECT, check=True, stdout=subprocess.PIPE, text=True)
    return Figures(*json.loads(ended.stdout)) if ended.stdout else Figures(0, 0, 0, 0)


def make_checkpoint(prefix: Path, megabytes: int) -> None:
    """Saves layers of random weights, as plain TensorFlow does, with a graph that multiplies."""
    import_tensorflow()
    import tensorflow as tf

    v1 = tf.compat.v1
    width = max(1, math.isqrt(megabytes * 10**6 // 4 // _LAYERS))
    with tf.Graph().as_default(), v1.Session() as session:
        y = v1.placeholder(tf.float32, [None, width], name="x")
        for number in range(_LAYERS):
            init = v1.random_uniform_initializer(-(width**-0.5), width**-0.5, seed=number)
            weights = v1.get_variable(f"layer{number}/w", [width, width], initializer=init)
            bias = v1.get_variable(f"layer{number}/b", [width])
            y = tf.nn.relu(tf.matmul(y, weights) + bias, name=f"layer{number}/y")
        v1.add_to_collection("predict", tf.identity(y, name="y"))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))


def measure(work: Callable[[Path], None], folder: Path, start: float) -> Figures:
    """Time and memory of some work in this process; what it prints is dropped."""
    before = memory_now().own
    started = time.perf_counter()
    with MemoryMeter() as meter, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        work(folder)
        seconds = time.perf_counter() - started
    return Figures(start, seconds, before, max(0.0, meter.peak.own - before))


def _data_file(folder: Path) -> Path:
    return folder / f"{_NAME}.data-00000-of-00001"


def _read(folder: Path) -> None:
    """Reads the file of values once, from the page cache."""
    buffer = bytearray(_BLOCK)
    with open(_data_file(folder), "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _copy(folder: Path) -> None:
    """Reads it and writes it again, flushed to the disk."""
    with open(_data_file(folder), "rb") as source, open(folder / _COPY, "wb") as copy:
        shutil.copyfileobj(source, copy, _BLOCK)
        copy.flush()
        os.fsync(copy.fileno())
    os.remove(folder / _COPY)


def _tool(main: Callable[[Any], int | None], request: type, *arguments: str) -> None:
    """What `python -m tools.<name>` does once TensorFlow is there."""
    if main(parse(request, [main.__module__, *arguments])):
        raise RuntimeError(f"{main.__module__} failed")


def _inspect(folder: Path, *arguments: str) -> None:
    from tools.inspect_checkpoint import InspectConfig, main

    _tool(main, InspectConfig, f"--ckpt={folder / _NAME}", *arguments)


def _freeze(folder: Path) -> None:
    from tools.freeze import FreezeConfig, main

    _tool(main, FreezeConfig, f"--meta={folder / _NAME}.meta", f"--output={folder / _FROZEN}")
    os.remove(folder / _FROZEN)


def _median(figures: list[Figures]) -> Figures:
    return Figures(*map(statistics.median, zip(*figures, strict=True)))


def report(medians: dict[str, Figures], megabytes: float) -> list[str]:
    """The lines of the table.

    Args:
      medians: of each part.
      megabytes: of the checkpoint's values.
    """
    start = statistics.median(figures.start for figures in medians.values())
    own = statistics.median(figures.start_mb for figures in medians.values())
    read = medians["read"].seconds
    lines = [
        f"checkpoint of {megabytes:,.0f} MB; the start of a process: {start:.2f} s, {own:,.0f} MB",
        f"{'beyond the start':<38} {'s':>8} {'/ reading':>10} {'peak MB':>9} {'/ size':>8}",
    ]
    for part, name in _TITLES.items():
        figures = medians[part]
        lines.append(
            f"{name:<38} {figures.seconds:>8.3f} {figures.seconds / read:>10.2f} "
            f"{figures.peak_mb:>9,.0f} {figures.peak_mb / megabytes:>8.2f}"
        )
    return lines


_PARTS: dict[str, Callable[[Path], None]] = {
    "read": _read,
    "copy": _copy,
    "list": _inspect,
    "stats": lambda folder: _inspect(folder, "--stats"),
    "freeze": _freeze,
}
_TITLES = {
    "read": "reading the file once",
    "copy": "copying it, flushed to the disk",
    "list": "tools.inspect_checkpoint",
    "stats": "tools.inspect_checkpoint --stats",
    "freeze": "tools.freeze",
}

if __name__ == "__main__":
    run(main, define_flags, __doc__)
