"""Which checkpoint of a folder has the best test accuracy, as its manifests tell."""

from absl import logging

from checkpoints import folder, manifest, naming, upkeep
from checkpoints.errors import CheckpointError
from checkpoints.retention import best_first


def best_checkpoint(path: str) -> str:
    """The prefix of the checkpoint with the best test accuracy, the earliest of equals.

    What is damaged is stepped over, with a line each.

    Args:
      path: the folder.

    Raises:
      CheckpointError: no checkpoint of the folder says its test accuracy, or all that do are
        damaged.
    """
    measured = best_first(upkeep.saved(path, step) for step in folder.committed_steps(path))
    for found in measured:
        prefix = naming.checkpoint_prefix(path, found.step)
        try:
            manifest.verify_checkpoint(prefix)
        except CheckpointError as error:
            logging.warning("stepping over the best: %s", error)
        else:
            return prefix
    if measured:
        raise CheckpointError(
            f"{path}: each of the {len(measured)} checkpoints that say their test accuracy is "
            "damaged"
        )
    raise CheckpointError(
        f"{path} has no checkpoint that says its test accuracy, as those of a training with "
        "--keep_best do"
    )
