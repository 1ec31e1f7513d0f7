"""Kills real training runs at random instants, reruns them, and compares every byte.

  python -m benchmarks.kill_campaign --kills=1000
  python -m benchmarks.kill_campaign --kills=200 --shards=4

Each kind of run is trained to its end; then in parts, stopped by SIGTERM. Then runs are killed with
SIGKILL, each at an instant drawn uniformly from the time that an unbroken one takes, saves
included, and go on to their end, every other one of a kind after a SIGTERM. With shards the runs
are on 1, 2 or 4 workers, and one of 2 or 4 is killed. TensorFlow is imported once; the processes
are forked before any session exists. Exits 1 when anything was lost, or a process was left.
"""

import logging
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import finetune
from benchmarks import measuring
from benchmarks.measuring import CNN, LINE, Trainer
from cli.fields import flag
from cli.run import run
from cli.terminal import import_tensorflow
from finetuning import FinetuneConfig

_EXAMPLES = 240
_END_SECONDS = 60.0  # Many times what a start takes, and an end after a signal.
_ENOUGH_SECONDS = 5.0  # What the other workers should need.

Ends: TypeAlias = dict[str, object]  # What lasts of a run, by name.
_Seen = TypeVar("_Seen")


@dataclass(frozen=True)
class Request:
    """What the campaign is asked for."""

    kills: int = flag("Runs to kill.", 1000, low=0)
    shards: int = flag("Of each batch: 1, or 4 for runs on 1, 2 and 4 workers.", 1, low=1)
    steps: int = flag("Steps of each run.", 200, low=40)
    seed: int = flag("Draws the instants, the workers and their numbers.", 0, low=0)


def main(request: Request) -> int:
    """Runs the campaign and prints what was found."""
    import_tensorflow(intra_op_threads=1)  # As train_linear.py and train_cnn.py have them.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # It tells of every restart.
    return measuring.report(request.kills, "kills", partial(run_campaign, request))


