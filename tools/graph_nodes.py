"""Nodes of a graph as data, made or remade by hand; large constants are kept apart from it.

Also the nodes of a function, written out in the place of its call, and what is known of a graph
before it runs: constants, and what follows from them.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import Array
from metagraph.graph import attribute_of, data_inputs, graph_tensor
from metagraph.meta import node_of
from metagraph.safety import op_definitions
from metagraph.usage import output_index

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


# The numbers and bools of a graph that are known before it runs: constants, and what follows.
#
# Switches and dropouts stand on a handful of operations over single values; others are not looked
# at.

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
            return given[0].astype(tf.as_dtype(attribute_of(node, "DstT").type).as_numpy_dtype)
        with np.errstate(all="ignore"):
            return np.asarray(_OPERATIONS[node.op](*given))


def _constant(node: NodeDef) -> Array | None:
    """A constant of one number or bool; of those that wait for their values, none is known."""
    tensor = attribute_of(node, "value").tensor
    if tensor.tensor_shape.dim or tensor.tensor_shape.unknown_rank or not tensor.dtype:
        return None
    try:
        value: Array = tf.make_ndarray(tensor)
    except (ValueError, TypeError):  # More values than one, or of no dtype: TensorFlow refuses it.
        return None
    return value if value.dtype.kind in "biuf" and value.size == 1 else None


# The nodes of a function written out in the place of its call.
#
# Format: `tensorflow/core/framework/function.proto`.


def write_out(graph: GraphDef, call: NodeDef, function: FunctionDef) -> None:
    """Adds the nodes of a function to a graph, and makes its call pass on their results.

    Args:
      graph: changed in place.
      call: a node of it, whose inputs are the arguments; it keeps its name and its outputs.
      function: one that `can_write_out`.
    """
    scope, taken = f"{call.name}/{function.signature.name}", {node.name for node in graph.node}
    while any(f"{scope}/{node.name}" in taken for node in function.node_def):
        scope += "_"
    inlined = _Inlined(graph, call, function, scope)
    results = [inlined.outer(function.ret[arg.name]) for arg in function.signature.output_arg]
    ends = [f"^{scope}/{name}" for name in function.control_ret.values()]
    wait = list(dict.fromkeys([*waits_for_inputs(call), *ends]))
    for node in function.node_def:
        inlined.add(node)
    types = list(attribute_of(call, "Tout").list.type)
    remake(call, "NoOp" if not types else "IdentityN", [*results, *wait], {})
    if len(types) == 1:
        make_identity(call, results[0], types[0])
    elif types:
        call.attr["T"].list.type.extend(types)


def can_write_out(call: NodeDef, function: FunctionDef) -> bool:
    """Whether a function takes what its call gives, and leaves no attribute to its caller."""
    signature = function.signature
    values = (value for node in function.node_def for value in node.attr.values())
    return bool(
        len(signature.input_arg) == len(data_inputs(call))
        and all(result.name in function.ret for result in signature.output_arg)
        and not signature.attr
        and not any(value.placeholder for value in values)
    )


class _Inlined:
    """A function's nodes on their way into a graph."""

    def __init__(self, graph: GraphDef, call: NodeDef, function: FunctionDef, scope: str) -> None:
        self._graph = graph
        self._scope = scope
        self._body = {node.name: node for node in function.node_def}
        arguments = [argument.name for argument in function.signature.input_arg]
        self._arguments = dict(zip(arguments, data_inputs(call), strict=True))
        self._definitions = {
            **op_definitions(graph),
            **{f.signature.name: f.signature for f in graph.library.function},
        }
        self._first = waits_for_inputs(call)

    def outer(self, text: str) -> str:
        """What an input of the function is called in the graph."""
        if text in self._arguments:
            return str(self._arguments[text])
        return f"{self._scope}/{graph_tensor(text, self._body, self._definitions.get)}"

    def add(self, node: NodeDef) -> None:
        """Adds a node; where it takes nothing, it waits for what the call waits for."""
        added = self._graph.node.add()
        added.CopyFrom(node)
        added.name = f"{self._scope}/{node.name}"
        inputs = [self.outer(text) for text in data_inputs(node)]
        wait = [f"^{self._scope}/{text[1:]}" for text in waits(node)]
        del added.input[:]
        added.input.extend([*inputs, *(wait if inputs or wait else self._first)])
