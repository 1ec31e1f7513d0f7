"""Kills real training runs at random instants, reruns them, and compares every byte.

  python -m benchmarks.kill_campaign --kills=1000
  python -m benchmarks.kill_campaign --kills=200 --shards=4

Each kind of run is trained to its end; then in parts, stopped by SIGTERM. Then runs are killed with
SIGKILL, each at an instant drawn uniformly from the time that an unbroken one takes, saves
included, and go on to their end. With shards all this is on 1, 2 and 4 workers in turn, and one of
them is killed. TensorFlow is imported once; the processes are forked before any session exists.
Exits 1 when anything was lost, or a process was left.
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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import finetune
import train_cnn
import train_linear
import train_mlp
from benchmarks.measuring import KEEP, fork, lasting, report, run_flags, write_image_files
from cli.fields import flag, parse
from cli.run import run
from cli.terminal import import_tensorflow
from finetuning import FinetuneConfig
from training.place import take_place

_EXAMPLES = 240
_END_SECONDS = 60.0  # From a signal on, many times what it takes.
_ENOUGH_SECONDS = 5.0  # What the other workers should need.


@dataclass(frozen=True)
class Request:
    """What the campaign is asked for."""

    kills: int = flag("How many.", 1000, low=0)
    shards: int = flag("Of each batch: 4 for runs on 1, 2 and 4 workers.", 1, low=1)
    steps: int = flag("Steps of each run.", 200, low=40)
    seed: int = flag("Draws what happens.", 0, low=0)


class Kind(NamedTuple):
    """A kind of run: what trains it, and its flags."""

    name: str
    trainer: ModuleType
    config: type
    flags: tuple[str, ...]

    def start(self, path: Path, *more: str) -> int:
        """Starts a run in a process group of its own; returns its number."""

        def work() -> None:
            os.setsid()
            given = [f"{path.name}.py", *self.flags, f"--ckpt_dir={path}", *more]
            config: Any = parse(self.config, given)
            take_place(config.run)
            os._exit(self.trainer.train(config).exit_code)

        return fork(work, f"{path}.log")

    def finish(self, path: Path, *more: str) -> dict[str, object]:
        """Trains to the end; returns what lasts of the run."""
        if code := _wait(self.start(path, *more)):
            log = Path(f"{path}.log").read_text(errors="replace")
            raise RuntimeError(f"the run in {path} ended with {code}:\n{log}")
        return _finished(path)


def main(request: Request) -> int:
    """Runs the campaign and prints what was found."""
    import_tensorflow(intra_op_threads=1)  # As train_linear.py and train_cnn.py have them.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # It tells of every restart.
    work = functools.partial(run_campaign, shards=request.shards, steps=request.steps)
    return report(request.kills, "kills", request.seed, work)


def run_campaign(folder: Path, kills: int, seed: int, shards: int, steps: int) -> Counter[str]:
    """Kills so many runs, in turn of each kind; `seed` draws instants, workers and their numbers.

    Returns:
      How often each thing was seen; what must not be begins with LOST.
    """
    draw = random.Random(seed)  # noqa: S311 (instants, not secrets)
    found: Counter[str] = Counter()
    kinds = make_kinds(folder, steps, shards)
    counts = (1,) if shards == 1 else (1, 2, 4)
    unbroken, seconds = dict[str, dict[str, object]](), dict[str, float]()
    for kind in kinds:
        alone = kind.finish(folder / f"{kind.name} on one thread", "--intra_op_threads=1")
        unbroken[kind.name] = alone
        for count in counts:
            began, path = time.monotonic(), folder / f"{kind.name} on {count}"
            differences = _differences(alone, kind.finish(path, f"--workers={count}"))
            found.update(_told(kind, f"on {count} workers", differences))
            seconds[kind.name] = time.monotonic() - began
        path = folder / f"{kind.name} moved"
        for count in (1, counts[-1], counts[len(counts) // 2]):
            found.update(_stopped(kind, path, count, draw.uniform(0, seconds[kind.name] / 10)))
        # Where it was stopped, there may be a checkpoint in place of an older one.
        last = [d for d in _differences(alone, kind.finish(path)) if _is_last(d, steps)]
        found.update(_told(kind, "stopped three times", last))
    for number in range(kills):
        kind, path = kinds[number % len(kinds)], folder / f"killed {number}"
        count = draw.choice(counts[-2:])
        while not (seen := _killed(kind, path, count, draw, seconds[kind.name])):
            shutil.rmtree(path, ignore_errors=True)
        found.update(seen + _look(path))
        ended = kind.finish(path, f"--workers={draw.choice(counts)}")
        found.update(_told(kind, "after a kill", _differences(unbroken[kind.name], ended)))
        shutil.rmtree(path, ignore_errors=True)
    return found


def make_kinds(folder: Path, steps: int, shards: int) -> list[Kind]:
    """The line; the CNN on images with all that can be switched on; the MLP; a fine-tuned CNN.

    Without shards, which do not divide its batch of 10, also the CNN on the ramp.
    """
    images, digits, base = folder / "images", folder / "digits", folder / "base"
    write_image_files(images, _EXAMPLES)
    _write_digits(digits)
    every = (*run_flags(base, steps, 5, 10)[1:], f"--shards={shards}")
    some = (*every, "--batch_size=16", "--keep_best")
    held_out = (*some, f"--data={images}", "--validation_fraction=0.2")
    changing = ("--augment", "--schedule=cosine", "--learning_rate=1e-3", "--warmup_steps=5")
    added = ("--weight_decay=0.1", "--clip_norm=1", "--label_smoothing=0.1", "--ema_decay=0.9")
    cut = (f"--meta={base}", "--tensor=fc2/add:0", "--train_scopes=fc1,fc2")
    cnn = Kind("cnn on images", train_cnn, train_cnn.CnnConfig, (*held_out, *changing, *added))
    cnn.finish(base, "--train_steps=10")
    kinds = [
        Kind("linear", train_linear, train_linear.LinearConfig, every),
        cnn,
        Kind("mlp", train_mlp, train_mlp.MlpConfig, (*some, f"--data_dir={digits}")),
        Kind("fine-tuned", finetune, FinetuneConfig, (*held_out, *cut, *added)),
    ]
    if shards == 1:
        ramp = (*every, "--data=ramp")
        kinds.append(Kind("cnn on the ramp", train_cnn, train_cnn.CnnConfig, ramp))
    return kinds


def _write_digits(folder: Path) -> None:
    """The four files of MNIST with random pixels; the format is that of yann.lecun.com/exdb."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for part, count in (("train", _EXAMPLES), ("t10k", 40)):
        pixels = draw.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = struct.pack(">4B3i", 0, 0, 8, 3, *pixels.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = struct.pack(">4Bi", 0, 0, 8, 1, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


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
    if count == 1:
        return [child]
    path = Path(f"/proc/{child}/task/{child}/children")
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if len(found := path.read_text().split()) == count:
                return [*map(int, found)]
        time.sleep(0.005)
    raise RuntimeError(f"process {child} has not started {count} workers")


def _stopped(kind: Kind, path: Path, count: int, seconds: float) -> Iterator[str]:
    """Stops a run by a SIGTERM to one worker, some time after its first save from here on."""
    child = kind.start(path, f"--workers={count}")
    one = _workers_of(child, count)[-1]
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
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(one, signal.SIGTERM)
    yield f"stopped by SIGTERM, exit code {_wait(child)}"


def _killed(
    kind: Kind, path: Path, count: int, draw: random.Random, seconds: float
) -> Counter[str]:
    """Kills one worker of a run; returns what was seen, nothing where it was over before."""
    child = kind.start(path, f"--workers={count}")
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
    if count > 1:
        found["the others ended within 5 s"] += took <= _ENOUGH_SECONDS
    found["LOST: the others did not end"] += took > _END_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(child, 0)  # With the last process, its port is free.
        found["LOST: a process was left"] += 1
        os.killpg(child, signal.SIGKILL)
    return +found


def _look(path: Path) -> Counter[str]:
    """What a killed run has left: where it was caught, and whether its newest is whole."""
    from checkpoints import folder, naming
    from errors import CheckpointError

    by_step = folder.files_by_step(str(path))
    committed = folder.committed_steps(str(path))
    found = Counter({"killed before the first checkpoint": int(not committed)})
    found["killed while saving or deleting"] += any(map(naming.is_leftover, by_step.values()))
    # Beside them the best, and one that is not deleted yet: the best before it, or the oldest.
    found["LOST: more checkpoints than are kept"] += len(committed) > KEEP + 2
    for step in committed:
        found["LOST: a committed checkpoint without its graph"] += (
            naming.META_SUFFIX not in by_step[step]
        )
        try:
            naming.verify_checkpoint(naming.checkpoint_prefix(str(path), step))
        except CheckpointError:
            found["LOST: a committed checkpoint is damaged"] += 1
    return +found


def _finished(path: Path) -> dict[str, object]:
    """What lasts of a finished run: its files, metrics, and steps as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "logs"))
    events.Reload()
    return {
        **lasting(path),
        "events": [scalar.step for scalar in events.Scalars("loss")],
        "names of files": sorted(file.name for file in path.iterdir()),
    }


def _differences(expected: dict[str, object], found: dict[str, object]) -> list[str]:
    """The things in which a run's end is not that of the unbroken run."""
    return sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))


def _is_last(name: str, steps: int) -> bool:
    """Whether it is of the last step, or of all."""
    return f"-{steps}." in name or name in ("metrics", "events")


def _told(kind: Kind, how: str, differences: list[str]) -> Iterator[str]:
    """One entry for a run that ended as the unbroken one, or for each thing in which it did not."""
    if not differences:
        yield f"{kind.name}, {how}: ended as the unbroken run"
    for name in differences:
        yield f"LOST: {kind.name}, {how}: other {name}"


if __name__ == "__main__":
    run(main, Request, __doc__)
