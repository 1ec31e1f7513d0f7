"""CPU seconds of whole commands against a plain `import tensorflow`, and of reading a checkpoint.

  python -m benchmarks.startup

runs each command in turn with `python -c "import tensorflow"`, and prints the medians of both and
of their ratio; then, in turn with TensorFlow's own reader, how long our reader takes for 500 MB.
Seconds are of this machine and this hour; the ratios are what to compare. About five minutes.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.measuring import PROJECT, compare, run_part, run_parts, start
from cli.fields import flag
from cli.run import run

_IMPORT = ("-c", "import tensorflow")
_TOOL = ("-m", "tools.inspect_checkpoint")
# What is measured, and the command, in whose arguments {run} is the folder of a default run of
# train_linear.py and {new} one that is not there yet.
COMMANDS: Mapping[str, Sequence[str]] = {
    "list of a folder's checkpoints": (*_TOOL, "{run}"),
    "tensors of a checkpoint": (*_TOOL, "{run}/my-model-300"),
    "values of a tensor": (*_TOOL, "{run}/my-model-300", "--tensor=w"),
    "verify a folder": ("-m", "tools.verify", "{run}"),
    "diff of two checkpoints": ("-m", "tools.diff", "{run}/my-model-290", "{run}/my-model-300"),
    "edit of variables": ("-m", "tools.edit", "{run}", "--output={new}/m", "--cast=float16"),
    "signatures of a graph": ("-m", "tools.inspect_graph", "{run}", "--part=signatures"),
    "predict.py on one row": ("predict.py", "{run}", "--feed=x=[0.5]"),
    "train_linear.py, its default run": ("train_linear.py", "--ckpt_dir={new}"),
}
_BYTES = 500_000_000
_TENSORS = 25
_Part: TypeAlias = Callable[[Path], Iterator[str]]


@dataclass(frozen=True)
class Request:
    """Which part to run."""

    part: str | None = flag("The part to run; by default all.", None, choices=("cold", "reading"))


def main(request: Request) -> None:
    """Prints all comparisons, each as soon as it is measured."""
    if request.part is None:
        run_parts("startup", _PARTS, "ours", "theirs")
        return
    with tempfile.TemporaryDirectory() as folder:
        run_part(_PARTS[request.part], Path(folder))


def _commands(folder: Path) -> Iterator[str]:
    """Each command against the import."""
    trained = folder / "run"
    _cpu_seconds("train_linear.py", f"--ckpt_dir={trained}")
    for name, command in COMMANDS.items():
        ours = partial(_in_a_new_place, folder, command, trained)
        bound = "CPU; theirs is `import tensorflow`"
        yield compare(name, ours, partial(_cpu_seconds, *_IMPORT), "s", bound)


def _in_a_new_place(folder: Path, command: Sequence[str], trained: Path) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        new = os.path.join(place, "new")
        return _cpu_seconds(*(text.format(run=trained, new=new) for text in command))


def _cpu_seconds(*arguments: str) -> float:
    """User and system time of a Python process and of those that it waited for."""
    before = os.times()
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)
    if ended.returncode and ended.stderr:  # Without a word, it has found a difference.
        raise OSError(ended.stderr.decode())
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def _reading(folder: Path) -> Iterator[str]:
    """Reading 500 MB, which the page cache holds, with all checksums."""
    start()
    import numpy as np
    import tensorflow as tf

    from checkpoints.bundle import write_bundle
    from checkpoints.reader import CheckpointReader

    generator = np.random.default_rng(0)
    shape = (1000, _BYTES // _TENSORS // 4000)
    values = {f"w{i}": generator.random(shape, np.float32) for i in range(_TENSORS)}
    prefix = str(folder / "large")
    write_bundle(prefix, values)

    def figure(clock: Callable[[], float], open_reader: Callable[[], Any]) -> float:
        started, read = clock(), open_reader()
        for name in values:
            read(name)
        return clock() - started

    for name, clock in (("CPU", time.process_time), ("wall", time.perf_counter)):
        ours = partial(figure, clock, lambda: CheckpointReader(prefix).read)
        theirs = partial(figure, clock, lambda: tf.train.load_checkpoint(prefix).get_tensor)
        yield compare(f"reading 500 MB, {name} seconds", ours, theirs, "s", "TensorFlow's reader")


_PARTS: Mapping[str, _Part] = {"cold": _commands, "reading": _reading}

if __name__ == "__main__":
    run(main, Request, __doc__)
