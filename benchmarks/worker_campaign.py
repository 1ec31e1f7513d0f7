"""Trains on one worker and on several, moves runs from some to others, kills workers; same bytes?

  python -m benchmarks.worker_campaign --kills=200

Each kind of run is trained to its end on one worker, on one thread; then on 1, 2 and 4; then in
parts, stopped by SIGTERM, on 1, 4, 2 and 1. Then workers of random ranks are killed with SIGKILL at
random instants, and the run goes on to its end with another number of workers. TensorFlow is
imported once; all processes are forks. Exits 1 when anything was lost, or a process was left.
"""

import functools
import logging
import os
import random
import shutil
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring import KEEP, fork, lasting, report
from cli.fields import flag
from cli.run import run
from cli.terminal import import_tensorflow
from finetune import train as train_finetuned
from finetuning import FinetuneConfig
from train_cnn import CnnConfig
from train_cnn import train as train_cnn
from train_linear import LinearConfig
from train_linear import train as train_linear
from train_mlp import MlpConfig
from train_mlp import train as train_mlp
from training.config import RunConfig
from training.launch import take_place

SHARDS = 4
_WORKERS = (1, 2, 4)
_BATCH_SIZE = 16
_EXAMPLES = 240
_END_SECONDS = 60.0  # From a signal on, many times what it takes.
_ENOUGH_SECONDS = 5.0  # What the other workers should need.


@dataclass(frozen=True)
class Request:
    """What the campaign is asked for."""

    kills: int = flag("How many workers are killed.", 200, low=0)
    steps: int = flag("Steps of each run.", 200, low=40)
    seed: int = flag("Draws what happens.", 0, low=0)


class Kind(NamedTuple):
    """A kind of run."""

    name: str
    config: Callable[[str], Any]  # For a folder.
    train: Callable[[Any], Any]

    def start(self, path: Path, workers: int, threads: int | None = None) -> int:
        """Starts a run in a process group of its own; returns its number."""

        def work() -> None:
            os.setsid()
            made = self.config(str(path))
            run = replace(made.run, shards=SHARDS, workers=workers, intra_op_threads=threads)
            config = replace(made, run=run)
            take_place(config.run)
            os._exit(self.train(config).exit_code)

        return fork(work, f"{path}.log")


def main(request: Request) -> int:
    """Runs the campaign and prints what was found."""
    import_tensorflow(intra_op_threads=1)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    work = functools.partial(run_campaign, steps=request.steps)
    return report(request.kills, "kills", request.seed, work)


def run_campaign(folder: Path, kills: int, seed: int, steps: int) -> Counter[str]:
    """Returns how often each thing was seen; what must not be begins with LOST."""
    draw = random.Random(seed)  # noqa: S311 (instants, not secrets)
    found: Counter[str] = Counter()
    kinds = make_kinds(folder, steps)
    unbroken: dict[str, dict[str, bytes]] = {}
    seconds: dict[str, float] = {}
    for kind in kinds:
        began = time.monotonic()
        path = folder / f"{kind.name} on one thread"
        _expect(0, _wait(kind.start(path, 1, threads=1)), path)
        unbroken[kind.name] = lasting(path)
        for workers in _WORKERS:
            began, path = time.monotonic(), folder / f"{kind.name} on {workers}"
            _expect(0, _wait(kind.start(path, workers)), path)
            found[_equal(kind, path, unbroken, f"on {workers} workers")] += 1
        seconds[kind.name] = time.monotonic() - began
        path = folder / f"{kind.name} moved"
        for workers in (1, 4, 2):
            found.update(_stopped(kind, path, workers, draw.uniform(0, seconds[kind.name] / 10)))
        _expect(0, _wait(kind.start(path, 1)), path)
        # Where it was stopped, there may be a checkpoint in place of an older one.
        of_last = (f"-{steps}.", "metrics")
        found[_equal(kind, path, unbroken, "on 1, 4, 2 and 1 workers in turn", of_last)] += 1
    for number in range(kills):
        kind, path = kinds[number % len(kinds)], folder / f"killed {number}"
        while not (seen := _killed(kind, path, draw, seconds[kind.name])):
            shutil.rmtree(path, ignore_errors=True)
        found.update(seen)
        _expect(0, _wait(kind.start(path, draw.choice(_WORKERS))), path)
        found[_equal(kind, path, unbroken, "after a kill")] += 1
        shutil.rmtree(path, ignore_errors=True)
    return found


def _equal(
    kind: Kind,
    path: Path,
    unbroken: dict[str, dict[str, bytes]],
    how: str,
    parts: Sequence[str] = ("",),
) -> str:
    """Whether the files with one of these parts in their names are those of the unbroken run."""

    def chosen(files: dict[str, bytes]) -> dict[str, bytes]:
        return {k: v for k, v in files.items() if any(part in k for part in parts)}

    found, expected = chosen(lasting(path)), chosen(unbroken[kind.name])
    if found == expected:
        return f"{kind.name}: the same bytes {how}"
    differ = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
    return f"LOST: {kind.name} has other {', '.join(differ)} {how}"


