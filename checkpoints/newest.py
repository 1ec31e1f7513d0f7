"""Which checkpoint of a folder is the newest, for those who read while another process trains."""

import os

import tensorflow as tf

from checkpoints import folder, naming
from checkpoints.errors import CheckpointError


def newest_meta_graph(path: str) -> str:
    """The `.meta` file of the newest checkpoint in a folder; it is never one that is half written.

    Raises:
      CheckpointError: the folder has no checkpoint.
    """
    steps = folder.usable_steps(path)
    if not steps:
        raise CheckpointError(f"{path} has no checkpoint {naming.checkpoint_name(0)[:-1]}<step>")
    return naming.checkpoint_prefix(path, steps[-1]) + naming.META_SUFFIX


def say_if_gone(error: CheckpointError, file: str, flag: str = "--meta") -> CheckpointError:
    """The same error, or where the checkpoint is no longer there, one that names the newest.

    Args:
      error: what reading the checkpoint ended with.
      file: its `.meta` file, or its prefix.
      flag: that named it.
    """
    path, name = os.path.split(file)
    named = naming.split_name(name) or naming.split_name(name + naming.META_SUFFIX)
    steps = folder.usable_steps(path) if named and tf.io.gfile.isdir(path or ".") else []
    if not named or not steps or named[0] in steps:
        return error
    newest = os.path.basename(newest_meta_graph(path))
    return CheckpointError(
        f"{file} is not there, or was deleted while it was read, as those that train do with older "
        f"checkpoints; the newest is {newest} ({flag}={path or '.'} always reads the newest)"
    )
