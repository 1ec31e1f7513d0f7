"""Keeps a folder of checkpoints as it should be, and finds the best one in it.

The oldest checkpoints go, the state file names the newest, what was cut short is cleared. Which
ones stay is a function of what the folder holds, not of what a process remembers.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from absl import logging

from checkpoints import folder, manifest, naming
from errors import CheckpointError

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


# What follows for the folder.


def _saved(path: str, step: int) -> Saved:
    """What the manifest of a checkpoint says; one that is damaged makes it the oldest of all."""
    try:
        found = manifest.read(path, step)
    except CheckpointError:
        found = None
    return Saved(step, found.saved_at, found.test_accuracy) if found else Saved(step, -math.inf)


def after_save(path: str, newest: int, retention: Retention) -> bool:
    """Writes the state file, then lets the oldest checkpoints go.

    A checkpoint of a later step than `newest` has been stepped over as damaged. It counts for
    nothing here: it neither takes the place of a good one nor goes before it is written again. One
    that another process is reading goes with a later save.

    Returns whether the state file was another before.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    found = folder.files_by_step(path)
    steps = [step for step in found if step <= newest and naming.is_committed(found[step])]
    # Where the order alone decides, no manifest has to be read.
    by_manifest = retention.every_n_hours or retention.keep_best
    saved = [_saved(path, step) if by_manifest else Saved(step, -math.inf) for step in steps]
    doomed = steps_to_delete(saved, retention)
    kept = [step for step in steps if step not in doomed]
    rewritten = bool(kept) and folder.write_state(path, kept)
    for step in doomed:
        if not folder.is_held(naming.checkpoint_prefix(path, step)):
            folder.delete_files(path, step, found[step])
    return rewritten


def at_start(path: str, newest: int | None, retention: Retention) -> Retention:
    """Puts right what a run that was cut short, or damage, has left.

    Returns what stays from here on: a best that is damaged is not kept as such. `newest` is the
    step that was restored; None where there was no checkpoint.
    """
    for step in folder.delete_leftovers(path):
        logging.info("cleared what was left of an interrupted save of step %d", step)
    if newest is None:
        return retention
    if retention.keep_best:
        steps = [step for step in folder.committed_steps(path) if step <= newest]
        _, damaged = _best(path, steps, "not kept as the best: %s")
        retention = retention._replace(damaged=frozenset(damaged))
    if after_save(path, newest, retention):
        logging.info("rewrote the state file of %s, which did not name what is there", path)
    return retention


def best_checkpoint(path: str) -> str:
    """The prefix of the checkpoint with the best test accuracy, the earliest of equals.

    What is damaged is stepped over, with a line each.

    Raises:
      CheckpointError: no checkpoint of the folder says its test accuracy, or all that do are
        damaged.
    """
    best, damaged = _best(path, folder.committed_steps(path), "stepping over the best: %s")
    if best is not None:
        return naming.checkpoint_prefix(path, best)
    if damaged:
        raise CheckpointError(
            f"{path}: each of the {len(damaged)} checkpoints that say their test accuracy is "
            "damaged"
        )
    raise CheckpointError(
        f"{path} has no checkpoint that says its test accuracy, as those of a training with "
        "--keep_best do"
    )


def _best(path: str, steps: Iterable[int], warning: str) -> tuple[int | None, list[int]]:
    """The best undamaged one of these steps, and those that would be better if they were whole."""
    damaged: list[int] = []
    for found in best_first(_saved(path, step) for step in steps):
        try:
            manifest.verify_checkpoint(naming.checkpoint_prefix(path, found.step))
        except CheckpointError as error:
            logging.warning(warning, error)
            damaged.append(found.step)
        else:
            return found.step, damaged
    return None, damaged
