"""Which checkpoint of a folder has the best test accuracy, as its manifests tell."""

from checkpoints import folder, naming, upkeep
from checkpoints.errors import CheckpointError
from checkpoints.retention import best_of


def best_checkpoint(path: str) -> str:
    """The prefix of the checkpoint with the best test accuracy, the earliest of equals.

    Args:
      path: the folder.

    Raises:
      CheckpointError: no checkpoint of the folder says its test accuracy.
    """
    best = best_of(upkeep.saved(path, step) for step in folder.committed_steps(path))
    if best is None:
        raise CheckpointError(
            f"{path} has no checkpoint that says its test accuracy, as those of a training with "
            "--keep_best do"
        )
    return naming.checkpoint_prefix(path, best.step)