def _expect(code: int, found: int, path: Path) -> None:
    if found != code:
        log = Path(f"{path}.log").read_text(errors="replace")
        raise RuntimeError(f"the run in {path} ended with {found}, not {code}:\n{log}")


def _wait(child: int) -> int:
    """Waits for the end of a run; returns its exit code. A run that hangs is killed."""
    deadline = time.monotonic() + 10 * _END_SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def _workers_of(child: int, count: int) -> list[int]:
    """The processes of a run's workers, by rank, once all have been started."""
    path = Path(f"/proc/{child}/task/{child}/children")
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if len(found := path.read_text().split()) == count:
                return [*map(int, found)]
        time.sleep(0.005)
    raise RuntimeError(f"process {child} has not started {count} workers")


def _stopped(kind: Kind, path: Path, workers: int, share: float) -> Iterator[str]:
    """Stops a run by a SIGTERM to one worker, once it has come some way from where it began."""
    child = kind.start(path, workers)
    one = child if workers == 1 else _workers_of(child, workers)[-1]
    index = path / "checkpoint"
    begun = index.stat().st_mtime_ns if index.exists() else 0
    deadline = time.monotonic() + _END_SECONDS
    while not index.exists() or index.stat().st_mtime_ns == begun:
        if os.waitpid(child, os.WNOHANG)[0]:
            yield "a run was over before it could be stopped"
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the run in {path} does not begin")
        time.sleep(0.005)
    time.sleep(share)
    with suppress(ProcessLookupError):
        os.kill(one, signal.SIGTERM)
    yield f"stopped by a signal to one worker, exit code {_wait(child)}"


def _killed(kind: Kind, path: Path, draw: random.Random, seconds: float) -> Counter[str]:
    """Kills one worker of a run; returns what was seen, nothing where it was over before."""
    count = draw.choice(_WORKERS[1:])
    child = kind.start(path, count)
    victim = draw.choice(_workers_of(child, count))
    time.sleep(draw.uniform(0, seconds))
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    code = _wait(child)
    took = time.monotonic() - killed
    if code == 0:
        return Counter()
    found = Counter([f"killed one of {count} workers, exit code {code}"])
    found["the others ended within 5 s"] += took <= _ENOUGH_SECONDS
    found["LOST: the others did not end"] += took > _END_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(child, 0)  # With the last process, its port is free.
        found["LOST: a process was left"] += 1
        os.killpg(child, signal.SIGKILL)
    return +found


def make_kinds(folder: Path, steps: int) -> list[Kind]:
    """The CNN with all that can be switched on, the MLP, a fine-tuned CNN, and the line."""
    images, digits = folder / "images.npz", folder / "digits"
    random_numbers = np.random.default_rng(0)
    pixels = random_numbers.integers(0, 256, (_EXAMPLES, 32, 32, 3)).astype(np.uint8)
    np.savez(images, X=pixels, Y=np.arange(_EXAMPLES) % 4)
    _write_digits(digits, random_numbers)

    def settings(path: str, *, keep_best: bool = True) -> RunConfig:
        often: dict[str, Any] = {"save_every_steps": 5, "log_every_steps": 10}
        return RunConfig(path, **often, max_to_keep=KEEP, keep_best=keep_best)

    def cnn(path: str) -> CnnConfig:
        return CnnConfig(
            settings(path),
            data=str(images),
            validation_fraction=0.2,
            train_steps=steps,
            batch_size=_BATCH_SIZE,
            schedule="cosine",
            warmup_steps=5,
            augment=True,
        )

    def mlp(path: str) -> MlpConfig:
        return MlpConfig(
            settings(path), data_dir=str(digits), batch_size=_BATCH_SIZE, train_steps=steps
        )

    def finetuned(path: str) -> FinetuneConfig:
        return FinetuneConfig(
            run=settings(path),
            meta=str(folder / "base"),
            tensor="fc2/add:0",
            train_scopes=("fc1", "fc2"),
            data=str(images),
            validation_fraction=0.2,
            train_steps=steps,
            batch_size=_BATCH_SIZE,
        )

    def linear(path: str) -> LinearConfig:
        return LinearConfig(
            RunConfig(path, save_every_steps=5, log_every_steps=10, max_to_keep=KEEP), steps
        )

    base = replace(cnn(str(folder / "base")), train_steps=10)
    _expect(0, _wait(Kind("base", lambda _: base, train_cnn).start(folder / "base", 1)), folder)
    return [
        Kind("cnn", cnn, train_cnn),
        Kind("mlp", mlp, train_mlp),
        Kind("fine-tuned", finetuned, train_finetuned),
        Kind("linear", linear, train_linear),
    ]


def _write_digits(folder: Path, random_numbers: np.random.Generator) -> None:
    """The four files of MNIST with random pixels; the format is that of yann.lecun.com/exdb."""
    folder.mkdir()
    for part, count in (("train", _EXAMPLES), ("t10k", 40)):
        pixels = random_numbers.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = struct.pack(">4B3i", 0, 0, 8, 3, *pixels.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = struct.pack(">4Bi", 0, 0, 8, 1, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


if __name__ == "__main__":
    run(main, Request, __doc__)
