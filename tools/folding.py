"""Takes out of a graph what never runs.

That are branches of conditionals, and dropouts that keep everything. Masks made of uniform random
numbers may be the same whatever is drawn.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import NameAttrList
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.reader import Array
from metagraph.graph import attribute_of, data_inputs
from metagraph.meta import node_of
from metagraph.usage import output_index
from tools.graph_nodes import (
    Scalars,
    can_write_out,
    make_constant,
    make_identity,
    remake,
    waits,
    write_out,
)

# Masks made of uniform random numbers that are the same whatever is drawn.
#
# Uniform numbers are in [0, 1). So all of them are below a share of 1, and none is below a rate of
# 0.
#
# Operations: `tensorflow/core/ops/random_ops.cc`, `stateless_random_ops.cc`.

_UNIFORM = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})
_INT32: int = tf.int32.as_datatype_enum
_SUMS = frozenset({"Add", "AddV2"})
_THROUGH = frozenset({"Cast", "Identity", "RealDiv"})
_MAX_MASK_DEPTH = 16
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
                number: int = attribute_of(source, "T").type
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
        if node.op not in _SUMS | {"Mul"} or depth > _MAX_MASK_DEPTH:
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
        if node.op in _THROUGH and depth < _MAX_MASK_DEPTH and inputs:
            return self._followed(node, [self._filled(taken, depth + 1) for taken in inputs])
        return self.drawn_mask(node)

    def _followed(self, node: NodeDef, given: Sequence[Filled | None]) -> Filled | None:
        """What an operation makes of a tensor of one value; of a quotient, by a single number."""
        first, last = given[0], given[-1]
        if first is None or last is None or node.op == "Identity":
            return first
        if node.op == "Cast":
            dtype = tf.as_dtype(attribute_of(node, "DstT").type).as_numpy_dtype
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


# Conditionals of the new kind: of the functions that are chosen between, the one that runs.
#
# It is written out in the place of the choice, so that what is known inside of it can be folded
# too.
#
# Operations: `tensorflow/core/ops/functional_ops.cc`.

_CALLS = {
    "Case": "StatefulPartitionedCall",
    "If": "StatefulPartitionedCall",
    "StatelessCase": "PartitionedCall",
    "StatelessIf": "PartitionedCall",
}
_KEPT = ("Tin", "Tout")


def fold_branches(graph: GraphDef) -> bool:
    """Puts the chosen function in the place of each choice that is known, in place.

    Returns:
      Whether something was folded.
    """
    known = Scalars({node.name: node for node in graph.node})
    library = {function.signature.name: function for function in graph.library.function}
    folded = False
    for node in list(graph.node):
        choice = known.value(data_inputs(node)[0]) if node.op in _CALLS else None
        if choice is not None:
            folded = True
            _call(node, _chosen(node, choice))
            function = library.get(node.attr["f"].func.name)
            if function is not None and can_write_out(node, function):
                write_out(graph, node, function)
    return folded


def _chosen(node: NodeDef, choice: Array) -> NameAttrList:
    """The function that is run; of several by number, the last where there is none of it."""
    if node.op.endswith("If"):
        return attribute_of(node, "then_branch" if choice else "else_branch").func
    branches = attribute_of(node, "branches").list.func
    index = int(choice)
    return branches[index if 0 <= index < len(branches) else -1]


def _call(node: NodeDef, function: NameAttrList) -> None:
    chosen = NameAttrList()
    chosen.CopyFrom(function)
    node.op = _CALLS[node.op]
    del node.input[0]
    for name in [name for name in node.attr if name not in _KEPT]:
        node.attr.pop(name)
    node.attr["f"].func.CopyFrom(chosen)


# Conditionals of the old kind: what stands between a Switch and a Merge, and never runs.
#
# A `Switch` gives its value at one of two outputs, as its predicate says. Whatever follows from the
# other is dead and does not run, up to a `Merge`, which passes on the input that is alive.
#
# Operations: `tensorflow/core/ops/control_flow_ops.cc`.


def fold_conditionals(graph: GraphDef, wanted: Collection[str]) -> bool:
    """Makes each Switch of a known predicate pass on its value, and each Merge its live input.

    Args:
      graph: changed in place; dead nodes stay, and nothing that is alive takes them.
      wanted: full names of the tensors that are fetched.

    Returns:
      Whether something was folded: a further predicate may be known then.
    """
    nodes = {node.name: node for node in graph.node}
    live = _live_outputs(nodes, wanted)
    dead = _dead(nodes, {(name, 1 - output) for name, output in live.items()})
    if not live or dead.intersection(node_of(name) for name in wanted):
        return False
    indices = dict[str, str]()
    for node in (n for name, n in nodes.items() if n.op == "Merge" and name not in dead):
        indices.update(_fold_merge(graph, node, dead, live))
    for name in live:
        make_identity(nodes[name], nodes[name].input[0], attribute_of(nodes[name], "T").type)
    renamed = {f"{name}:{output}": name for name, output in live.items()} | indices
    for node in graph.node:
        inputs = [renamed.get(text, text) for text in node.input]
        del node.input[:]
        node.input.extend(inputs)
    return True


def _live_outputs(nodes: Mapping[str, NodeDef], wanted: Collection[str]) -> dict[str, int]:
    """Of each Switch whose predicate is known, the output that is alive."""
    known = Scalars(nodes)
    fetched = {node_of(name) for name in wanted}
    found = {}
    for name, node in nodes.items():
        if node.op == "Switch" and name not in fetched:
            predicate = known.value(data_inputs(node)[1])
            if predicate is not None:
                found[name] = int(bool(predicate))
    return found


def _dead(nodes: Mapping[str, NodeDef], outputs: Collection[tuple[str, int]]) -> set[str]:
    """The nodes that never run, as they take, or wait for, something dead."""
    takers: dict[str, list[NodeDef]] = {}
    for node in nodes.values():
        for name in {node_of(text.removeprefix("^")) for text in node.input}:
            takers.setdefault(name, []).append(node)
    dead = set[str]()
    waiting = [name for name, _ in outputs]
    while waiting:
        for node in takers.get(waiting.pop(), ()):
            if node.name not in dead and _is_dead(nodes, node, dead, outputs):
                dead.add(node.name)
                waiting.append(node.name)
    return dead


def _is_dead(
    nodes: Mapping[str, NodeDef],
    node: NodeDef,
    dead: Collection[str],
    outputs: Collection[tuple[str, int]],
) -> bool:
    if node.op != "Merge":
        return any(_comes_dead(text, dead, outputs) for text in node.input)
    # What a loop gives back is dead if what it began with is.
    begun = [t for t in data_inputs(node) if nodes[node_of(t)].op != "NextIteration"]
    return all(_comes_dead(text, dead, outputs) for text in begun)


def _comes_dead(text: str, dead: Collection[str], outputs: Collection[tuple[str, int]]) -> bool:
    name = node_of(text.removeprefix("^"))
    return name in dead or (not text.startswith("^") and (name, output_index(text)) in outputs)


def _fold_merge(
    graph: GraphDef, node: NodeDef, dead: Collection[str], live: Mapping[str, int]
) -> dict[str, str]:
    """Leaves the one live input of a Merge, and makes a constant of what says which one it was."""
    outputs = {(name, 1 - output) for name, output in live.items()}
    inputs = data_inputs(node)
    alive = [i for i, text in enumerate(inputs) if not _comes_dead(text, dead, outputs)]
    if len(alive) != 1:
        return {}
    wait = [text for text in waits(node) if text[1:] not in dead]
    make_identity(node, inputs[alive[0]], attribute_of(node, "T").type)
    del node.input[1:]
    node.input.extend(wait)
    index = graph.node.add(name=f"{node.name}/value_index")
    make_constant(index, np.asarray(alive[0], np.int32), _INT32, [f"^{node.name}"])
    return {f"{node.name}:1": index.name}


# Dropouts that keep everything: what is multiplied by ones is passed on, and nothing is drawn.
#
# The mask is known without drawing any number, see above. These are the forms in use:
#
#   x / keep * floor(keep + drawn)                      TensorFlow until 1.12
#   x * (1 / (1 - rate)) * cast(drawn >= rate)          since 1.13
#   select(drawn >= rate, x * (1 / (1 - rate)), 0)      since 2.9
#   x * (cast(drawn < keep) / keep)                     here, `models/blocks.py`

_SELECTS = frozenset({"Select", "SelectV2"})


def fold_dropouts(graph: GraphDef) -> None:
    """Makes dropouts that keep everything identities, in place.

    Where it is not known that a mask has the shape of what it is for, the mask becomes a `Fill` of
    its shape, so that nothing is drawn there either.
    """
    nodes = {node.name: node for node in graph.node}
    masks, known = Masks(nodes), Scalars(nodes)
    for node in list(graph.node):
        passed = _passed_on(node, masks, known)
        if passed is not None:
            make_identity(node, passed, attribute_of(node, "T").type)
    for node in list(graph.node):
        mask = masks.drawn_mask(node)
        if mask is not None and mask.shape is not None:
            _make_fill(graph, node, mask.value, mask.shape, masks.shape_type(node))


def _make_fill(graph: GraphDef, node: NodeDef, value: Array, shape: str, index_type: int) -> None:
    dtype = tf.as_dtype(value.dtype).as_datatype_enum
    constant = graph.node.add(name=f"{node.name}/filled")
    # In a loop of the old kind a constant has to wait for something of the loop.
    make_constant(constant, value, dtype, [f"^{node_of(shape)}"])
    remake(
        node, "Fill", [shape, constant.name, *waits(node)], {"T": dtype, "index_type": index_type}
    )


def _passed_on(node: NodeDef, masks: Masks, known: Scalars) -> str | None:
    """The input that a node gives unchanged, if that is known."""
    inputs = data_inputs(node)
    if node.op == "Mul" and len(inputs) == 2:
        for values, mask in (inputs, inputs[::-1]):
            if masks.is_all(mask, 1, of_shape=values):
                return values
    if node.op == "RealDiv" and len(inputs) == 2 and masks.is_all(inputs[1], 1, inputs[0]):
        return inputs[0]
    if node.op in _SELECTS and len(inputs) == 3 and masks.is_all(inputs[0], True, inputs[1]):
        # A third of a larger shape would make the result as large.
        return inputs[1] if known.value(inputs[2]) is not None else None
    return None


# Works out what is known of a graph, and takes out what then never runs.


def fold(graph: GraphDef, wanted: Collection[str]) -> None:
    """Folds conditionals of known predicates, and dropouts that keep everything.

    All is done within the graph itself; the functions that it calls stay as they are.

    Args:
      graph: changed in place, without variables; what never runs any more is still there, and
        nothing that `wanted` needs takes it.
      wanted: full names of the tensors that are fetched; they keep their values and names.
    """
    folding = True
    while folding:  # What comes out of a conditional may be the predicate of another.
        folding = fold_conditionals(graph, wanted) or fold_branches(graph)
    fold_dropouts(graph)
