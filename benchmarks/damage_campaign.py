"""Damages files of real runs at random, reruns them, and compares every byte.

  python -m benchmarks.damage_campaign --damages=1000

Each time, one file of a stopped run (tensors, index, graph, manifest or state file) has a bit
flipped, is cut short, is overwritten with zeros in a part, or is deleted; then the run is continued
to its end and compared with one that was never stopped. Exits 1 when anything wrong was not found.
"""

import functools
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import TestCase

from benchmarks.measuring import LASTING, lasting, report, run_flags, train_line, train_network
from cli.fields import flag
from cli.run import run
from cli.terminal import import_tensorflow

_TRAINERS: Mapping[str, Callable[..., None]] = {
    "linear": train_line,
    "cnn": functools.partial(train_network, "--data=ramp"),
}
_HALF, _WHOLE = 30, 40  # Steps; each is logged as the last of its run, so 10 divides both.
_EVERY = (5, 10)  # steps are saved, and logged


class Run(NamedTuple):
    """One kind of run."""

    train: Callable[..., None]  # Takes the flags of a run.
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
    return report(request.damages, "damages", request.seed, run_campaign)


def run_campaign(folder: Path, damages: int, seed: int) -> Counter[str]:
    """Damages so many files, in turn of each kind of run; `seed` draws file, kind and place.

    Returns:
      How often each thing was seen; what must not be begins with LOST.
    """
    draw = random.Random(seed)  # noqa: S311 (damage, not secrets)
    found: Counter[str] = Counter()
    with open(os.devnull, "w") as silence, redirect_stderr(silence):
        runs = [prepare(folder, name) for name in _TRAINERS]
        for number in range(damages):
            each = runs[number % len(runs)]
            path = folder / f"damaged-{number}"
            shutil.copytree(each.stopped, path)
            kind, name = _damage(path, draw)
            found[f"{kind} {_part(name)}"] += 1
            lost_manifest = kind == "delete" and _part(name) == "manifest"
            found[go_on(each, path, name, lost_manifest=lost_manifest)] += 1
            shutil.rmtree(path)
    return found


def prepare(folder: Path, name: str) -> Run:
    """Trains the model of this name twice: to the end, and half way."""
    train = _TRAINERS[name]
    unbroken, stopped = folder / f"{name}-unbroken", folder / f"{name}-stopped"
    train(*run_flags(unbroken, _WHOLE, *_EVERY))
    train(*run_flags(stopped, _HALF, *_EVERY))
    return Run(train, stopped, lasting(unbroken))


def _damage(path: Path, draw: random.Random) -> tuple[str, str]:
    """Damages one file of the folder; returns how, and its name."""
    names = sorted(p.name for p in path.iterdir() if p.name.startswith(("my-model-", "checkpoint")))
    names += 2 * [n for n in names if f"-{_HALF}." in n]  # The newest is what a rerun starts from.
    name, kind = draw.choice(names), draw.choice(("flip", "truncate", "zeros", "delete"))
    file = path / name
    content = bytearray(file.read_bytes())
    place = draw.randrange(len(content))
    if kind == "flip":
        content[place] ^= 1 << draw.randrange(8)
    elif kind == "truncate":
        del content[place:]
    else:
        end = min(len(content), place + draw.choice((1, 16, 512, 4096, len(content))))
        content[place:end] = bytes(end - place)
    file.write_bytes(content)
    if kind == "delete":
        file.unlink()
    return kind, name


def _part(name: str) -> str:
    """Which part of a checkpoint a file is."""
    return Path(name).suffix.split("-")[0].lstrip(".") or "state"


def go_on(each: Run, path: Path, damaged: str, *, lost_manifest: bool) -> str:
    """Continues a run in `path`, a damaged copy of where it stopped, to its end.

    `lost_manifest` says whether the damage is that a manifest was deleted. Returns what was seen.
    """
    from errors import CheckpointError, TrainingError

    try:
        with TestCase().assertLogs("absl") as log:  # A run always logs where it begins.
            each.train(*run_flags(path, _WHOLE, *_EVERY))
    except (CheckpointError, TrainingError):
        return "LOST: the run does not go on"
    text = "\n".join(log.output)
    if "at step 0" in text:
        return "LOST: the run started over"
    if not _equal(lasting(path), each.expected, lost_manifest=lost_manifest):
        return f"LOST: wrong bytes after damage to {_part(damaged)}"
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
