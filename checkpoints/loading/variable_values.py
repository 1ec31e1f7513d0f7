"""The values of a graph's variables, from its checkpoint."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.checkpoint_reader import Array, CheckpointReader
from checkpoints.loading.graph_view import attribute
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.saver_mapping import Stored, checkpoint_keys
from checkpoints.loading.tensor_info import format_shape
from checkpoints.loading.variable_definitions import variable_definitions

REF_VARIABLES = frozenset({"Variable", "VariableV2"})
RESOURCE_VARIABLE = "VarHandleOp"
VARIABLE_OPS = REF_VARIABLES | {RESOURCE_VARIABLE}

_TRAINABLE = "trainable_variables"
_MAX_NAMED = 10


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


def variable_of(meta: MetaGraphFile, node: NodeDef) -> Variable:
    """What a graph says of the variable that `node` makes.

    Raises:
      CheckpointError: no variable can be so.
    """
    shape = attribute(node, "shape").shape
    number = attribute(node, "dtype").type
    try:
        dtype = tf.as_dtype(number)
    except TypeError as error:
        raise CheckpointError(f"{meta.path} is damaged: there is no dtype {number}") from error
    if min((dim.size for dim in shape.dim), default=0) < -1:
        raise CheckpointError(f"{meta.path} is damaged: the shape of {node.name} is negative")
    # The oldest kind cannot tell a scalar from a shape that is not known.
    unknown = shape.unknown_rank or (node.op == "Variable" and not shape.dim)
    return Variable(node.name, dtype, tf.TensorShape(None if unknown else shape))


def graph_variables(meta: MetaGraphFile) -> list[Variable]:
    """All variables of a graph.

    Raises:
      CheckpointError: as `variable_of`.
    """
    return [variable_of(meta, node) for node in meta.nodes.values() if node.op in VARIABLE_OPS]


def trainable_names(meta: MetaGraphFile) -> set[str]:
    """The variables that the file says are to be trained."""
    told = {name for name, _ in variable_definitions(meta, _TRAINABLE)}
    return {name for name in told if meta.nodes[name].op in VARIABLE_OPS}


def unavailable(meta: MetaGraphFile, variables: Sequence[Variable]) -> list[str]:
    """Which of `variables` cannot have a value, a line each; no value is read.

    Raises:
      CheckpointError: a file is missing or damaged, so that none can.
    """
    reader = CheckpointReader(meta.prefix)
    keys = checkpoint_keys(meta, [variable.name for variable in variables], reader.shapes)
    found = {v.name for v in variables if keys[v.name].key in reader.shapes}
    reader.check_sizes({keys[name].key for name in found})
    missing = [f"{_named(v, keys)} is missing" for v in variables if v.name not in found]
    return missing + _misfits([v for v in variables if v.name in found], keys, reader)


def read_values(meta: MetaGraphFile, variables: Sequence[Variable]) -> dict[str, Array]:
    """Reads the values of `variables`; what else the checkpoint holds is left alone.

    A tensor that many variables are parts of is read once.

    Args:
      meta: the file that the variables are of.
      variables: of its graph.

    Returns:
      Variable name -> value, of exactly the variable's dtype and of its shape.

    Raises:
      CheckpointError: a file is missing or damaged, or (seen before any value is read) a variable
        is missing or has another shape or dtype; the message names them.
    """
    if not variables:
        return {}
    reader = CheckpointReader(meta.prefix)
    keys = checkpoint_keys(meta, [variable.name for variable in variables], reader.shapes)
    _check_variables(meta.prefix, variables, keys, reader)
    by_key: dict[str, list[Variable]] = {}
    for variable in variables:
        by_key.setdefault(keys[variable.name].key, []).append(variable)
    reader.check_sizes(by_key)
    values = {}
    for key, sharing in by_key.items():
        full = reader.read(key)
        for variable in sharing:
            values[variable.name] = _value(full, variable, keys[variable.name])
    return values


def _value(full: Array, variable: Variable, stored: Stored) -> Array:
    """A variable's value out of the tensor that it is stored in."""
    value = full
    if stored.part is not None:
        pairs = zip(stored.part.starts, stored.part.sizes, strict=True)
        # A copy: a view would keep all of the tensor in memory.
        value = full[tuple(slice(start, start + size) for start, size in pairs)].copy()
    if stored.cast:
        value = value.astype(variable.dtype.as_numpy_dtype)
    if stored.reshaped and variable.shape.is_fully_defined():
        return value.reshape(variable.shape.as_list())
    return value


def _check_variables(
    prefix: str,
    variables: Sequence[Variable],
    keys: Mapping[str, Stored],
    reader: CheckpointReader,
) -> None:
    """Compares what the graph needs with what the checkpoint holds, before anything is read."""
    missing = [_named(v, keys) for v in variables if keys[v.name].key not in reader.shapes]
    if missing:
        raise CheckpointError(
            f"{prefix} lacks {len(missing)} of the {len(variables)} variables that this takes: "
            + first_few(missing, _MAX_NAMED)
        )
    wrong = _misfits(variables, keys, reader)
    if wrong:
        raise CheckpointError(
            f"{prefix} does not fit its graph: " + first_few(wrong, _MAX_NAMED, "; ")
        )


def _misfits(
    variables: Sequence[Variable], keys: Mapping[str, Stored], reader: CheckpointReader
) -> list[str]:
    """A phrase for each variable that the checkpoint has otherwise than the graph."""
    return [
        f"{_named(v, keys)} is {_found(keys[v.name], reader)}, the graph has {v.dtype.name} "
        f"{format_shape(v.shape)}"
        for v in variables
        if not _fits(v, keys[v.name], reader)
    ]


def _fits(variable: Variable, stored: Stored, reader: CheckpointReader) -> bool:
    """Whether the checkpoint's tensor gives a value of the variable's dtype and shape."""
    shape = reader.shapes[stored.key]
    if stored.part is not None:
        if list(stored.part.full_shape) != shape:
            return False
        shape = list(stored.part.sizes)
    dtype = reader.dtypes[stored.key]
    is_cast = stored.cast and dtype.is_floating and variable.dtype.is_floating
    if dtype != variable.dtype and not is_cast:
        return False
    if stored.reshaped and variable.shape.is_fully_defined():
        return bool(np.prod(shape, dtype=object) == variable.shape.num_elements())
    return bool(variable.shape.is_compatible_with(shape))


def _named(variable: Variable, keys: Mapping[str, Stored]) -> str:
    """A variable's name, and its key in the checkpoint where that is another."""
    key = keys[variable.name].key
    return variable.name if key == variable.name else f"{variable.name} (saved as {key})"


def _found(stored: Stored, reader: CheckpointReader) -> str:
    """What the checkpoint has, for an error line."""
    found = f"{reader.dtypes[stored.key].name} {reader.shapes[stored.key]}"
    part = stored.part
    if part is None:
        return found
    return f"{found} (of which it takes {list(part.sizes)} at {list(part.starts)})"
