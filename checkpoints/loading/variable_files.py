"""The checkpoint that a path stands for, where a graph is given variables of another's."""

import os
import re

import tensorflow as tf

from checkpoints import folder, naming
from checkpoints.errors import CheckpointError, first_few
from checkpoints.folder import names_in
from checkpoints.loading.graph_files import SAVED_MODEL_FILES
from checkpoints.loading.nearby import beside
from checkpoints.loading.state_file import named_checkpoint

# Of a SavedModel, the checkpoint's prefix in its folder.
SAVED_MODEL_VARIABLES = os.path.join("variables", "variables")

# `.index`, `.data-00000-of-00001`, and `-00000-of-00001` of the format V1.
_PART = re.compile(r"(\.index|\.manifest|\.meta|(\.data)?-\d{5}-of-\d{5})$")
_MAX_NAMED = 10


def prefix_of(path: str) -> str:
    """The prefix of the checkpoint that a file is of; of another path, the path itself."""
    return _PART.sub("", path)


def find_variables(path: str) -> str:
    """The prefix of the checkpoint that `path` stands for.

    Args:
      path: a prefix, any file of a checkpoint, or a folder for its newest one; a SavedModel's
        folder for its variables.

    Raises:
      CheckpointError: there is none, or a folder has several and does not say which is the newest.
    """
    prefix = prefix_of(path)
    place, base = os.path.split(prefix)
    parts = names_in(place) if tf.io.gfile.isdir(place or ".") else []
    # A base may be empty, as that of `model/.index`; of `model/` it is the folder that is meant.
    if (base or path != prefix) and base + naming.INDEX_SUFFIX in parts:
        return prefix
    if tf.io.gfile.isdir(path):
        return _newest_in(path)
    if base and any(name == base or prefix_of(name) == base for name in parts):
        return prefix
    raise CheckpointError(
        f"--ckpt={path}: there is no {prefix}{naming.INDEX_SUFFIX}"
        f"{beside(prefix, (naming.INDEX_SUFFIX,))}"
    )


def _newest_in(path: str) -> str:
    """The prefix of a folder's newest checkpoint."""
    names = names_in(path)
    if any(name in names for name in SAVED_MODEL_FILES):
        return os.path.join(path, SAVED_MODEL_VARIABLES)
    steps = folder.usable_steps(path)
    if steps:
        return naming.checkpoint_prefix(path, steps[-1])
    found = [prefix_of(name) for name in names if name.endswith(naming.INDEX_SUFFIX)]
    if len(found) > 1:
        named = named_checkpoint(os.path.join(path, naming.STATE_FILE))
        found = [name for name in found if name == named] or found
    if len(found) == 1:
        return os.path.join(path, found[0])
    what = f"{len(found)} checkpoints; name one: {first_few(found, _MAX_NAMED)}"
    raise CheckpointError(f"--ckpt={path}: it holds {what if found else 'no checkpoint'}")
