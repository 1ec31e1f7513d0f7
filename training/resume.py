"""Where a run starts: at the newest good checkpoint of its folder, or at step 0."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from checkpoints import upkeep
from checkpoints.errors import reason
from checkpoints.restore import Restored, restore_newest
from training.config import RunConfig
from training.environment import differences, environment
from training.errors import TrainingError
from training.graph_session import GraphSession


def start(session: GraphSession, config: RunConfig, identity: Mapping[str, Any]) -> int:
    """Gives the variables their values and returns the steps already done.

    The folder is changed only once it is clear that the run is this one.

    Args:
      session: its variables are restored, or initialised where the folder has no checkpoint.
      config: the run's folder, what is kept in it, and whether another identity is allowed.
      identity: what the run's numbers follow from.

    Raises:
      CheckpointError: there are checkpoints and none is good.
      TrainingError: the newest good one is of another run, or the folder cannot be written.
    """
    restored = restore_newest(config.ckpt_dir, session.specs)
    if restored is None:
        session.initialize()
        logging.info("starting %s at step 0", config.ckpt_dir)
    else:
        _check_identity(restored, identity, allow_change=config.allow_config_change)
        session.assign(restored.values)
        logging.info("resuming %s", restored.prefix)
    try:
        upkeep.at_start(config.ckpt_dir, restored.step if restored else None, config.retention)
    except tf.errors.OpError as error:
        raise TrainingError(f"{config.ckpt_dir} cannot be written: {reason(error)}") from error
    return restored.step if restored else 0


def _check_identity(restored: Restored, identity: Mapping[str, Any], *, allow_change: bool) -> None:
    """TrainingError where the checkpoint is of another run and that is not allowed."""
    if restored.manifest is None:
        return
    changes = differences(restored.manifest.config, identity)
    if changes and not allow_change:
        raise TrainingError(
            f"{restored.prefix} is of another run: {', '.join(changes)}; train into another folder "
            "with --ckpt_dir, or continue all the same with --allow_config_change"
        )
    if changes:
        logging.warning("continuing another run: %s", ", ".join(changes))
    if moves := differences(restored.manifest.environment, environment()):
        logging.warning("the last bits of the numbers may differ: %s", ", ".join(moves))
