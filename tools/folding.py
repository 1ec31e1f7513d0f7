"""A graph as data: its variables become constants, and what never runs is taken out.

TensorFlow's own converter follows the handles of variables. It asks a session for the values and
copies them several times: here it is given empty ones, and those of the checkpoint are put in the
finished graph, where each is in memory once.

Operations: `tensorflow/core/ops/resource_variable_ops.cc`, `state_ops.cc`, `control_flow_ops.cc`,
`random_ops.cc`, `stateless_random_ops.cc`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.reader import Array
from errors import ToolError, reason
from metagraph.graph import attribute_of, data_inputs, remake, waits
from metagraph.importing import BY_VALUE
from metagraph.meta import MetaGraphFile, node_of, output_index
from metagraph.variables import REF_VARIABLES, RESOURCE_VARIABLE, Variable, read_values
from tools.command import quiet

_MOST_BYTES = 2**31 - 1  # Of one protobuf message.
_LOOPS = frozenset({"StatelessWhile", "While"})
_READ = "/Read/ReadVariableOp"


def _empty(variable: Variable) -> Array:
    """What stands for a variable's value; as it is no scalar, nothing is folded by it."""
    return np.empty([0], variable.dtype.as_numpy_dtype)


def replace_variables(
    graph: GraphDef, variables: Mapping[str, Variable], wanted: Collection[str], path: str
) -> GraphDef:
    """Replaces the variables of a part of a file's graph by constants without values.

    What changes a variable stays as it is: it may be gone once the graph is folded, and cannot be
    imported otherwise. `graph` is changed in place; `wanted` are full names of what is kept. Raises
    ToolError where handles of variables go where the converter does not follow them.
    """
    for node in graph.node:
        node.op = BY_VALUE.get(node.op, node.op)
        if node.op in REF_VARIABLES:
            make_constant(node, _empty(variables[node.name]))
    if any(node.op == RESOURCE_VARIABLE for node in graph.node):
        return _convert_handles(graph, variables, wanted, path)
    return graph


def _convert_handles(
    graph: GraphDef, variables: Mapping[str, Variable], wanted: Collection[str], path: str
) -> GraphDef:
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        _read_before_lookups(nodes, in_function=nodes is not graph.node)
        for node in nodes:
            if node.op in _LOOPS:  # The shapes that it would have are those of the empty values.
                node.attr["output_shapes"].CopyFrom(AttrValue(list=AttrValue.ListValue()))
    # In the place of the session that the converter reads the variables from.
    values = SimpleNamespace(
        run=lambda names: [_empty(variables[node_of(name).removesuffix(_READ)]) for name in names]
    )
    waiting = {node.name: waits(node) for node in graph.node if node.op == "ReadVariableOp"}
    try:
        with quiet():  # It warns of its age.
            frozen: GraphDef = tf.compat.v1.graph_util.convert_variables_to_constants(
                values, graph, sorted({node_of(name) for name in wanted})
            )
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ToolError(
            f"{path} cannot be frozen: TensorFlow's converter does not follow the handles of its "
            f"variables ({reason(error)}); name others with --fetch"
        ) from error
    for node in frozen.node:
        node.input.extend(waiting.get(node.name, ()))  # The converter has dropped them.
    return frozen


def _read_before_lookups(nodes: Any, *, in_function: bool) -> None:
    """Makes lookups of rows read the value first: the converter knows them in few places only."""
    for node in [node for node in nodes if node.op in ("ResourceGather", "ResourceGatherNd")]:
        if attribute_of(node, "batch_dims").i:
            continue  # This it refuses.
        handle, indices = data_inputs(node)
        dtype = attribute_of(node, "dtype").type
        types = {"Tparams": dtype, "Tindices": attribute_of(node, "Tindices").type}
        read = nodes.add(name=f"{node.name}{_READ}", op="ReadVariableOp", input=[handle])
        read.attr["dtype"].type = dtype
        value = f"{read.name}:value:0" if in_function else read.name
        remake(node, node.op.removeprefix("Resource"), [value, indices, *waits(node)], types)


