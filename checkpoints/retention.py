"""Which checkpoints stay: a function of what the folder holds, not of what a process remembers."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_SECONDS_PER_HOUR = 3600.0


class Retention(NamedTuple):
    """How many checkpoints stay."""

    max_to_keep: int  # The newest that stay, at least 1; 0 keeps all.
    every_n_hours: float = 0.0  # Beside them, the first of each such span; 0 keeps none.
    keep_best: bool = False  # Beside them, the one with the best test accuracy stays.
    damaged: frozenset[int] = frozenset()  # Not kept as the best, whatever their manifests say.


class Saved(NamedTuple):
    """What decides about a checkpoint: its step, when it was saved, and how good it is."""

    step: int
    saved_at: float  # Seconds since 1970.
    test_accuracy: float | None = None  # In [0, 1]; None where it was not measured.


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
    """The steps of those that lie at least so many hours apart."""
    last_kept, kept = None, set()
    for checkpoint in saved:
        elapsed = math.inf if last_kept is None else checkpoint.saved_at - last_kept
        # One before the last was saved under another clock: neither span tells of the other.
        is_earlier = -math.inf < elapsed < 0
        if elapsed >= hours * _SECONDS_PER_HOUR or is_earlier:
            last_kept = checkpoint.saved_at
            kept.add(checkpoint.step)
    return kept
