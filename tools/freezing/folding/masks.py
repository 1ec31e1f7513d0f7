"""Masks made of uniform random numbers that are the same whatever is drawn.

Uniform numbers are in [0, 1). So all of them are below a share of 1, and none is below a rate of 0.

Operations: `tensorflow/core/ops/random_ops.cc`, `stateless_random_ops.cc`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.graph_view import attribute, data_inputs
from checkpoints.loading.meta_graph_file import node_of
from prediction.wiring import output_index
from tools.freezing.folding.scalars import Scalars

_UNIFORM = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})
_INT32: int = tf.int32.as_datatype_enum
_SUMS = frozenset({"Add", "AddV2"})
_THROUGH = frozenset({"Cast", "Identity", "RealDiv"})
_MAX_DEPTH = 16
# Those that give as many values as their first input has, of the same shape.
_SAME_SHAPE = frozenset(
    {"Abs", "BiasAdd", "Cast", "Elu", "Identity", "Neg", "Relu", "Relu6", "Selu", "Sigmoid"}
    | {"Softplus", "StopGradient", "Tanh"}
)
# (operation, whether what is drawn stands first) -> whether it holds for all in [0, 1).
_HOLDS: Mapping[tuple[str, bool], Callable[[Array], bool]] = {
    ("Less", True): lambda share: bool(share >= 1),
    ("LessEqual", True): lambda share: bool(share >= 1),
    ("Greater", False): lambda share: bool(share >= 1),
    ("GreaterEqual", False): lambda share: bool(share >= 1),
    ("GreaterEqual", True): lambda rate: bool(rate <= 0),
    ("Greater", True): lambda rate: bool(rate < 0),
    ("LessEqual", False): lambda rate: bool(rate <= 0),
    ("Less", False): lambda rate: bool(rate < 0),
}


class Filled(NamedTuple):
    """A tensor of one value all over.

    Attributes:
      value: of shape [].
      shape: the tensor that says its shape; None for shape [].
    """

    value: Array
    shape: str | None


class Masks:
    """What is known of the tensors of a graph that follow from uniform random numbers."""

    def __init__(self, nodes: Mapping[str, NodeDef]) -> None:
        """Takes the nodes by name; they may change meanwhile, as long as they give the same."""
        self._nodes = nodes
        self._scalars = Scalars(nodes)

    def drawn_mask(self, node: NodeDef) -> Filled | None:
        """The mask that a node makes of drawn numbers themselves, if it is the same for all."""
        inputs = data_inputs(node)
        if node.op == "Floor":
            return self._floor(inputs[0])
        if len(inputs) != 2:
            return None
        for first in (True, False):
            drawn, limit = inputs if first else inputs[::-1]
            holds, shape = _HOLDS.get((node.op, first)), self._drawn(drawn)
            share = self._scalars.value(limit)
            if holds is not None and shape is not None and share is not None and holds(share):
                return Filled(np.asarray(True), shape)
        return None

    def shape_type(self, node: NodeDef) -> int:
        """The dtype of the shape of what was drawn for the mask that `node` is."""
        for text in data_inputs(node):
            source = self._source(text)
            if source is not None:
                number: int = attribute(source, "T").type
                return number or _INT32
            taker = self._nodes[node_of(text)]
            if taker.op in _SUMS:
                return self.shape_type(taker)
        return _INT32

    def _floor(self, text: str) -> Filled | None:
        """floor(1 + drawn), which is 1: as 1 + drawn is what is drawn first, the sum is exact."""
        node = self._nodes[node_of(text)]
        inputs = data_inputs(node)
        if node.op not in _SUMS or len(inputs) != 2:
            return None
        for keep_text, drawn in (inputs, inputs[::-1]):
            keep, shape = self._scalars.value(keep_text), self._drawn(drawn)
            if shape is not None and keep is not None and keep == 1:
                return Filled(np.ones([], keep.dtype), shape)
        return None

    def _drawn(self, text: str) -> str | None:
        """The shape of numbers drawn in [0, 1), as a tensor; None for other tensors."""
        source = self._source(text)
        return None if source is None else data_inputs(source)[0]

    def _source(self, text: str, depth: int = 0) -> NodeDef | None:
        """The node that draws uniform numbers; TensorFlow makes `drawn * (1 - 0) + 0` of them."""
        node = self._nodes[node_of(text)]
        if node.op in _UNIFORM:
            return node
        inputs, neutral = data_inputs(node), 1 if node.op == "Mul" else 0
        if node.op not in _SUMS | {"Mul"} or depth > _MAX_DEPTH:
            return None
        value = self._scalars.value(inputs[1])
        return (
            self._source(inputs[0], depth + 1) if value is not None and value == neutral else None
        )

    def is_all(self, text: str, value: float, of_shape: str) -> bool:
        """Whether a tensor is `value` all over, and has no larger shape than another tensor."""
        filled = self._filled(text)
        if filled is None or filled.value != value:
            return False
        return filled.shape is None or self._has_shape(of_shape, filled.shape)

    def _filled(self, text: str, depth: int = 0) -> Filled | None:
        """A tensor of one value, if it is known to be one."""
        value = self._scalars.value(text)
        if value is not None:
            return Filled(value, None)
        node = self._nodes[node_of(text)]
        inputs = data_inputs(node)
        if node.op in _THROUGH and depth < _MAX_DEPTH and inputs:
            return self._followed(node, [self._filled(taken, depth + 1) for taken in inputs])
        return self.drawn_mask(node)

    def _followed(self, node: NodeDef, given: Sequence[Filled | None]) -> Filled | None:
        """What an operation makes of a tensor of one value; of a quotient, by a single number."""
        first, last = given[0], given[-1]
        if first is None or last is None or node.op == "Identity":
            return first
        if node.op == "Cast":
            dtype = tf.as_dtype(attribute(node, "DstT").type).as_numpy_dtype
            return first._replace(value=first.value.astype(dtype))
        if last.shape is not None or last.value == 0:
            return None
        return first._replace(value=np.asarray(first.value / last.value))

    def _has_shape(self, text: str, shape: str) -> bool:
        """Whether a shape is that of a tensor."""
        node = self._nodes[node_of(shape)]
        while node.op == "Identity":
            node = self._nodes[node_of(data_inputs(node)[0])]
        return node.op == "Shape" and self._base(data_inputs(node)[0]) == self._base(text)

    def _base(self, text: str) -> str:
        """The tensor that another has its shape from."""
        for _ in range(len(self._nodes)):
            node = self._nodes[node_of(text)]
            inputs = data_inputs(node)
            if output_index(text):
                return text
            if node.op in _SAME_SHAPE:
                text = inputs[0]
            elif node.op in ("Mul", "RealDiv"):
                scalars = [self._scalars.value(text) is not None for text in inputs]
                if not any(scalars):
                    return node_of(text)
                text = inputs[0] if scalars[1] else inputs[1]
            else:
                return node_of(text)
        return node_of(text)
