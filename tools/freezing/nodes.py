"""Nodes of a graph as data, made or remade by hand.

Format: `tensorflow/core/framework/node_def.proto`, `tensorflow/core/framework/tensor.proto`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import data_inputs

Array = npt.NDArray[Any]


def remake(node: NodeDef, op: str, inputs: Sequence[str], types: Mapping[str, int]) -> None:
    """Makes another operation of a node, which keeps its name.

    Args:
      node: changed in place.
      op: the operation.
      inputs: all of them, those that are only waited for last.
      types: attribute name -> a number of `tf.DType`; no other attribute is kept.
    """
    name, inputs = node.name, list(inputs)
    node.Clear()
    node.name, node.op = name, op
    node.input.extend(inputs)
    for key, number in types.items():
        node.attr[key].type = number


def waits(node: NodeDef) -> list[str]:
    """The inputs of a node that are only waited for, `^name`."""
    return [text for text in node.input if text.startswith("^")]


def make_identity(node: NodeDef, of: str, dtype: int) -> None:
    """Makes an `Identity` of a node, that still waits for all that it took.

    Args:
      node: changed in place.
      of: the tensor to pass on.
      dtype: its number.
    """
    remake(node, "Identity", [of, *waits(node)], {"T": dtype})


def make_constant(node: NodeDef, value: Array, dtype: int, wait: Sequence[str] = ()) -> None:
    """Makes a `Const` of a node.

    Args:
      node: changed in place.
      value: of any dtype that a tensor may have; strings as objects.
      dtype: its number.
      wait: what it waits for, `^name`: inside a loop, a constant has to wait for something of it.
    """
    remake(node, "Const", wait, {"dtype": dtype})
    fill_constant(node, value)


def fill_constant(node: NodeDef, value: Array) -> None:
    """Gives a `Const` that has its dtype its value, with a single copy of a large one."""
    tensor = node.attr["value"].tensor
    dtype = tf.as_dtype(node.attr["dtype"].type)
    if dtype == tf.string:
        tensor.CopyFrom(tf.make_tensor_proto(value, dtype, value.shape))
        return
    tensor.dtype = dtype.as_datatype_enum
    tensor.tensor_shape.SetInParent()
    for size in value.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = np.ascontiguousarray(value).tobytes()


def add_placeholder(
    graph: GraphDef, name: str, dtype: tf.DType, shape: Sequence[int | None] | None
) -> NodeDef:
    """Adds a `Placeholder`; None for sizes, or a rank, that are not known."""
    node = graph.node.add(name=name, op="Placeholder")
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return node


def waits_for_inputs(node: NodeDef) -> list[str]:
    """What a node waits for once it takes nothing any more: what it took, and what it waited for.

    A constant of a loop has to wait for something of the loop, or it would stand outside of it.
    """
    names = [f"^{text.partition(':')[0]}" for text in data_inputs(node)]
    return list(dict.fromkeys([*names, *waits(node)]))
