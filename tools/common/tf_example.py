"""A serialized `tf.Example` for a graph that takes such apart.

Operations: `tensorflow/core/ops/parsing_ops.cc`. Format: `tensorflow/core/example/example.proto`.
"""

import math
from collections.abc import Iterator, Sequence

import tensorflow as tf
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import View, attribute, data_inputs, source
from checkpoints.loading.meta_graph_file import node_of
from checkpoints.loading.string_const import text_at
from prediction.wiring import Wiring

_PARSERS = ("ParseExample", "ParseExampleV2")


def example_of(wiring: Wiring, tensor: str) -> bytes:
    """An example with a value for each dense feature that the takers of a tensor ask for.

    Args:
      wiring: of the graph.
      tensor: a tensor of strings, in full.

    Returns:
      An empty text, which is an empty example too, where nothing parses the tensor.
    """
    example = Example()
    for name in wiring.takers.get(node_of(tensor), ()):
        node = wiring.nodes[name]
        if node.op in _PARSERS:
            for key, dtype, size in _dense_features(wiring, node):
                _add_feature(example, key, dtype, size)
    return bytes(example.SerializeToString(deterministic=True))


def _dense_features(wiring: Wiring, node: NodeDef) -> Iterator[tuple[str, int, int]]:
    """The name, dtype and number of values of each feature."""
    types = attribute(node, "Tdense").list.type
    shapes = attribute(node, "dense_shapes").list.shape
    keys = _dense_keys(wiring, node, len(types))
    for key, dtype, shape in zip(keys, types, shapes, strict=False):
        yield key, dtype, math.prod(max(1, dim.size) for dim in shape.dim)


def _dense_keys(wiring: Wiring, node: NodeDef, count: int) -> Sequence[str]:
    """The names of the features; those that the graph computes are left out."""
    inputs = data_inputs(node)
    if node.op == "ParseExampleV2":  # One vector of all names.
        found = source(View(wiring.nodes), inputs[3]) if len(inputs) > 3 else None
        texts = [text_at(found.node, index) for index in range(count)] if found else []
    else:  # A scalar each, after the sparse ones.
        first = 2 + attribute(node, "Nsparse").i
        sources = [source(View(wiring.nodes), text) for text in inputs[first : first + count]]
        texts = [text_at(found.node, 0) if found else None for found in sources]
    return [text or "" for text in texts]


def _add_feature(example: Example, key: str, dtype: int, size: int) -> None:
    feature = example.features.feature[key]
    if dtype == tf.float32.as_datatype_enum:
        feature.float_list.value.extend([0.5] * size)
    elif dtype == tf.int64.as_datatype_enum:
        feature.int64_list.value.extend([0] * size)
    else:
        feature.bytes_list.value.extend([b""] * size)
