"""Nodes of a graph as data, made or remade by hand; large constants are kept apart from it.

Also the nodes of a function, written out in the place of its call, and what is known of a graph
before it runs: constants, and what follows from them.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import Array
from metagraph.graph import data_inputs
from metagraph.meta import node_of

# Nodes of a graph as data, made or remade by hand.
#
# Format: `tensorflow/core/framework/node_def.proto`, `tensorflow/core/framework/tensor.proto`.


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


# Large constants of a graph, apart from it.
#
# Format: `tensorflow/core/framework/tensor.proto`.

_LARGE = 1 << 20  # Bytes.


def without_large_constants(
    meta: MetaGraphDef, fetches: Collection[str]
) -> tuple[MetaGraphDef, dict[str, NodeDef]]:
    """The same with placeholders for large constants, whose memory is not copied.

    Args:
      meta: it stays as it is.
      fetches: full tensor names; constants among them stay.

    Returns:
      The copy, and the node of each constant by the name of its tensor.
    """
    light, found = MetaGraphDef(), dict[str, NodeDef]()
    light.graph_def.versions.CopyFrom(meta.graph_def.versions)
    light.graph_def.library.CopyFrom(meta.graph_def.library)
    for key, collection in meta.collection_def.items():
        light.collection_def[key].CopyFrom(collection)
    fetched = {node_of(name) for name in fetches}
    for node in meta.graph_def.node:
        if node.name in fetched or not _is_large(node):
            light.graph_def.node.add().CopyFrom(node)
            continue
        tensor = node.attr["value"].tensor
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        add_placeholder(light.graph_def, node.name, tf.as_dtype(tensor.dtype), shape)
        found[f"{node.name}:0"] = node
    return light, found


def value_of(node: NodeDef) -> Array:
    """The value of a large constant, read-only."""
    tensor = node.attr["value"].tensor
    dtype = tf.as_dtype(tensor.dtype).as_numpy_dtype
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)


def _is_large(node: NodeDef) -> bool:
    """Whether it is a large constant, of the form in which variables are kept."""
    if node.op != "Const" or node.input:
        return False
    tensor = node.attr["value"].tensor
    size = tf.as_dtype(tensor.dtype).size
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    expected = math.prod(shape) * size
    return bool(expected >= _LARGE and len(tensor.tensor_content) == expected)


# A serialized graph, node by node, so that no second copy of it need be in memory.
#
# Format: `tensorflow/core/framework/graph.proto`; https://protobuf.dev/programming-guides/encoding

_NODE_TAG = b"\x0a"  # Field 1, a message.


def graph_parts(graph: GraphDef) -> Iterator[bytes]:
    """The bytes of a graph, piece by piece: a message is its fields, one after another."""
    for node in graph.node:
        content = node.SerializeToString(deterministic=True)
        yield _NODE_TAG + _varint(len(content))
        yield content
    rest = GraphDef(library=graph.library, versions=graph.versions)
    yield rest.SerializeToString(deterministic=True)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that another byte follows."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
