"""Keeps a folder as it should be: the oldest checkpoints gone, the state file naming the newest."""

import math

from absl import logging

from checkpoints import folder, manifest, naming
from checkpoints.errors import CheckpointError
from checkpoints.newest import is_held
from checkpoints.retention import Retention, Saved, best_first, steps_to_delete


def at_start(path: str, newest: int | None, retention: Retention) -> Retention:
    """Puts right what a run that was cut short, or damage, has left.

    Args:
      path: the folder.
      newest: the step that was restored; None where there was no checkpoint.
      retention: what stays.

    Returns:
      What stays from here on: a best that is damaged is not kept as such.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    for step in folder.delete_leftovers(path):
        logging.info("cleared what was left of an interrupted save of step %d", step)
    if newest is None:
        return retention
    if retention.keep_best:
        retention = retention._replace(damaged=_damaged_bests(path, newest))
    if after_save(path, newest, retention):
        logging.info("rewrote the state file of %s, which did not name what is there", path)
    return retention


def _damaged_bests(path: str, newest: int) -> frozenset[int]:
    """The steps up to `newest` that would be the best if they were whole; says which."""
    damaged = set[int]()
    steps = (step for step in folder.committed_steps(path) if step <= newest)
    for best in best_first(saved(path, step) for step in steps):
        try:
            manifest.verify_checkpoint(naming.checkpoint_prefix(path, best.step))
        except CheckpointError as error:
            logging.warning("not kept as the best: %s", error)
            damaged.add(best.step)
        else:
            break
    return frozenset(damaged)


def after_save(path: str, newest: int, retention: Retention) -> bool:
    """Writes the state file, then lets the oldest checkpoints go.

    A checkpoint of a later step than `newest` has been stepped over as damaged. It counts for
    nothing here: it neither takes the place of a good one nor goes before it is written again. One
    that another process is reading goes with a later save.

    Args:
      path: the folder.
      newest: the step that was saved or restored last.
      retention: what stays.

    Returns:
      Whether the state file was another before.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    found = folder.files_by_step(path)
    steps = [step for step in found if step <= newest and folder.is_committed(found[step])]
    # Where the order alone decides, no manifest has to be read.
    of_step = saved if retention.every_n_hours or retention.keep_best else _of_step
    doomed = steps_to_delete([of_step(path, step) for step in steps], retention)
    kept = [step for step in steps if step not in doomed]
    rewritten = bool(kept) and folder.write_state(path, kept)
    for step in doomed:
        if not is_held(naming.checkpoint_prefix(path, step)):
            folder.delete_files(path, step, found[step])
    return rewritten


def saved(path: str, step: int) -> Saved:
    """What the manifest of a checkpoint says; what it cannot say where it is missing or damaged.

    Restoring says that it is damaged. Such a checkpoint counts as the oldest, and never as the
    best.
    """
    try:
        found = manifest.read(path, step)
    except CheckpointError:
        found = None
    return Saved(step, found.saved_at, found.test_accuracy) if found else _of_step(path, step)


def _of_step(path: str, step: int) -> Saved:
    del path
    return Saved(step, saved_at=-math.inf)
