"""Damages files of real runs at random, reruns them, and compares every byte.

  python -m benchmarks.damage_campaign --damages=1000

Each time, one file of a stopped run (tensors, index, graph, manifest or state file) has a bit
flipped, is cut short, is overwritten with zeros in a part, or is deleted; then the run is continued
to its end and compared with one that was never stopped. Exits 1 when anything wrong was not found.
"""

import os
import random
import shutil
from collections import Counter
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import TestCase

from benchmarks.measuring import CNN, LASTING, LINE, Trainer, lasting, report, run_flags
from cli.fields import flag
from cli.run import run
from cli.terminal import import_tensorflow

_HALF, _WHOLE = 30, 40  # Steps; each is logged as the last of its run, so 10 divides both.
_FLAGS = run_flags(_WHOLE, save_every=5, log_every=10)
LINEAR = LINE._replace(flags=_FLAGS)
_TRAINERS = (LINEAR, CNN._replace(flags=(*_FLAGS, "--data=ramp")))


class Run(NamedTuple):
    """One kind of run."""

    trainer: Trainer
    stopped: Path  # A folder in which it stopped half way.
    expected: dict[str, bytes]  # The lasting files of one that never stopped.


@dataclass(frozen=True)
class Request:
    """What the campaign is asked for."""

    damages: int = flag("How many.", 1000, low=1)
    seed: int = flag("Draws what happens.", 0, low=0)


def main(request: Request) -> int:
    """Runs the campaign and prints what was found."""
    import_tensorflow()
    work = partial(run_campaign, damages=request.damages, seed=request.seed)
    return report(request.damages, "damages", work)


def run_campaign(folder: Path, damages: int, seed: int) -> Counter[str]:
    """Damages so many files, in turn of each kind of run; `seed` draws file, kind and place.

    Returns:
      How often each thing was seen; what must not be begins with LOST.
    """
    draw = random.Random(seed)  # noqa: S311 (damage, not secrets)
    found: Counter[str] = Counter()
    with open(os.devnull, "w") as silence, redirect_stderr(silence):
        runs = [prepare(folder, trainer) for trainer in _TRAINERS]
        for number in range(damages):
            each, path = runs[number % len(runs)], folder / "damaged"
            shutil.copytree(each.stopped, path)
            damage = _damage(path, draw)
            found.update((damage, go_on(each, path, damage)))
            shutil.rmtree(path)
    return found


def prepare(folder: Path, trainer: Trainer) -> Run:
    """Trains twice: to the end, and half way."""
    unbroken, stopped = (folder / f"{trainer.script.__name__}-{n}" for n in (_WHOLE, _HALF))
    trainer.train(unbroken)
    trainer.train(stopped, f"--train_steps={_HALF}")
    return Run(trainer, stopped, lasting(unbroken))


def _damage(path: Path, draw: random.Random) -> str:
    """Damages one file of the folder; returns how, and which part of a checkpoint it is."""
    names = sorted(p.name for p in path.iterdir() if p.name.startswith(("my-model-", "checkpoint")))
    names += 2 * [n for n in names if f"-{_HALF}." in n]  # The newest is what a rerun starts from.
    file, kind = path / draw.choice(names), draw.choice(("flip", "truncate", "zeros", "delete"))
    content = bytearray(file.read_bytes())
    place = draw.randrange(len(content))
    if kind == "flip":
        content[place] ^= 1 << draw.randrange(8)
    elif kind == "truncate":
        del content[place:]
    elif kind == "zeros":
        end = min(len(content), place + draw.choice((1, 16, 512, 4096, len(content))))
        content[place:end] = bytes(end - place)
    file.write_bytes(content)
    if kind == "delete":
        file.unlink()
    return f"{kind} {file.suffix.split('-')[0].lstrip('.') or 'state'}"


def go_on(each: Run, path: Path, damage: str) -> str:
    """Continues a run in `path`, a damaged copy of where it stopped, to its end.

    The `damage` is how and to which part, such as "flip data". Returns what was seen.
    """
    from errors import CheckpointError, TrainingError

    try:
        with TestCase().assertLogs("absl") as log:  # A run always logs where it begins.
            each.trainer.train(path)
    except (CheckpointError, TrainingError):
        return "LOST: the run does not go on"
    text = "\n".join(log.output)
    if "at step 0" in text:
        return "LOST: the run started over"
    if not _equal(lasting(path), each.expected, lost_manifest=damage == "delete manifest"):
        return f"LOST: wrong bytes after damage to {damage.split()[1]}"
    if "stepping over" in text:
        return "found, said and stepped over"
    return "harmless: every byte as if there had been no damage"


def _equal(found: dict[str, bytes], expected: dict[str, bytes], *, lost_manifest: bool) -> bool:
    """Whether a run ended as it should.

    A checkpoint whose manifest was deleted is taken for someone else's: it may be restored, and is
    never deleted. So there may be more files, and the state file may name others.
    """
    if not lost_manifest:
        return found == expected
    names = [n for n in expected if n in found and n != "checkpoint"]
    newest = {f"my-model-{_WHOLE}{suffix}" for suffix in LASTING[:3]}
    return newest <= {*names} and all(found[n] == expected[n] for n in names)


if __name__ == "__main__":
    run(main, Request, __doc__)