def fill_constants(graph: GraphDef, meta: MetaGraphFile, variables: Mapping[str, Variable]) -> None:
    """Gives the constants their values; each value is freed once it is in the graph.

    Some of `variables` may be gone from the graph. Raises CheckpointError where one is missing or
    damaged, ToolError where the graph would be larger than a protobuf message can be.
    """
    nodes = [node for node in graph.node if node.name in variables]
    values = read_values(meta, [variables[node.name] for node in nodes])
    size = graph.ByteSize() + sum(value.nbytes for value in values.values())
    if size > _MOST_BYTES:
        raise ToolError(
            f"{meta.path} with its variables takes {size} bytes, and a file of one graph holds at "
            f"most {_MOST_BYTES}: give --fetch fewer"
        )
    for node in nodes:
        make_constant(node, values.pop(node.name))


# Nodes of a graph as data, made or remade by hand.
# Format: `tensorflow/core/framework/node_def.proto`, and `tensor.proto` beside it.


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
    tensor.tensor_content = value.tobytes()


def make_placeholder(node: NodeDef, dtype: tf.DType, shape: Sequence[int | None] | None) -> None:
    """Makes a node a `Placeholder`; None for sizes, or a rank, that are not known."""
    remake(node, "Placeholder", (), {"dtype": dtype.as_datatype_enum})
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())


# What never runs: branches of conditionals, dropouts that keep all. It is told by what is known
# before the graph runs: single numbers and bools, and the bounds of what is drawn. Other constants,
# and the conditionals of TensorFlow 2, which choose a function, TensorFlow folds as it loads them.

_MAX_DEPTH = 64
_INT32: int = tf.int32.as_datatype_enum
_UNIFORM = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})
# Those that, of numbers between two bounds, make numbers between what they make of the bounds.
_MONOTONE: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Floor": np.floor,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Identity": np.asarray,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Mul": np.multiply,
    "Sub": np.subtract,
}
_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **_MONOTONE,
    "Cast": np.asarray,
    "Enter": np.asarray,
    "Equal": np.equal,
    "LogicalAnd": np.logical_and,
    "LogicalNot": np.logical_not,
    "LogicalOr": np.logical_or,
    "NotEqual": np.not_equal,
    "RealDiv": np.divide,
    "StopGradient": np.asarray,
    "Switch": lambda data, _: data,
}


def fold(graph: GraphDef, wanted: Collection[str]) -> None:
    """Folds conditionals of known predicates, and dropouts that keep everything, in place.

    The graph has no variables; the functions that it calls stay as they are. What never runs any
    more is still there, and nothing takes it that is needed for `wanted`, full tensor names, which
    keep their values.
    """
    _fold_switches(graph, {node_of(name) for name in wanted})
    _fold_dropouts(graph)


class Bounds(NamedTuple):
    """What all elements of a tensor are between: two values of shape [], in any order.

    The tensor has the shape that the node `drawn` drew; [] where there is none.
    """

    first: Array
    last: Array
    drawn: NodeDef | None = None


