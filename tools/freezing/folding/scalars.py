"""The numbers and bools of a graph that are known before it runs: constants, and what follows.

Switches and dropouts stand on a handful of operations over single values; others are not looked at.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.graph_view import attribute, data_inputs
from checkpoints.loading.meta_graph_file import node_of
from prediction.wiring import output_index

_MAX_DEPTH = 64

_SAME = frozenset({"Enter", "Identity", "StopGradient"})
_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "LogicalAnd": np.logical_and,
    "LogicalNot": np.logical_not,
    "LogicalOr": np.logical_or,
    "Mul": np.multiply,
    "NotEqual": np.not_equal,
    "RealDiv": np.divide,
    "Sub": np.subtract,
}


class Scalars:
    """Finds known values; the nodes may change meanwhile, as long as they give the same."""

    def __init__(self, nodes: Mapping[str, NodeDef]) -> None:
        """Takes the nodes by name."""
        self._nodes = nodes
        self._known: dict[str, Array | None] = {}

    def value(self, text: str, depth: int = 0) -> Array | None:
        """What an input of a node is, of shape []; None where that is not known."""
        name = node_of(text)
        if name in self._known:
            return self._known[name]
        node = self._nodes.get(name)
        if node is None or depth > _MAX_DEPTH or output_index(text):
            return None
        self._known[name] = None  # Of a loop, nothing is known.
        self._known[name] = self._evaluated(node, depth + 1)
        return self._known[name]

    def _evaluated(self, node: NodeDef, depth: int) -> Array | None:
        if node.op == "Const":
            return _constant(node)
        if node.op not in _SAME and node.op not in _OPERATIONS and node.op != "Cast":
            return None
        inputs = [self.value(text, depth) for text in data_inputs(node)]
        given = [value for value in inputs if value is not None]
        if len(given) != len(inputs) or not given:
            return None
        if node.op in _SAME:
            return given[0]
        if node.op == "Cast":
            return given[0].astype(tf.as_dtype(attribute(node, "DstT").type).as_numpy_dtype)
        with np.errstate(all="ignore"):
            return np.asarray(_OPERATIONS[node.op](*given))


def _constant(node: NodeDef) -> Array | None:
    """A constant of one number or bool; of those that wait for their values, none is known."""
    tensor = attribute(node, "value").tensor
    if tensor.tensor_shape.dim or tensor.tensor_shape.unknown_rank or not tensor.dtype:
        return None
    try:
        value: Array = tf.make_ndarray(tensor)
    except (ValueError, TypeError):  # More values than one, or of no dtype: TensorFlow refuses it.
        return None
    return value if value.dtype.kind in "biuf" and value.size == 1 else None
