"""Where a run starts: at the newest good checkpoint of its folder, or at step 0."""

from collections.abc import Mapping
from typing import Any

from absl import logging

from checkpoints.restore import restore_newest
from training.errors import TrainingError
from training.graph_session import GraphSession


def start(
    session: GraphSession, ckpt_dir: str, identity: Mapping[str, Any], *, allow_change: bool
) -> int:
    """Gives the variables their values and returns the steps already done.

    Args:
      session: its variables are restored, or initialised where the folder has no checkpoint.
      ckpt_dir: the run's folder.
      identity: what the run's numbers follow from.
      allow_change: restore although the checkpoint is of a run with another identity.

    Raises:
      CheckpointError: there are checkpoints and none is good.
      TrainingError: the newest good one is of another run.
    """
    restored = restore_newest(ckpt_dir, session.specs)
    if restored is None:
        session.initialize()
        logging.info("starting %s at step 0", ckpt_dir)
        return 0
    changes = [] if restored.config is None else _changes(restored.config, identity)
    if changes and not allow_change:
        raise TrainingError(
            f"{restored.prefix} is of another run: {', '.join(changes)}; train into another folder "
            "with --ckpt_dir, or continue all the same with --allow_config_change"
        )
    for change in changes:
        logging.warning("continuing with another %s", change)
    session.assign(restored.values)
    logging.info("resuming %s", restored.prefix)
    return restored.step


def _changes(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """`name was A, is now B` for each entry that differs."""
    return [
        f"{name} was {saved.get(name)!r}, is now {present.get(name)!r}"
        for name in sorted({*saved, *present})
        if saved.get(name) != present.get(name)
    ]
