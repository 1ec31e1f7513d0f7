"""Nodes of a graph as data, made or remade by hand; and a graph without its large constants.

Format: `tensorflow/core/framework/node_def.proto`, and `tensor.proto` beside it.
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

_LARGE = 1 << 20  # Bytes.


def remake(node: NodeDef, op: str, inputs: Sequence[str], types: Mapping[str, int]) -> None:
    """Makes another operation of a node, which keeps its name alone.

    Of its `inputs`, those that are only waited for come last. `types` are its only attributes: name
    -> the number of a `tf.DType`.
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


def waits_for_inputs(node: NodeDef) -> list[str]:
    """What a node waits for once it takes nothing any more: what it took, and what it waited for.

    A constant of a loop has to wait for something of the loop, or it would stand outside of it.
    """
    names = [f"^{text.partition(':')[0]}" for text in data_inputs(node)]
    return list(dict.fromkeys([*names, *waits(node)]))


def make_identity(node: NodeDef, of: str, dtype: int) -> None:
    """Makes a node pass on the tensor `of`; it still waits for all that it waited for."""
    remake(node, "Identity", [of, *waits(node)], {"T": dtype})


def make_constant(node: NodeDef, value: Array, dtype: int, wait: Sequence[str] = ()) -> None:
    """Makes a `Const` of a node, of any dtype that a tensor may have; it waits for `wait`, `^name`.

    Inside a loop, a constant has to wait for something of it.
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
    tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    tensor.tensor_content = np.ascontiguousarray(value).tobytes()


def add_placeholder(
    graph: GraphDef, name: str, dtype: tf.DType, shape: Sequence[int | None] | None
) -> None:
    """Adds a `Placeholder`; None for sizes, or a rank, that are not known."""
    node = graph.node.add(name=name, op="Placeholder")
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())


def without_large_constants(
    meta: MetaGraphDef, fetches: Collection[str]
) -> tuple[MetaGraphDef, dict[str, Array]]:
    """The same with placeholders for large constants, whose memory is not copied.

    Constants among `fetches`, full tensor names, stay.

    Returns:
      The copy, and the value of each constant, read-only, by the name of its tensor.
    """
    light, found = MetaGraphDef(), dict[str, Array]()
    light.graph_def.versions.CopyFrom(meta.graph_def.versions)
    light.graph_def.library.CopyFrom(meta.graph_def.library)
    for key, collection in meta.collection_def.items():
        light.collection_def[key].CopyFrom(collection)
    fetched = {node_of(name) for name in fetches}
    for node in meta.graph_def.node:
        tensor = node.attr["value"].tensor if node.op == "Const" and not node.input else None
        if tensor is not None and node.name not in fetched:
            dtype = tf.as_dtype(tensor.dtype)
            shape = [dim.size for dim in tensor.tensor_shape.dim]
            size = math.prod(shape) * dtype.size
            if size >= _LARGE and len(tensor.tensor_content) == size:  # As variables are kept.
                add_placeholder(light.graph_def, node.name, dtype, shape)
                values = np.frombuffer(tensor.tensor_content, dtype.as_numpy_dtype)
                found[f"{node.name}:0"] = values.reshape(shape)
                continue
        light.graph_def.node.add().CopyFrom(node)
    return light, found


def graph_parts(graph: GraphDef) -> Iterator[bytes]:
    """The bytes of a graph, node by node, so that no second copy of it need be in memory.

    Serialized messages that follow each other are one message, with the fields of all.
    """
    for node in graph.node:
        yield GraphDef(node=[node]).SerializeToString(deterministic=True)
    rest = GraphDef(library=graph.library, versions=graph.versions)
    yield rest.SerializeToString(deterministic=True)
