"""Variables of an imported graph as variables of TensorFlow's own, which can be trained and saved.

Their node is the file's; the operations that give them a value and read it are ours.
"""

from collections.abc import Collection

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef

from checkpoints.loading.graph_view import data_inputs
from checkpoints.loading.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
)
from checkpoints.loading.pure_ops import PURE
from checkpoints.loading.sub_graph import sub_graph
from checkpoints.loading.variable_definitions import variable_definitions
from checkpoints.loading.variable_values import VARIABLE_OPS

_INPUTS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT


def initial_tensors(meta: MetaGraphFile, variables: Collection[str]) -> dict[str, str]:
    """Variable -> the tensor of its initial value in the file.

    Left out are those that no collection tells of, and those whose initial value does not follow
    from constants and random numbers alone.
    """
    found: dict[str, str] = {}
    for collection in meta.proto.collection_def:
        for name, entry in variable_definitions(meta, collection):
            if name in variables and name not in found:
                tensor = _initial_tensor(meta, entry)
                if tensor is not None and _stands_alone(meta, tensor):
                    found[name] = tensor
    return found


def adopt(
    node: tf.Operation, initial: tf.Tensor | None, scope: str, *, trainable: bool
) -> tf.Variable:
    """Makes a variable of a node, and puts it into the graph's collections.

    Args:
      node: of the operation VariableV2 or VarHandleOp, its shape known.
      initial: its initial value; None where the file has none. Then its initializer gives NaN, or
        0 to integers: it is to be restored.
      scope: of what is added.
      trainable: whether it goes into the collection of trainable variables, too.
    """
    is_resource = node.outputs[0].dtype == tf.resource
    dtype = tf.as_dtype(node.get_attr("dtype")).base_dtype
    shape = tf.TensorShape(node.get_attr("shape"))
    with tf.compat.v1.name_scope(f"{scope}/"):
        # A tensor of its own: whoever assigns a variable feeds it.
        value = tf.identity(_nothing(dtype, shape) if initial is None else initial)
        if is_resource:
            assign = tf.raw_ops.AssignVariableOp(resource=node.outputs[0], value=value)
            read = tf.raw_ops.ReadVariableOp(resource=node.outputs[0], dtype=dtype)
        else:
            assign = tf.raw_ops.Assign(ref=node.outputs[0], value=value).op
            read = tf.identity(node.outputs[0])
    definition = VariableDef(
        variable_name=node.outputs[0].name,
        initial_value_name=value.name,
        initializer_name=assign.name,
        snapshot_name=read.name,
        is_resource=is_resource,
        trainable=trainable,
    )
    variable = tf.compat.v1.Variable(variable_def=definition, use_resource=is_resource)
    keys = [tf.compat.v1.GraphKeys.GLOBAL_VARIABLES]
    keys += [tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES] if trainable else []
    node.graph.add_to_collections(keys, variable)
    return variable


def _nothing(dtype: tf.DType, shape: tf.TensorShape) -> tf.Tensor:
    empty = np.nan if dtype.is_floating or dtype.is_complex else 0
    return tf.fill(shape.as_list(), tf.constant(empty, dtype))


def _initial_tensor(meta: MetaGraphFile, entry: VariableDef) -> str | None:
    """What a variable is assigned by its initializer."""
    if entry.initial_value_name:
        return meta.find_tensor(entry.initial_value_name)
    node = meta.nodes.get(entry.initializer_name)
    inputs = data_inputs(node) if node is not None else []
    return meta.find_tensor(inputs[1]) if len(inputs) == 2 else None


def _stands_alone(meta: MetaGraphFile, tensor: str) -> bool:
    """Whether a tensor follows from constants and random numbers alone."""
    operations = {meta.nodes[name].op for name in sub_graph(meta, [tensor]).names}
    return operations <= PURE and not operations & (VARIABLE_OPS | _INPUTS)