class Known:
    """What is known of tensors; the nodes may change meanwhile, as long as they give the same."""

    def __init__(self, nodes: Mapping[str, NodeDef]) -> None:
        self._nodes = nodes
        self._bounds: dict[str, Bounds | None] = {}

    def value(self, text: str) -> Array | None:
        """What all elements of an input of a node are; None where that is not known."""
        bounds = self.bounds(text)
        return bounds.first if bounds is not None and bounds.first == bounds.last else None

    def bounds(self, text: str, depth: int = 0) -> Bounds | None:
        """Of an input of a node, if anything is known."""
        name = node_of(text)
        if name not in self._nodes or (output_index(text) and self._nodes[name].op != "Switch"):
            return None
        if name not in self._bounds and depth <= _MAX_DEPTH:
            self._bounds[name] = None  # Of a loop, nothing is known.
            self._bounds[name] = self._evaluated(self._nodes[name], depth + 1)
        return self._bounds.get(name)

    def _evaluated(self, node: NodeDef, depth: int) -> Bounds | None:
        if node.op == "Const":
            value = _single(node)
            return None if value is None else Bounds(value, value)
        if node.op in _UNIFORM:
            return _drawn(node)
        given = [self.bounds(text, depth) for text in data_inputs(node)]
        known = [bounds for bounds in given if bounds is not None]
        if node.op not in _OPERATIONS or not known or len(known) < len(given):
            return None
        sources = {bounds.drawn.name: bounds.drawn for bounds in known if bounds.drawn is not None}
        varying = sum(bool(bounds.first != bounds.last) for bounds in known)
        if len(sources) > 1 or varying > (node.op in _MONOTONE):
            return None
        with np.errstate(all="ignore"):
            firsts, lasts, _ = zip(*known, strict=True)
            ends = [np.asarray(_OPERATIONS[node.op](*values)) for values in (firsts, lasts)]
            if node.op == "Cast":
                dtype = tf.as_dtype(attribute_of(node, "DstT").type).as_numpy_dtype
                ends = [end.astype(dtype) for end in ends]
        return Bounds(ends[0], ends[1], next(iter(sources.values()), None))


def _single(node: NodeDef) -> Array | None:
    """A constant of one number or bool."""
    tensor = attribute_of(node, "value").tensor
    dtype = tf.as_dtype(tensor.dtype)
    if tensor.tensor_shape.dim or not (dtype.is_bool or dtype.is_integer or dtype.is_floating):
        return None
    value: Array = tf.make_ndarray(tensor)
    return value


def _drawn(node: NodeDef) -> Bounds | None:
    """Of uniform random numbers: each is a multiple of the dtype's epsilon, in [0, 1)."""
    dtype = tf.as_dtype(attribute_of(node, "dtype").type or tf.float32)  # It is the default.
    if dtype not in (tf.float16, tf.float32, tf.float64):
        return None
    kind = np.dtype(dtype.as_numpy_dtype)
    return Bounds(np.zeros([], kind), np.asarray(1 - np.finfo(kind).eps, kind), node)


# Conditionals of the old kind. A `Switch` gives its value at one of two outputs, as its predicate
# says. Whatever follows from the other is dead and does not run, up to a `Merge`, which passes on
# the input that is alive.


def _fold_switches(graph: GraphDef, fetched: Collection[str]) -> None:
    """Makes each Switch of a known predicate pass on its value, and each Merge its live input.

    Dead nodes stay, and nothing that is alive takes them.
    """
    nodes = {node.name: node for node in graph.node}
    known, live = Known(nodes), dict[str, int]()
    for name, node in nodes.items():
        predicate = known.value(data_inputs(node)[1]) if node.op == "Switch" else None
        if predicate is not None and name not in fetched:
            live[name] = int(bool(predicate))
    dead = _dead(nodes, [f"{name}:{1 - output}" for name, output in live.items()])
    renamed = {f"{name}:{output}": name for name, output in live.items()}
    for name, node in nodes.items():
        alive = [text for text in data_inputs(node) if not _gives(text, dead)]
        if name in live:
            _make_identity(node, node.input[0])
        elif node.op == "Merge" and name not in dead and len(alive) == 1:
            node.input[:] = [wait for wait in waits(node) if not _gives(wait, dead)]
            _make_identity(node, alive[0])
    for node in graph.node:
        node.input[:] = [renamed.get(text, text) for text in node.input]


def _dead(nodes: Mapping[str, NodeDef], outputs: Collection[str]) -> set[str]:
    """Dead outputs of switches, `name:0`, and the nodes that take, or wait for, something dead."""
    takers: dict[str, list[NodeDef]] = {}
    for node in nodes.values():
        for name in {node_of(text.removeprefix("^")) for text in node.input}:
            takers.setdefault(name, []).append(node)
    dead, waiting = set(outputs), [node_of(name) for name in outputs]
    while waiting:
        for node in takers.get(waiting.pop(), ()):
            if node.op == "Merge":  # What a loop gives back is dead if what it began with is.
                texts = [t for t in data_inputs(node) if nodes[node_of(t)].op != "NextIteration"]
                is_dead = all(_gives(text, dead) for text in texts)
            else:
                is_dead = any(_gives(text, dead) for text in node.input)
            if is_dead and node.name not in dead:
                dead.add(node.name)
                waiting.append(node.name)
    return dead


