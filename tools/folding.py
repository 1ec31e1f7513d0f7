"""Takes out of a graph what never runs: branches of conditionals, dropouts that keep all.

Whether something runs is told by numbers and bools that are known before the graph runs. Other
constants are left to TensorFlow, which folds them as it loads a graph.

Operations: `tensorflow/core/ops/control_flow_ops.cc`, `functional_ops.cc`, `random_ops.cc`,
`stateless_random_ops.cc`.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.reader import Array
from metagraph.graph import attribute_of, data_inputs
from metagraph.meta import node_of
from metagraph.usage import output_index
from tools.graph_nodes import make_constant, make_identity, remake, waits

_MAX_DEPTH = 64
_INT32: int = tf.int32.as_datatype_enum
_ORDERS: Mapping[str, Callable[..., Any]] = {
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
}
_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **_ORDERS,
    "Add": np.add,
    "AddV2": np.add,
    "Enter": np.asarray,
    "Equal": np.equal,
    "Identity": np.asarray,
    "LogicalAnd": np.logical_and,
    "LogicalNot": np.logical_not,
    "LogicalOr": np.logical_or,
    "Mul": np.multiply,
    "NotEqual": np.not_equal,
    "RealDiv": np.divide,
    "StopGradient": np.asarray,
    "Sub": np.subtract,
}


def fold(graph: GraphDef, wanted: Collection[str]) -> None:
    """Folds conditionals of known predicates, and dropouts that keep everything.

    All is done within the graph itself; the functions that it calls stay as they are.

    Args:
      graph: changed in place, without variables; what never runs any more is still there, and
        nothing that `wanted` needs takes it.
      wanted: full names of the tensors that are fetched; they keep their values and names.
    """
    while _fold_switches(graph, wanted):  # What comes out of one may be the predicate of another.
        pass
    _fold_choices(graph)
    _fold_dropouts(graph)


class Scalars:
    """Finds known values; the nodes may change meanwhile, as long as they give the same."""

    def __init__(self, nodes: Mapping[str, NodeDef]) -> None:
        """Takes the nodes by name."""
        self._nodes = nodes
        self._known: dict[str, Array | None] = {}

    def value(self, text: str, depth: int = 0) -> Array | None:
        """What an input of a node is, of shape []; None where that is not known."""
        name = node_of(text)
        if name not in self._known and name in self._nodes and depth <= _MAX_DEPTH:
            self._known[name] = None  # Of a loop, nothing is known.
            self._known[name] = self._evaluated(self._nodes[name], depth + 1)
        return None if output_index(text) else self._known.get(name)

    def _evaluated(self, node: NodeDef, depth: int) -> Array | None:
        if node.op == "Const":
            return _constant(node)
        if node.op not in _OPERATIONS and node.op != "Cast":
            return None
        given = [self.value(text, depth) for text in data_inputs(node)]
        if not given or any(value is None for value in given):
            return None
        if node.op == "Cast":
            dtype = tf.as_dtype(attribute_of(node, "DstT").type)
            return np.asarray(given[0]).astype(dtype.as_numpy_dtype)
        with np.errstate(all="ignore"):
            return np.asarray(_OPERATIONS[node.op](*given))


def _constant(node: NodeDef) -> Array | None:
    """A constant of one number or bool; one that waits for its value is not known."""
    tensor = attribute_of(node, "value").tensor
    if tensor.tensor_shape.dim or tensor.tensor_shape.unknown_rank or not tensor.dtype:
        return None
    try:
        value: Array = tf.make_ndarray(tensor)
    except (ValueError, TypeError):  # More values than one, or of no dtype: TensorFlow refuses it.
        return None
    return value if value.dtype.kind in "biuf" and value.size == 1 else None


# Conditionals of the old kind. A `Switch` gives its value at one of two outputs, as its predicate
# says. Whatever follows from the other is dead and does not run, up to a `Merge`, which passes on
# the input that is alive.


def _fold_switches(graph: GraphDef, wanted: Collection[str]) -> bool:
    """Makes each Switch of a known predicate pass on its value, and each Merge its live input.

    Returns:
      Whether something was folded. Dead nodes stay, and nothing that is alive takes them.
    """
    nodes = {node.name: node for node in graph.node}
    known, fetched, live = Scalars(nodes), {node_of(name) for name in wanted}, dict[str, int]()
    for name, node in nodes.items():
        predicate = known.value(data_inputs(node)[1]) if node.op == "Switch" else None
        if predicate is not None and name not in fetched:
            live[name] = int(bool(predicate))
    dead = _Dead(nodes, {(name, 1 - output) for name, output in live.items()})
    if not live or dead.names & fetched:
        return False
    renamed = {f"{name}:{output}": name for name, output in live.items()}
    for node in nodes.values():
        if node.op == "Merge" and node.name not in dead.names:
            renamed.update(_fold_merge(graph, node, dead))
    for name in live:
        make_identity(nodes[name], nodes[name].input[0], attribute_of(nodes[name], "T").type)
    for node in graph.node:
        node.input[:] = [renamed.get(text, text) for text in node.input]
    return True


class _Dead:
    """The nodes that never run, as they take, or wait for, something dead."""

    def __init__(self, nodes: Mapping[str, NodeDef], outputs: Collection[tuple[str, int]]) -> None:
        """Follows the dead `outputs` of switches, each a node and a number."""
        self.names = set[str]()
        self._nodes, self._outputs = nodes, outputs
        takers: dict[str, list[NodeDef]] = {}
        for node in nodes.values():
            for name in {node_of(text.removeprefix("^")) for text in node.input}:
                takers.setdefault(name, []).append(node)
        waiting = [name for name, _ in outputs]
        while waiting:
            for node in takers.get(waiting.pop(), ()):
                if node.name not in self.names and self._is_dead(node):
                    self.names.add(node.name)
                    waiting.append(node.name)

    def gives(self, text: str) -> bool:
        """Whether an input of a node is dead."""
        name = node_of(text.removeprefix("^"))
        is_output = not text.startswith("^") and (name, output_index(text)) in self._outputs
        return is_output or name in self.names

    def _is_dead(self, node: NodeDef) -> bool:
        if node.op != "Merge":
            return any(map(self.gives, node.input))
        # What a loop gives back is dead if what it began with is.
        begun = [t for t in data_inputs(node) if self._nodes[node_of(t)].op != "NextIteration"]
        return all(map(self.gives, begun))


def _fold_merge(graph: GraphDef, node: NodeDef, dead: _Dead) -> dict[str, str]:
    """Leaves the one live input of a Merge, and makes a constant of what says which one it was."""
    inputs = data_inputs(node)
    alive = [index for index, text in enumerate(inputs) if not dead.gives(text)]
    if len(alive) != 1:
        return {}
    wait = [text for text in waits(node) if text[1:] not in dead.names]
    types = {"T": attribute_of(node, "T").type}
    remake(node, "Identity", [inputs[alive[0]], *wait], types)
    index = graph.node.add(name=f"{node.name}/value_index")
    make_constant(index, np.asarray(alive[0], np.int32), _INT32, [f"^{node.name}"])
    return {f"{node.name}:1": index.name}


# Conditionals of the new kind: a function is chosen.

_CALLS = {
    "Case": "StatefulPartitionedCall",
    "If": "StatefulPartitionedCall",
    "StatelessCase": "PartitionedCall",
    "StatelessIf": "PartitionedCall",
}


def _fold_choices(graph: GraphDef) -> None:
    """Makes each choice that is known a call of the one function that runs."""
    known = Scalars({node.name: node for node in graph.node})
    for node in graph.node:
        choice = known.value(data_inputs(node)[0]) if node.op in _CALLS else None
        if choice is None:
            continue
        functions = [*attribute_of(node, "branches").list.func]
        index = int(choice) if 0 <= choice < len(functions) else -1  # If none has it, the last.
        if not functions:
            functions = [attribute_of(node, key).func for key in ("else_branch", "then_branch")]
            index = int(bool(choice))
        chosen = AttrValue(func=functions[index])
        node.op = _CALLS[node.op]
        del node.input[0]
        for name in set(node.attr) - {"Tin", "Tout"}:
            node.attr.pop(name)
        node.attr["f"].CopyFrom(chosen)


# Dropouts that keep everything: what is multiplied by ones is passed on, and nothing is drawn. The
# mask is the same whatever uniform numbers are drawn, as those are in [0, 1). Forms in use:
#
#   x / keep * floor(keep + drawn)                      TensorFlow until 1.12
#   x * (1 / (1 - rate)) * cast(drawn >= rate)          since 1.13
#   select(drawn >= rate, x * (1 / (1 - rate)), 0)      since 2.9
#   x * (cast(drawn < keep) / keep)                     here

_UNIFORM = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})
_EXTREMES = (0.0, np.nextafter(1.0, 0.0))  # What holds for both holds for all that is drawn.
_NEUTRAL = {"Add": 0, "AddV2": 0, "Mul": 1}
_SUMS = frozenset({"Add", "AddV2"})
# Those that give a tensor of the shape of what they take first, or take beside numbers.
_SAME_SHAPE = frozenset(
    {"BiasAdd", "Cast", "Identity", "Mul", "RealDiv", "Relu", "Sigmoid", "StopGradient", "Tanh"}
)


class _Filled(NamedTuple):
    """A tensor of one value all over: the value, of shape [], and what drew its shape, if any."""

    value: Array
    source: NodeDef | None


def _fold_dropouts(graph: GraphDef) -> None:
    """Makes dropouts that keep everything identities, in place.

    Where it is not known that a mask has the shape of what it is for, the mask becomes a `Fill` of
    its shape, so that nothing is drawn there either.
    """
    masks = _Masks({node.name: node for node in graph.node})
    for node in list(graph.node):
        passed = masks.passed_on(node)
        if passed is not None:
            make_identity(node, passed, attribute_of(node, "T").type)
    for node in list(graph.node):
        mask = masks.drawn(node)
        if mask is not None and mask.source is not None:
            _make_fill(graph, node, mask.value, mask.source)


def _make_fill(graph: GraphDef, node: NodeDef, value: Array, source: NodeDef) -> None:
    shape, dtype = source.input[0], tf.as_dtype(value.dtype).as_datatype_enum
    constant = graph.node.add(name=f"{node.name}/filled")
    # In a loop of the old kind a constant has to wait for something of the loop.
    make_constant(constant, value, dtype, [f"^{node_of(shape)}"])
    types = {"T": dtype, "index_type": attribute_of(source, "T").type or _INT32}
    remake(node, "Fill", [shape, constant.name, *waits(node)], types)


class _Masks:
    """What is known of the tensors of a graph that follow from uniform random numbers."""

    def __init__(self, nodes: Mapping[str, NodeDef]) -> None:
        self._nodes = nodes
        self._known = Scalars(nodes)

    def passed_on(self, node: NodeDef) -> str | None:
        """The input that a node gives unchanged, if that is known."""
        inputs = data_inputs(node)
        if node.op == "Mul":
            pairs = (inputs, inputs[::-1])
            return next((x for x, mask in pairs if self._is_all(mask, 1, x)), None)
        if node.op == "RealDiv":
            return inputs[0] if self._is_all(inputs[1], 1, inputs[0]) else None
        if node.op in ("Select", "SelectV2") and self._is_all(inputs[0], True, inputs[1]):
            # A third of a larger shape would make the result as large.
            return inputs[1] if self._known.value(inputs[2]) is not None else None
        return None

    def drawn(self, node: NodeDef) -> _Filled | None:
        """The mask that a node makes of drawn numbers themselves, if it is the same for all."""
        is_floor = node.op == "Floor"
        taker = self._nodes[node_of(data_inputs(node)[0])] if is_floor else node
        if taker.op not in (_SUMS if is_floor else _ORDERS):
            return None
        for swapped in (False, True):
            drawn, other = data_inputs(taker)[:: -1 if swapped else 1]
            source, limit = self._source(drawn), self._known.value(other)
            if source is None or limit is None:
                continue
            if is_floor:
                return _Filled(np.ones([], limit.dtype), source) if limit == 1 else None
            pairs = [(limit, extreme) if swapped else (extreme, limit) for extreme in _EXTREMES]
            if all(_ORDERS[node.op](*pair) for pair in pairs):
                return _Filled(np.asarray(True), source)
        return None

    def _source(self, text: str) -> NodeDef | None:
        """The node that draws uniform numbers; TensorFlow makes `drawn * (1 - 0) + 0` of them."""
        for _ in range(_MAX_DEPTH):
            node = self._nodes[node_of(text)]
            if node.op in _UNIFORM:
                return node
            if node.op not in _NEUTRAL:
                return None
            text, other = data_inputs(node)
            value = self._known.value(other)
            if value is None or value != _NEUTRAL[node.op]:
                return None
        return None

    def _is_all(self, text: str, value: float, of_shape: str) -> bool:
        """Whether a tensor is `value` all over, and has no larger shape than another tensor."""
        filled = self._filled(text)
        if filled is None or filled.value != value:
            return False
        return filled.source is None or self._has_shape(of_shape, filled.source.input[0])

    def _filled(self, text: str, depth: int = 0) -> _Filled | None:
        """A tensor of one value, if it is known to be one."""
        value, node = self._known.value(text), self._nodes[node_of(text)]
        if value is not None:
            return _Filled(value, None)
        if node.op not in ("Cast", "Identity", "RealDiv") or depth > _MAX_DEPTH:
            return self.drawn(node)
        inputs = data_inputs(node)
        found = self._filled(inputs[0], depth + 1)
        if found is None or node.op == "Identity":
            return found
        if node.op == "Cast":
            dtype = tf.as_dtype(attribute_of(node, "DstT").type).as_numpy_dtype
            return found._replace(value=found.value.astype(dtype))
        by = self._known.value(inputs[1])
        return found._replace(value=np.asarray(found.value / by)) if by else None

    def _has_shape(self, text: str, shape: str) -> bool:
        """Whether a shape is that of a tensor."""
        node = self._nodes[node_of(shape)]
        while node.op == "Identity":
            node = self._nodes[node_of(data_inputs(node)[0])]
        return node.op == "Shape" and self._base(data_inputs(node)[0]) == self._base(text)

    def _base(self, text: str) -> str:
        """The tensor that another has its shape from."""
        for _ in range(_MAX_DEPTH):
            node = self._nodes[node_of(text)]
            inputs = data_inputs(node)
            if node.op in ("Mul", "RealDiv"):  # By a number, the shape is that of the other.
                inputs = [taken for taken in inputs if self._known.value(taken) is None]
            if (
                output_index(text)
                or node.op not in _SAME_SHAPE
                or (node.op != "BiasAdd" and len(inputs) != 1)
            ):
                break
            text = inputs[0]
        return text.removesuffix(":0")
