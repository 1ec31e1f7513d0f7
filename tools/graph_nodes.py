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


def make_constant(node: NodeDef, value: Array, wait: Sequence[str] = ()) -> None:
    """Makes a node a `Const`, with a single copy of a large value.

    Inside a loop of the old kind it has to `wait` for something of it, `^name`.
    """
    dtype = tf.as_dtype(value.dtype)
    remake(node, "Const", wait, {"dtype": dtype.as_datatype_enum})
    tensor = node.attr["value"].tensor
    if dtype == tf.string:
        tensor.CopyFrom(tf.make_tensor_proto(value, dtype, value.shape))
        return
    tensor.dtype = dtype.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    tensor.tensor_content = np.ascontiguousarray(value).tobytes()


def make_placeholder(node: NodeDef, dtype: tf.DType, shape: Sequence[int | None] | None) -> None:
    """Makes a node a `Placeholder`; None for sizes, or a rank, that are not known."""
    remake(node, "Placeholder", (), {"dtype": dtype.as_datatype_enum})
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())


def without_large_constants(
    meta: MetaGraphDef, fetches: Collection[str]
) -> tuple[MetaGraphDef, dict[str, Array]]:
    """The same with placeholders for large constants, whose memory is not copied.

    Constants among `fetches`, full tensor names, stay.

    Returns:
      The copy, and the value of each constant, read-only, by the name of its tensor.
    """
    light, found = MetaGraphDef(collection_def=meta.collection_def), dict[str, Array]()
    light.graph_def.versions.CopyFrom(meta.graph_def.versions)
    light.graph_def.library.CopyFrom(meta.graph_def.library)
    fetched = {node_of(name) for name in fetches}
    for node in meta.graph_def.node:
        if node.op == "Const" and not node.input and node.name not in fetched:
            tensor = node.attr["value"].tensor
            dtype, shape = tf.as_dtype(tensor.dtype), [d.size for d in tensor.tensor_shape.dim]
            size = math.prod(shape) * dtype.size
            if size >= _LARGE and len(tensor.tensor_content) == size:  # As variables are kept.
                make_placeholder(light.graph_def.node.add(name=node.name), dtype, shape)
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
