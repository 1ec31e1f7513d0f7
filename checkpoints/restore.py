"""Finds the newest checkpoint of a folder that is whole, and reads it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from checkpoints import folder, manifest, naming
from checkpoints.errors import CheckpointError, LaterVersionError
from checkpoints.manifest import Manifest
from checkpoints.tensor_bundle import VariableSpec, read_bundle


class Restored(NamedTuple):
    """A checkpoint that has passed every check.

    Attributes:
      step: updates done.
      prefix: `<folder>/my-model-<step>`.
      values: the value of each variable, by name.
      manifest: what its writer said of it; None where it has none.
    """

    step: int
    prefix: str
    values: Mapping[str, np.ndarray[Any, Any]]
    manifest: Manifest | None


def restore_newest(
    path: str,
    expected: Mapping[str, VariableSpec],
    check: Callable[[str, Manifest], None] = lambda _, __: None,
) -> Restored | None:
    """Reads the newest checkpoint that is complete, undamaged and fits.

    What is stepped over is logged, a line each.

    Args:
      path: the folder.
      expected: name -> shape and dtype of every variable of the model.
      check: is given the prefix and the manifest, where there is one, of an undamaged checkpoint
        before its variables are looked at; what it raises ends the search.

    Returns:
      None where the folder has no checkpoint.

    Raises:
      CheckpointError: there are checkpoints and none of them is good.
      LaterVersionError: a later version made the newest.
    """
    steps = folder.usable_steps(path)
    reasons = []
    for step in reversed(steps):
        prefix = naming.checkpoint_prefix(path, step)
        try:
            return _restore(path, step, prefix, expected, check)
        except LaterVersionError:
            raise
        except CheckpointError as error:
            logging.warning("stepping over %s: %s", prefix, error)
            reasons.append(str(error))
    if reasons:
        raise CheckpointError(
            f"none of the {len(reasons)} checkpoints in {path} fits this model (the newest: "
            f"{reasons[0]}): train into another folder with --ckpt_dir"
        )
    return None


def _restore(
    path: str,
    step: int,
    prefix: str,
    expected: Mapping[str, VariableSpec],
    check: Callable[[str, Manifest], None],
) -> Restored:
    """Reads one checkpoint after all checks; CheckpointError says which one failed."""
    found = manifest.read(path, step)
    if found is None:
        logging.warning("%s has no manifest: TensorFlow's own checksums have to do", prefix)
    else:
        manifest.verify_files(path, found)
        check(prefix, found)
    values = read_bundle(prefix, expected)
    if "global_step" in values and values["global_step"] != step:
        raise CheckpointError(f"it is of step {values['global_step']}, whatever its name says")
    return Restored(step, prefix, values, found)