def run_campaign(request: Request, folder: Path) -> Counter[str]:
    """Kills runs, in turn of each kind; returns how often each thing was seen.

    What must not be begins with LOST.
    """
    draw = random.Random(request.seed)  # noqa: S311 (instants, not secrets)
    found: Counter[str] = Counter()
    trainers = make_trainers(folder, request.steps, request.shards)
    counts = (1,) if request.shards == 1 else (1, 2, 4)
    # Where a run was stopped, there may be a checkpoint in place of an older one.
    last = partial(_of_end, steps=request.steps)
    unbroken, seconds = dict[str, Ends](), dict[str, float]()
    for name, trainer in trainers.items():
        alone = _finish(trainer, folder / f"{name} on one thread", "--intra_op_threads=1")
        for count in counts:
            began = time.monotonic()
            ended = _finish(trainer, folder / f"{name} on {count}", f"--workers={count}")
            found.update(_compared(f"{name}, on {count} workers", alone, ended))
            seconds[name] = time.monotonic() - began
        path, unbroken[name] = folder / f"{name} moved", alone
        for count in (1, counts[-1], counts[len(counts) // 2]):
            found.update(_stopped(trainer, path, count, draw.uniform(0, seconds[name] / 10)))
        ends = alone, _finish(trainer, path)
        found.update(_compared(f"{name}, stopped three times", *map(last, ends)))
    for number in range(request.kills):
        name = [*trainers][number % len(trainers)]
        trainer, path = trainers[name], folder / f"killed {number}"
        count = draw.choice(counts[-2:])
        while not (seen := [*_killed(trainer, path, count, draw, seconds[name])]):
            shutil.rmtree(path, ignore_errors=True)
        found.update([*seen, *_look(path)])
        what, is_stopped = f"{name}, after a kill", number // len(trainers) % 2 == 1
        if is_stopped:
            found.update(_stopped(trainer, path, count, draw.uniform(0, seconds[name] / 10)))
        ends = unbroken[name], _finish(trainer, path, f"--workers={draw.choice(counts)}")
        if is_stopped:
            what, ends = f"{what} and a stop", (last(ends[0]), last(ends[1]))
        found.update(_compared(what, *ends))
        shutil.rmtree(path, ignore_errors=True)
    return found


def make_trainers(folder: Path, steps: int, shards: int) -> dict[str, Trainer]:
    """The line; the CNN on images with all that can be switched on; the MLP; a fine-tuned CNN.

    Without shards, which do not divide its batch of 10, also the CNN on the ramp.
    """
    images, digits, base = folder / "images", folder / "digits", folder / "base"
    measuring.write_image_files(images, _EXAMPLES)
    measuring.write_digits(digits, _EXAMPLES)
    every = (*measuring.run_flags(steps, save_every=5, log_every=10), f"--shards={shards}")
    some = (*every, "--batch_size=16", "--keep_best")
    held_out = (*some, f"--data={images}", "--validation_fraction=0.2")
    changing = ("--augment", "--schedule=cosine", "--learning_rate=1e-3", "--warmup_steps=5")
    added = ("--weight_decay=0.1", "--clip_norm=1", "--label_smoothing=0.1", "--ema_decay=0.9")
    cut = (f"--meta={base}", "--tensor=fc2/add:0", "--train_scopes=fc1,fc2")
    cnn = CNN._replace(flags=(*held_out, *changing, *added))
    _finish(cnn, base, "--train_steps=10")
    trainers = {
        "linear": LINE._replace(flags=every),
        "cnn on images": cnn,
        "mlp": measuring.MLP._replace(flags=(*some, f"--data_dir={digits}")),
        "fine-tuned": Trainer(finetune, FinetuneConfig, (*held_out, *cut, *added)),
    }
    if shards == 1:
        trainers["cnn on the ramp"] = CNN._replace(flags=(*every, "--data=ramp"))
    return trainers


def _start(trainer: Trainer, path: Path, *more: str) -> int:
    """Starts a run in a process group of its own; returns its number."""

    def work() -> None:
        os.setsid()
        os._exit(trainer.train(path, *more).exit_code)

    return measuring.fork(work, f"{path}.log")


def _finish(trainer: Trainer, path: Path, *more: str) -> Ends:
    """Trains to the end; returns what lasts: files, metrics, and the steps TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if code := _wait(_start(trainer, path, *more)):
        log = Path(f"{path}.log").read_text(errors="replace")
        raise RuntimeError(f"the run in {path} ended with {code}:\n{log}")
    events = EventAccumulator(str(path / "logs"))
    events.Reload()
    return {
        **measuring.lasting(path),
        "events": [scalar.step for scalar in events.Scalars("loss")],
        "names of files": sorted(file.name for file in path.iterdir()),
    }


def _until(look: Callable[[], _Seen], seconds: float) -> _Seen:
    """What is seen at last, looking again and again while it is nothing, for so long."""
    deadline = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return seen


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait(child: int) -> int:
    """Waits for the end of a run; returns its exit code. A run that hangs is killed."""
    if not _until(partial(_has_ended, child), 10 * _END_SECONDS):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _workers_of(child: int, count: int) -> list[int]:
    """The processes of a run's workers, by rank, once all have been started."""
    if count == 1:
        return [child]
    path = Path(f"/proc/{child}/task/{child}/children")

    def look() -> list[int]:
        with suppress(OSError):
            if len(found := path.read_text().split()) == count:
                return [*map(int, found)]
        return []

    if workers := _until(look, _END_SECONDS):
        return workers
    os.killpg(child, signal.SIGKILL)
    raise RuntimeError(f"process {child} has not started {count} workers")


def _stopped(trainer: Trainer, path: Path, count: int, seconds: float) -> Iterator[str]:
    """Stops a run by a SIGTERM to one worker, some time after its first save from here on."""
    state = path / "checkpoint"

    def saved() -> int:
        return state.stat().st_mtime_ns if state.exists() else 0

    begun, child = saved(), _start(trainer, path, f"--workers={count}")
    one = _workers_of(child, count)[-1]
    if not _until(lambda: saved() != begun or _has_ended(child), _END_SECONDS):
        os.killpg(child, signal.SIGKILL)
    if _has_ended(child):
        code = _wait(child)
        by_itself = f"LOST: a run ended by itself with {code}"
        yield by_itself if code else "a run was over before it could be stopped"
        return
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(one, signal.SIGTERM)
    code = _wait(child)
    yield f"{'' if code in (0, 143) else 'LOST: '}stopped by SIGTERM, exit code {code}"


def _killed(
    trainer: Trainer, path: Path, count: int, draw: random.Random, seconds: float
) -> Iterator[str]:
    """Kills one worker of a run; yields what was seen, nothing where it was over before."""
    child = _start(trainer, path, f"--workers={count}")
    victim = draw.choice(_workers_of(child, count))
    time.sleep(draw.uniform(0, seconds))
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    if (code := _wait(child)) == 0:
        return
    took = time.monotonic() - killed
    # A single one cannot say anything any more; of several, the others end with 1.
    expected = -signal.SIGKILL if count == 1 else 1
    yield f"{'' if code == expected else 'LOST: '}killed one of {count} workers, exit code {code}"
    if count > 1 and took <= _ENOUGH_SECONDS:
        yield "the others ended within 5 s"
    if took > _END_SECONDS:
        yield "LOST: the others did not end"
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # With the last process, its port is free.
        yield "LOST: a process was left"


def _look(path: Path) -> Iterator[str]:
    """What a killed run has left: where it was caught, and whether its newest is whole."""
    from checkpoints import folder, layout
    from errors import CheckpointError

    by_step = folder.files_by_step(str(path))
    committed = folder.committed_steps(str(path))
    if not committed:
        yield "killed before the first checkpoint"
    if any(map(layout.is_leftover, by_step.values())):
        yield "killed while saving or deleting"
    # Beside them the best, and one that is not deleted yet: the best before it, or the oldest.
    if len(committed) > measuring.KEEP + 2:
        yield "LOST: more checkpoints than are kept"
    for step in committed:
        if layout.META_SUFFIX not in by_step[step]:
            yield "LOST: a committed checkpoint without its graph"
        try:
            layout.verify_checkpoint(layout.checkpoint_prefix(str(path), step))
        except CheckpointError:
            yield "LOST: a committed checkpoint is damaged"


def _of_end(ends: Ends, steps: int) -> Ends:
    """Of what lasts, the files of the last step and what covers all steps."""
    return {k: v for k, v in ends.items() if f"-{steps}." in k or k in ("metrics", "events")}


def _compared(what: str, expected: Ends, found: Ends) -> Iterator[str]:
    """One entry for a run that ended as the unbroken one, or for each thing in which it did not."""
    names = expected.keys() | found.keys()
    different = sorted(name for name in names if expected.get(name) != found.get(name))
    if not different:
        yield f"{what}: ended as the unbroken run"
    for name in different:
        yield f"LOST: {what}: other {name}"


if __name__ == "__main__":
    run(main, Request, __doc__)
