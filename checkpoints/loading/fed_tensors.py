"""Tensors that are fed: a placeholder for each, and what its consumers take in its place."""

import re
from collections.abc import Iterable, Sequence

import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.loading.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    node_of,
)
from checkpoints.loading.variable_values import RESOURCE_VARIABLE, VARIABLE_OPS

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")  # As tf.Operation has it.


def is_node_name(name: str) -> bool:
    """Whether TensorFlow takes it as the name of a new node."""
    return _NAME.fullmatch(name) is not None


def free_scope(meta: MetaGraphFile, scope: str) -> str:
    """A scope for what is added to a file's graph, as of `free_among`."""
    return free_among(meta.nodes, scope)


def free_among(taken: Iterable[str], scope: str) -> str:
    """`scope`, or `scope_1` and so on where one of the names that are taken is it or is in it.

    Names that differ in case only are the same to TensorFlow.
    """
    tops = {name.partition("/")[0].lower() for name in taken}
    free, number = scope, 0
    while free.lower() in tops:
        number += 1
        free = f"{scope}_{number}"
    return free


def placeholder(
    meta: MetaGraphFile,
    name: str,
    dtype: tf.DType,
    shape: Sequence[int | None] | None,
    scope: str,
    default: tf.Tensor | None = None,
) -> tf.Tensor:
    """A placeholder to feed a tensor of the file by, in the default graph.

    Args:
      meta: the file.
      name: of the tensor, in full.
      dtype: no reference type.
      shape: None for sizes, or a rank, that are not known.
      scope: a `free_scope`, for what cannot have the tensor's own name.
      default: its value where it is not fed; None where it has to be.

    Raises:
      CheckpointError: it is a resource or a variant, of which there are no values to feed.
    """
    if dtype in (tf.resource, tf.variant):
        raise CheckpointError(f"{name} cannot be fed: it is a {dtype.name}")
    node = node_of(name)
    # A fed placeholder is not imported: its name is free. Not all names of files are allowed here.
    own = PLACEHOLDERS if default is None else PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
    if meta.nodes[node].op not in own or not is_node_name(node):
        node = f"{scope}/value"
    if default is not None:
        return tf.compat.v1.placeholder_with_default(default, shape, name=node)
    return tf.compat.v1.placeholder(dtype, shape, name=node)


def stand_in(meta: MetaGraphFile, name: str, value: tf.Tensor) -> tf.Tensor:
    """What the consumers of a fed tensor take in its place.

    For a variable that is a variable of our own, assigned in each run before anyone sees it, as
    some of them may take a reference or a handle and not a value.

    Args:
      meta: the file.
      name: of the tensor, in full.
      value: its `placeholder`.
    """
    op = meta.nodes[node_of(name)].op
    if op not in VARIABLE_OPS:
        return value
    dtype, shape, scope = value.dtype, value.shape, value.op.name
    if op != RESOURCE_VARIABLE:
        ref = tf.raw_ops.VariableV2(shape=shape, dtype=dtype, name=f"{scope}/variable")
        return tf.raw_ops.Assign(ref=ref, value=value, validate_shape=False, name=f"{scope}/assign")
    handle = tf.raw_ops.VarHandleOp(dtype=dtype, shape=shape, name=f"{scope}/variable")
    assign = tf.raw_ops.AssignVariableOp(resource=handle, value=value, name=f"{scope}/assign")
    with tf.control_dependencies([assign]):
        return tf.identity(handle, name=f"{scope}/assigned")