def _gives(text: str, dead: Collection[str]) -> bool:
    """Whether an input of a node is dead."""
    name = node_of(text.removeprefix("^"))
    is_output = not text.startswith("^") and f"{name}:{output_index(text)}" in dead
    return is_output or name in dead


# Dropouts that keep everything: what is multiplied by ones is passed on, and nothing is drawn. The
# mask is the same whatever uniform numbers are drawn. Forms in use:
#
#   x / keep * floor(keep + drawn)                      TensorFlow until 1.12
#   x * (1 / (1 - rate)) * cast(drawn >= rate)          since 1.13
#   select(drawn >= rate, x * (1 / (1 - rate)), 0)      since 2.9
#   x * (cast(drawn < keep) / keep)                     here

_PASSED = {  # Of a product, quotient or choice: which input may be passed on, and by which mask.
    "Mul": ((0, 1), (1, 0)),
    "RealDiv": ((0, 1),),
    "Select": ((1, 0),),
    "SelectV2": ((1, 0),),
}


def _fold_dropouts(graph: GraphDef) -> None:
    """Makes dropouts that keep everything identities, in place.

    Where it is not known that a mask has the shape of what it is for, the mask becomes a `Fill` of
    its shape, so that nothing is drawn there either.
    """
    nodes = {node.name: node for node in graph.node}
    known = Known(nodes)
    for node in nodes.values():
        passed = _passed_on(node, nodes, known)
        if passed is not None:
            _make_identity(node, passed)
    for node in nodes.values():
        bounds = known.bounds(node.name)
        if bounds is None or bounds.drawn is None or bounds.first != bounds.last:
            continue
        if any(known.value(text) is None for text in data_inputs(node)):  # It makes the mask.
            shape = bounds.drawn.input[0]
            constant = graph.node.add(name=f"{node.name}/filled")
            make_constant(constant, bounds.first, [f"^{node_of(shape)}"])  # It may be in a loop.
            kinds = [attribute_of(bounds.drawn, key).type for key in ("T", "Tshape")]
            types = {"T": constant.attr["dtype"].type, "index_type": max(kinds) or _INT32}
            remake(node, "Fill", [shape, constant.name, *waits(node)], types)


def _passed_on(node: NodeDef, nodes: Mapping[str, NodeDef], known: Known) -> str | None:
    """The input that a node gives unchanged, if that is known."""
    inputs = data_inputs(node)
    if any(known.value(other) is None for other in inputs[2:]):
        return None  # A third of a larger shape would make the result as large.
    for passed, mask in _PASSED.get(node.op, ()):
        bounds = known.bounds(inputs[mask])
        if bounds is None or not bounds.first == bounds.last == 1:
            continue
        if bounds.drawn is None:
            return inputs[passed]
        shape, base = nodes[node_of(bounds.drawn.input[0])], _base(inputs[passed], nodes, known)
        if shape.op == "Shape" and _base(shape.input[0], nodes, known) == base:
            return inputs[passed]
    return None


def _base(text: str, nodes: Mapping[str, NodeDef], known: Known) -> str:
    """The tensor that another is a copy or a multiple of."""
    for _ in range(_MAX_DEPTH):
        node = nodes[node_of(text)]
        if output_index(text) or node.op not in ("Identity", "Mul", "RealDiv"):
            break
        others = [taken for taken in data_inputs(node) if known.value(taken) is None]
        if len(others) != 1:
            break
        text = others[0]
    return text.removesuffix(":0")


def _make_identity(node: NodeDef, of: str) -> None:
    """Makes a node pass on the tensor `of`; it still waits for all that it waited for."""
    remake(node, "Identity", [of, *waits(node)], {"T": attribute_of(node, "T").type})
