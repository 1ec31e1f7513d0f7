"""The names of a checkpoint's files, and which checkpoints of a folder stay.

A file is `<folder>/my-model-<step>.<suffix>`. Which stay is a function of what the folder holds,
not of what a process remembers.
"""

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

BASENAME = "my-model"
INDEX_SUFFIX = ".index"
DATA_SUFFIX = ".data-00000-of-00001"
META_SUFFIX = ".meta"
MANIFEST_SUFFIX = ".manifest"
PENDING_SUFFIX = MANIFEST_SUFFIX + ".tmp"
# The files a manifest vouches for, in the order they are written.
CONTENT_SUFFIXES = (DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX)
STATE_FILE = "checkpoint"
# What a save writes, and the names under which TensorFlow writes the variables at first. All else
# is someone else's file, such as my-model-100.npz or my-model-0100.meta.
_SUFFIXES = "|".join(map(re.escape, (*CONTENT_SUFFIXES, MANIFEST_SUFFIX, PENDING_SUFFIX)))
_UNFINISHED = rf"(?:{re.escape(DATA_SUFFIX)}|{re.escape(INDEX_SUFFIX)})\.tempstate\d+"
_CHECKPOINT_FILE = re.compile(rf"{BASENAME}-(0|[1-9]\d*)({_SUFFIXES}|{_UNFINISHED})", re.ASCII)


def checkpoint_name(step: int) -> str:
    """`my-model-<step>`, the checkpoint after `step` updates."""
    return f"{BASENAME}-{step}"


def checkpoint_prefix(folder: str, step: int) -> str:
    """`<folder>/my-model-<step>`: what TensorFlow restores from."""
    return os.path.join(folder, checkpoint_name(step))


def split_name(file_name: str) -> tuple[int, str] | None:
    """The step and the suffix of a checkpoint's file; None for any other file."""
    match = _CHECKPOINT_FILE.fullmatch(file_name)
    return (int(match[1]), match[2]) if match else None


# Which checkpoints stay: a function of what the folder holds, not of what a process remembers.

_SECONDS_PER_HOUR = 3600.0


class Retention(NamedTuple):
    """How many checkpoints stay.

    Attributes:
      max_to_keep: the newest that stay, at least 1; 0 keeps all.
      every_n_hours: beside them, the first of each such span stays; 0 keeps none beside them.
      keep_best: beside them, the one with the best test accuracy stays.
      damaged: steps that are not kept as the best, whatever their manifests say.
    """

    max_to_keep: int
    every_n_hours: float = 0.0
    keep_best: bool = False
    damaged: frozenset[int] = frozenset()


class Saved(NamedTuple):
    """What decides about a checkpoint.

    Attributes:
      step: updates done.
      saved_at: in seconds since 1970.
      test_accuracy: in [0, 1]; None where it was not measured.
    """

    step: int
    saved_at: float
    test_accuracy: float | None = None


def best_first(saved: Iterable[Saved]) -> list[Saved]:
    """Those that have a test accuracy, the best first, the earliest of equals first."""
    measured = [(-s.test_accuracy, s.step, s) for s in saved if s.test_accuracy is not None]
    return [s for _, _, s in sorted(measured)]


def steps_to_delete(saved: Sequence[Saved], retention: Retention) -> list[int]:
    """The steps that go, oldest first.

    Args:
      saved: the folder's committed checkpoints, by rising step.
      retention: what stays.
    """
    if retention.max_to_keep == 0:
        return []
    older = saved[: -retention.max_to_keep]
    kept = _first_of_each_span(older, retention.every_n_hours) if retention.every_n_hours else set()
    if retention.keep_best:
        ranked = best_first(s for s in saved if s.step not in retention.damaged)
        kept.update(best.step for best in ranked[:1])
    return [checkpoint.step for checkpoint in older if checkpoint.step not in kept]


def _first_of_each_span(saved: Sequence[Saved], hours: float) -> set[int]:
    last_kept, kept = None, set()
    for checkpoint in saved:
        elapsed = math.inf if last_kept is None else checkpoint.saved_at - last_kept
        # One before the last was saved under another clock: neither span tells of the other.
        is_earlier = -math.inf < elapsed < 0
        if elapsed >= hours * _SECONDS_PER_HOUR or is_earlier:
            last_kept = checkpoint.saved_at
            kept.add(checkpoint.step)
    return kept
