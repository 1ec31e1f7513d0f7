"""Which checkpoints stay: a function of what the folder holds, not of what a process remembers."""

from collections.abc import Sequence
from typing import NamedTuple

_SECONDS_PER_HOUR = 3600.0


class Retention(NamedTuple):
    """How many checkpoints stay.

    Attributes:
      max_to_keep: the newest that stay, at least 1; 0 keeps all.
      every_n_hours: beside them, the first of each such span stays; 0 keeps none beside them.
    """

    max_to_keep: int
    every_n_hours: float = 0.0


class Saved(NamedTuple):
    """A checkpoint's step, and when it was saved, in seconds since 1970."""

    step: int
    saved_at: float


def steps_to_delete(saved: Sequence[Saved], retention: Retention) -> list[int]:
    """The steps that go, oldest first.

    Args:
      saved: the folder's committed checkpoints, by rising step.
      retention: what stays.
    """
    if retention.max_to_keep == 0:
        return []
    candidates = saved[: -retention.max_to_keep]
    if not retention.every_n_hours:
        return [checkpoint.step for checkpoint in candidates]
    span = retention.every_n_hours * _SECONDS_PER_HOUR
    last_kept, doomed = None, []
    for checkpoint in candidates:
        if last_kept is None or checkpoint.saved_at - last_kept >= span:
            last_kept = checkpoint.saved_at
        else:
            doomed.append(checkpoint.step)
    return doomed
