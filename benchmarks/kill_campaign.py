"""Kills real training runs at random instants, reruns them, and compares every byte.

  python -m benchmarks.kill_campaign --kills=1000

Each run is a process of its own, killed with SIGKILL at an instant drawn uniformly from the time an
unbroken run takes, saves included, and rerun to its end. TensorFlow is imported once; the processes
are forked before any session exists. Exits 1 when anything was lost.
"""

import logging
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.measuring import (
    KEEP,
    fork,
    lasting,
    report,
    run_flags,
    train_line,
    train_network,
    write_image_files,
)
from cli.fields import flag
from cli.run import run
from cli.terminal import import_tensorflow

Trainer: TypeAlias = Callable[[str], object]  # Trains to the end, in the folder it is given.


@dataclass(frozen=True)
class Request:
    """What the campaign is asked for."""

    kills: int = flag("How many.", 1000, low=1)
    seed: int = flag("Draws what happens.", 0, low=0)


def main(request: Request) -> int:
    """Runs the campaign and prints what was found."""
    import_tensorflow(intra_op_threads=1)  # As train_linear.py and train_cnn.py have them.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # It tells of every restart.
    return report(request.kills, "kills", request.seed, run_campaign)


def run_campaign(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kills so many runs, in turn of each kind, at instants that `seed` draws.

    Returns:
      How often each thing was seen; what must not be begins with LOST.
    """
    draw = random.Random(seed)  # noqa: S311 (instants, not secrets)
    found: Counter[str] = Counter()
    trainers = make_trainers(folder)
    unbroken = {name: _unbroken(train, folder / f"unbroken {name}") for name, train in trainers}
    for number in range(kills):
        name, train = trainers[number % len(trainers)]
        expected, seconds = unbroken[name]
        path = folder / f"killed-{number}"
        while not _kill_once(train, path, draw.uniform(0, seconds)):
            shutil.rmtree(path, ignore_errors=True)
        found.update(_look(path))
        _train_in_child(train, path)
        found.update(_differences(name, expected, _finished(path)))
        shutil.rmtree(path, ignore_errors=True)
    return found


def make_trainers(folder: Path) -> list[tuple[str, Trainer]]:
    """The line, the CNN on the ramp, and the CNN on images with all that can be switched on."""
    images = folder / "images"
    write_image_files(images, 32)

    everything_on = (
        *(f"--data={images}", "--validation_fraction=0.2", "--batch_size=7", "--augment"),
        *("--schedule=cosine", "--learning_rate=1e-3", "--warmup_steps=10", "--keep_best"),
    )
    return [
        ("linear", lambda path: train_line(*run_flags(path, 200, 2, 4))),
        ("cnn on the ramp", lambda path: train_network("--data=ramp", *run_flags(path, 120, 5, 4))),
        ("cnn on images", lambda path: train_network(*everything_on, *run_flags(path, 100, 3, 4))),
    ]


def _unbroken(train: Trainer, path: Path) -> tuple[dict[str, object], float]:
    """What an unbroken run leaves, and the seconds it takes."""
    started = time.monotonic()
    _train_in_child(train, path)
    return _finished(path), time.monotonic() - started


def _train_in_child(train: Trainer, path: Path) -> None:
    child = fork(lambda: train(str(path)))
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"the run in {path} did not train to its end")


def _kill_once(train: Trainer, path: Path, after_seconds: float) -> bool:
    """Trains and kills; False where the run was over before its time came."""
    child = fork(lambda: train(str(path)))
    time.sleep(after_seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _look(path: Path) -> Counter[str]:
    """What a killed run has left: where it was caught, and whether its newest is whole."""
    from checkpoints import folder, manifest, naming
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
            manifest.verify_checkpoint(naming.checkpoint_prefix(str(path), step))
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


def _differences(name: str, expected: dict[str, object], found: dict[str, object]) -> Counter[str]:
    """One entry for each thing in which a rerun's end is not that of the unbroken run."""
    if expected == found:
        return Counter({f"{name}: ended as the unbroken run": 1})
    others = (key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    return Counter(f"LOST: {name}: other {key}" for key in others)


if __name__ == "__main__":
    run(main, Request, __doc__)
