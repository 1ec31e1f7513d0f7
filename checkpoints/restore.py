"""Finds the newest checkpoint of a folder that is whole and fits the model, and reads it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from checkpoints import folder, manifest, naming
from checkpoints.bundle import READER_ERRORS, VariableSpec, check_index
from checkpoints.file_io import readable_prefix
from checkpoints.manifest import Manifest
from errors import CheckpointError, LaterVersionError, reason

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
            values = read_bundle(prefix, expected)
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


def read_bundle(
    prefix: str, expected: Mapping[str, VariableSpec]
) -> dict[str, np.ndarray[Any, Any]]:
    """Reads exactly the expected variables, each checked before any is read.

    TensorFlow's reader compares each tensor with its CRC32C.

    Raises:
      CheckpointError: a file is missing or damaged, a variable is missing or is one too many, or
        its shape or dtype is another; the first such variables are named.
    """
    if tf.io.gfile.exists(prefix + naming.INDEX_SUFFIX):
        check_index(prefix + naming.INDEX_SUFFIX)
    with readable_prefix(prefix) as path:
        try:
            reader = tf.train.load_checkpoint(path)
            shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
            found = {n: VariableSpec(tuple(shapes[n]), dtypes[n].name) for n in shapes}
            _check_fit(expected, found)
            return {name: np.asarray(reader.get_tensor(name)) for name in expected}
        except READER_ERRORS as error:
            line = reason(error).replace(path, prefix)
            raise CheckpointError(f"unreadable: {line}") from error


def _check_fit(expected: Mapping[str, VariableSpec], found: Mapping[str, VariableSpec]) -> None:
    """CheckpointError where the variables are not the same in both."""

    def differences() -> Iterator[str]:
        yield from (f"{name} is missing" for name in expected if name not in found)
        yield from (f"{name} is not in this model" for name in sorted({*found} - {*expected}))
        for name, spec in expected.items():
            if name in found and found[name] != spec:
                yield f"{name} is {found[name]}, this model has {spec}"

    lines = list(differences())
    if lines:
        more = len(lines) - _MOST_NAMED
        raise CheckpointError(
            "; ".join(lines[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        )
