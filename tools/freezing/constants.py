"""Large constants of a graph, apart from it.

Format: `tensorflow/core/framework/tensor.proto`.
"""

import math
from collections.abc import Collection

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.meta_graph_file import node_of
from tools.freezing.nodes import add_placeholder

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
