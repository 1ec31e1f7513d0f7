"""Keeps a folder as it should be: the oldest checkpoints gone, the state file naming the newest."""

import math

from absl import logging

from checkpoints import folder, manifest
from checkpoints.errors import CheckpointError
from checkpoints.retention import Retention, Saved, steps_to_delete


def at_start(path: str, newest: int | None, retention: Retention) -> None:
    """Puts right what a run that was cut short, or damage, has left.

    Args:
      path: the folder.
      newest: the step that was restored; None where there was no checkpoint.
      retention: what stays.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    for step in folder.delete_leftovers(path):
        logging.info("cleared what was left of an interrupted save of step %d", step)
    if newest is not None and after_save(path, newest, retention):
        logging.info("rewrote the state file of %s, which did not name what is there", path)


def after_save(path: str, newest: int, retention: Retention) -> bool:
    """Writes the state file, then lets the oldest checkpoints go.

    A checkpoint of a later step than `newest` has been stepped over as damaged. It counts for
    nothing here: it neither takes the place of a good one nor goes before it is written again.

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
