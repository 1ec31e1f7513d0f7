"""Finds the newest checkpoint of a folder that is whole and fits the model, and reads it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from checkpoints import folder, manifest, naming
from checkpoints.bundle import VariableSpec
from checkpoints.manifest import Manifest
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, LaterVersionError

_MOST_NAMED = 4


class Restored(NamedTuple):
    """A checkpoint that has passed every check; `manifest` is None where it has none."""

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
      path: the folder; where it has no checkpoint, the result is None.
      expected: name -> shape and dtype of every variable of the model.
      check: is given the prefix and the manifest, where there is one, of an undamaged checkpoint
        before its variables are looked at; what it raises ends the search.

    Raises:
      CheckpointError: there are checkpoints and none of them is good.
      LaterVersionError: a later version made the newest.
    """
    reasons = []
    for step in reversed(folder.usable_steps(path)):
        prefix = naming.checkpoint_prefix(path, step)
        try:
            found = manifest.read(path, step)
            if found is None:
                logging.warning("%s has no manifest: TensorFlow's own checksums have to do", prefix)
            else:
                manifest.verify_files(path, found)
                check(prefix, found)
            values = read_variables(prefix, expected)
            if values.get("global_step", step) != step:
                raise CheckpointError(
                    f"it is of step {values['global_step']}, whatever its name says"
                )
            return Restored(step, prefix, values, found)
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


def read_variables(
    prefix: str, expected: Mapping[str, VariableSpec]
) -> dict[str, np.ndarray[Any, Any]]:
    """Reads exactly the expected variables, each checked before any is read.

    Raises:
      CheckpointError: a file is missing or damaged, a variable is missing or is one too many, or
        its shape or dtype is another; the first such variables are named.
    """
    reader = CheckpointReader(prefix)
    found = reader.specs
    differences = [f"{name} is missing" for name in expected if name not in found]
    differences += [f"{name} is not in this model" for name in found if name not in expected]
    differences += [
        f"{name} is {found[name]}, this model has {spec}"
        for name, spec in expected.items()
        if name in found and found[name] != spec
    ]
    if differences:
        more = len(differences) - _MOST_NAMED
        raise CheckpointError(
            "; ".join(differences[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        )
    return {name: reader.read(name) for name in expected}
