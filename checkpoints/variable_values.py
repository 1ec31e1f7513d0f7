"""The values of a graph's variables, from a checkpoint of any format that a Saver has written."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.naming import INDEX_SUFFIX

REF_VARIABLES = frozenset({"Variable", "VariableV2"})
RESOURCE_VARIABLE = "VarHandleOp"
VARIABLE_OPS = REF_VARIABLES | {RESOURCE_VARIABLE}

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


class Variable(NamedTuple):
    """A variable of a graph.

    Attributes:
      name: of its node.
      dtype: a tf.DType, never a reference type.
      shape: a tf.TensorShape, which may be unknown.
    """

    name: str
    dtype: tf.DType
    shape: tf.TensorShape


def checkpoint_keys(variables: Sequence[Variable]) -> dict[str, str]:
    """Variable name -> its key in the checkpoint: where a Saver got no other, the name itself."""
    return {variable.name: variable.name for variable in variables}


def read_values(prefix: str, variables: Sequence[Variable]) -> dict[str, np.ndarray[Any, Any]]:
    """Reads the values of `variables`; what else the checkpoint holds is left alone.

    Returns:
      Variable name -> value, of exactly the variable's dtype and of its shape.

    Raises:
      CheckpointError: a file is missing or damaged, or (seen before any value is read) a variable
        is missing or has another shape or dtype; the message names them.
    """
    if not variables:
        return {}
    keys = checkpoint_keys(variables)
    pattern = _file_pattern(prefix)
    try:
        # Not tf.train.load_checkpoint: given a folder of that name, it follows the state file.
        reader = tf.compat.v1.train.NewCheckpointReader(pattern)
        _check_variables(prefix, variables, keys, reader)
        return {name: np.asarray(reader.get_tensor(key)) for name, key in keys.items()}
    except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        # The reader's C++ side raises any of them.
        raise CheckpointError(f"{prefix} is damaged: {str(error).splitlines()[0]}") from error


def _file_pattern(prefix: str) -> str:
    """What the checkpoint at `prefix` is opened by.

    An index makes it the present format, whose data files are checked to be all there. Without
    one, it is the format V1: a file at the prefix itself, or shards beside it.
    """
    folder, base = os.path.split(prefix)
    try:
        names = set(tf.io.gfile.listdir(folder or "."))
    except tf.errors.OpError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.message}") from error
    if base + INDEX_SUFFIX in names:
        _check_shards(prefix, _shards(names, f"{base}.data"))
        return prefix
    if base in names and not tf.io.gfile.isdir(prefix):
        return prefix
    shards = _shards(names, base)
    if not shards:
        raise CheckpointError(
            f"{prefix}.meta has no variables beside it: expected {prefix}.index and "
            f"{prefix}.data-00000-of-00001"
        )
    _check_shards(prefix, shards)
    return f"{prefix}-?????-of-{shards[0][1]}"


def _shards(names: set[str], stem: str) -> list[tuple[str, str]]:
    """The numbers (shard, shards) of the files `<stem>-00000-of-00001` and so on, sorted."""
    tails = (name.removeprefix(stem) for name in names if name.startswith(stem))
    return sorted((m[1], m[2]) for tail in tails if (m := _SHARD.fullmatch(tail)))


def _check_shards(prefix: str, shards: list[tuple[str, str]]) -> None:
    """Raises CheckpointError unless each shard of one set is there."""
    if not shards:
        raise CheckpointError(
            f"{prefix}.index is there, its data file {prefix}.data-00000-of-00001 is missing"
        )
    total = shards[-1][1]
    have = {number for number, of in shards if of == total}
    missing = [n for n in range(int(total)) if f"{n:05d}" not in have]
    if missing:
        raise CheckpointError(
            f"{prefix} lacks shard {missing[0]:05d} of its {int(total)} data files"
        )


def _check_variables(
    prefix: str, variables: Sequence[Variable], keys: Mapping[str, str], reader: Any
) -> None:
    """Compares what the graph needs with what the checkpoint holds, before anything is read."""
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    missing = [v.name for v in variables if keys[v.name] not in shapes]
    if missing:
        raise CheckpointError(
            f"{prefix} lacks {len(missing)} of the {len(variables)} variables that this takes: "
            + _first_few(missing)
        )
    wrong = [
        f"{v.name} is {dtypes[key].name} {shapes[key]}, the graph has {v.dtype.name} {v.shape}"
        for v in variables
        if (key := keys[v.name])
        and not (dtypes[key] == v.dtype and v.shape.is_compatible_with(shapes[key]))
    ]
    if wrong:
        raise CheckpointError(f"{prefix} does not fit its graph: " + _first_few(wrong, "; "))


def _first_few(texts: Sequence[str], separator: str = ", ", most: int = 10) -> str:
    more = len(texts) - most
    return separator.join(texts[:most]) + (f" and {more} more" if more > 0 else "")
