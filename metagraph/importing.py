"""Brings a graph as data into TensorFlow, under the file's names, once it is known to be sound.

Refused are graphs that TensorFlow takes in without a word and then crashes on, and constants that
are far larger in memory than in their file. A part may also be imported only to be looked at.
"""

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.framework.tensor_pb2 import TensorProto

from errors import CheckpointError
from metagraph.graph import attribute_of, called, data_inputs, sub_graph
from metagraph.meta import MetaGraphFile, node_of
from metagraph.safety import disarm, op_definitions

# Refuses constants that are far larger in memory than in their file.
#
# Of equal values at the end of a constant, its file holds one: a few bytes may stand for any
# number. TensorFlow takes the memory when it needs the value, which may be while it infers shapes.

MAX_BYTES = 1 << 30  # Of all constants together, beyond what the file holds of them.
_MAX_RANK = 254  # TensorFlow's own limit.
_CONSTANTS = ("Const", "HostConst")
_UNKNOWN_BYTES = 8  # Of a value whose dtype has no size, such as a string.


def check_constant_sizes(graph_def: GraphDef, where: str) -> None:
    """Sees that all constants of a graph and of its functions can be held.

    Args:
      graph_def: what is to be imported.
      where: the file it came from, for the message.

    Raises:
      CheckpointError: a constant has a negative size, or all together more than `MAX_BYTES`.
    """
    total = 0
    for node in _constants(graph_def):
        tensor = node.attr["value"].tensor
        sizes = [dim.size for dim in tensor.tensor_shape.dim]
        if min(sizes, default=0) < 0 or tensor.tensor_shape.unknown_rank or len(sizes) > _MAX_RANK:
            raise CheckpointError(f"{where} is damaged: the constant {node.name} has no shape")
        total += max(0, math.prod(sizes) * _value_bytes(tensor) - len(tensor.tensor_content))
        if total > MAX_BYTES:
            raise CheckpointError(
                f"{where} is refused: with the constant {node.name} of shape {sizes}, its "
                f"constants take more than {MAX_BYTES >> 20} MiB of memory"
            )


def _constants(graph_def: GraphDef) -> Iterator[NodeDef]:
    for node in graph_def.node:
        if node.op in _CONSTANTS:
            yield node
    for function in graph_def.library.function:
        for node in function.node_def:
            if node.op in _CONSTANTS:
                yield node


def _value_bytes(tensor: TensorProto) -> int:
    try:
        size: int = tf.as_dtype(tensor.dtype).size
    except TypeError:
        return _UNKNOWN_BYTES
    return size or _UNKNOWN_BYTES


# Refuses graphs that TensorFlow takes in without a word and then crashes on.
#
# Of a graph itself it checks every node when it is imported. It does not look into constants, and
# into library functions only when they are run, where some mistakes end the process.

_MAX_DEPTH = 100  # Functions within functions.
_MAX_NODES = 1_000_000  # Of a function with all that it calls, as often as it does.
_MAX_DIGITS = 9  # Of the number of an operation's output.
_MAX_WIDTH = 1000  # Characters of a number as text.
_MAX_OUTPUTS = 1 << 16  # Of one operation, where an attribute says how many.
# Their static shapes are worked out from an input that is read as one number, whatever it is.
_TAKES = frozenset(
    {"QueueDequeueMany", "QueueDequeueManyV2", "QueueDequeueUpTo", "QueueDequeueUpToV2"}
)
# The field of an AttrValue, or of its list, for each type that an OpDef gives an attribute.
_FIELD = {
    "string": "s",
    "int": "i",
    "float": "f",
    "bool": "b",
    "type": "type",
    "shape": "shape",
    "tensor": "tensor",
    "func": "func",
}
_LIST = "list("


def check_well_formed(graph_def: GraphDef, where: str) -> None:
    """Sees that a graph can be run, or fails, without a crash.

    Args:
      graph_def: what is to be imported.
      where: the file it came from, for the message.

    Raises:
      CheckpointError: a node contradicts itself, as a constant whose value has another dtype; a
        function calls itself, or others many thousand times over; a node of a function does not
        fit its operation.
    """
    definitions = op_definitions(graph_def)
    for node in graph_def.node:
        _check_node(node, definitions.get(node.op), where)
    _check_takes(graph_def, where)
    _check_calls(graph_def, where)
    for function in graph_def.library.function:
        for node in function.node_def:
            definition = definitions.get(node.op)
            _check_node(node, definition, f"{where}: function {function.signature.name}")
            if definition is not None:
                _check_attributes(node, definition, where)


def _check_node(node: NodeDef, definition: OpDef | None, where: str) -> None:
    mistake = _inputs_mistake(node)
    if not mistake and node.op in _MISTAKES:
        mistake = _MISTAKES[node.op](node)
    if not mistake and definition is not None:
        mistake = _numbers_mistake(node, definition)
    if mistake:
        raise CheckpointError(f"{where} is damaged: node {node.name} has {mistake}")


def _inputs_mistake(node: NodeDef) -> str | None:
    """The number of an output beyond 32 bits becomes another one, which no operation has."""
    for text in node.input:
        _, colon, position = text.rpartition(":")
        if colon and len(position) > _MAX_DIGITS and position.isdecimal():
            return f"the input {text}"
    return None


def _numbers_mistake(node: NodeDef, definition: OpDef) -> str | None:
    """TensorFlow makes a list of as many inputs and outputs as attributes say before it counts."""
    most = {arg.number_attr: _MAX_OUTPUTS for arg in definition.output_arg}
    most |= {arg.number_attr: len(data_inputs(node)) for arg in definition.input_arg}
    for name, number in most.items():
        if name in node.attr and node.attr[name].i > number:
            return f"{name} = {node.attr[name].i}, expected at most {number}"
    return None


def _check_takes(graph_def: GraphDef, where: str) -> None:
    """That queues are asked for one number of elements, where the number is a constant."""
    numbers = {data_inputs(n)[-1].partition(":")[0] for n in graph_def.node if _has_number(n)}
    for node in graph_def.node:
        if node.name in numbers and node.attr["value"].tensor.tensor_shape.dim:
            raise CheckpointError(f"{where} is damaged: {node.name} is no single number")


def _has_number(node: NodeDef) -> bool:
    return node.op in _TAKES and len(data_inputs(node)) > 1


def _constants_mistake(node: NodeDef) -> str | None:
    """TensorFlow ends the process where it folds constants and finds another dtype."""
    tensor, dtype = node.attr["value"].tensor, node.attr["dtype"].type
    if tensor.dtype != dtype:
        return f"dtype number {dtype} and a value of dtype number {tensor.dtype}"
    return None


def _merges_mistake(node: NodeDef) -> str | None:
    """Of a merge in a loop, TensorFlow takes the number as it is and waits for as many inputs."""
    number, inputs = node.attr["N"].i, len(data_inputs(node))
    return None if number == inputs else f"{inputs} inputs, where it says {number}"


def _texts_mistake(node: NodeDef) -> str | None:
    """Each number is written with so many spaces before it."""
    width = node.attr["width"].i
    return f"width {width}" if width > _MAX_WIDTH else None


_MISTAKES: Mapping[str, Callable[[NodeDef], str | None]] = {
    "AsString": _texts_mistake,
    "Const": _constants_mistake,
    "Merge": _merges_mistake,
    "RefMerge": _merges_mistake,
}


def _check_calls(graph_def: GraphDef, where: str) -> None:
    """TensorFlow goes down calls by recursion, and copies a function to where it is called."""
    library = {function.signature.name: function for function in graph_def.library.function}
    calls = {
        name: [callee for node in function.node_def for callee in called(node, library)]
        for name, function in library.items()
    }
    try:
        callees_first = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        cycle = " calls ".join(reversed(error.args[1]))
        raise CheckpointError(f"{where} is damaged: its function {cycle}") from error
    depth, nodes = dict[str, int](), dict[str, int]()
    for name in callees_first:
        depth[name] = 1 + max((depth[callee] for callee in calls[name]), default=0)
        nodes[name] = len(library[name].node_def) + sum(nodes[callee] for callee in calls[name])
        if depth[name] > _MAX_DEPTH or nodes[name] > _MAX_NODES:
            raise CheckpointError(
                f"{where}: its function {name} calls others {depth[name]} deep, with {nodes[name]} "
                f"nodes in all; expected at most {_MAX_DEPTH} and {_MAX_NODES}"
            )


def _check_attributes(node: NodeDef, definition: OpDef, where: str) -> None:
    """That each attribute is there, or has a default, and has a value of its type."""
    for attribute in definition.attr:
        if attribute.name in node.attr:
            fits = _is_of_type(node.attr[attribute.name], attribute.type)
        else:
            fits = attribute.HasField("default_value")
        if not fits:
            raise CheckpointError(
                f"{where} is damaged: the attribute {attribute.name} of {node.name} in one of its "
                f"functions is no {attribute.type}, as {node.op} takes it"
            )


def _is_of_type(value: AttrValue, kind: str) -> bool:
    """Whether a value is of a type as an OpDef writes it, such as `int` or `list(shape)`.

    A placeholder stands for a value of whoever calls the function.
    """
    found: str | None = value.WhichOneof("value")
    if found == "placeholder":
        return True
    if not kind.startswith(_LIST):
        return found == _FIELD[kind]
    element = _FIELD[kind.removeprefix(_LIST).removesuffix(")")]
    return found == "list" and {field.name for field, _ in value.list.ListFields()} <= {element}


# Brings a graph as data into TensorFlow, under the file's names, once it is known to be sound.

# How TensorFlow says that it cannot make a constant; the constant itself follows, as text.
_UNMADE = "Cannot parse tensor from"
_NODE = re.compile(r"\{\{node (\S+?)\}\}")  # How TensorFlow marks nodes in its messages.


def import_graph(
    meta: MetaGraphFile, graph_def: GraphDef, input_map: Mapping[str, tf.Tensor]
) -> None:
    """Imports into the default graph, under the file's names.

    Raises:
      CheckpointError: an operation or attribute that this TensorFlow does not have, or a graph
        that is not well-formed.
    """
    check_constant_sizes(graph_def, meta.path)
    check_well_formed(graph_def, meta.path)
    try:
        tf.import_graph_def(
            graph_def,
            input_map=dict(input_map),
            name="",
            producer_op_list=meta.proto.meta_info_def.stripped_op_list,
        )
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise CheckpointError(f"{meta.path} cannot be imported: {_first_line(error)}") from error


def tensor_of(graph: tf.Graph, name: str) -> tf.Tensor:
    """The tensor of this name, of a node that has been imported.

    Raises:
      CheckpointError: its node has no such output.
    """
    try:
        return graph.get_tensor_by_name(name)
    except (KeyError, ValueError) as error:
        outputs = len(graph.get_operation_by_name(node_of(name)).outputs)
        raise CheckpointError(
            f"there is no tensor {name} (outputs of {node_of(name)}: {outputs})"
        ) from error


def reason_of_run(error: tf.errors.OpError) -> str:
    """The node and the reason, out of the many lines of a session's message.

    The reason is the first line, or, where a traceback goes before it, the one after `Node: ...`.
    """
    lines = str(error.message).strip().splitlines()
    after = [reason for line, reason in itertools.pairwise(lines) if line.startswith("Node: ")]
    node = _NODE.search(str(error.message))
    return f"{f' at {node[1]}' if node else ''}: {_plain((after or lines)[0])}"


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return _plain(str(text).strip().partition("\n")[0])


def _plain(reason: str) -> str:
    """The reason as a user understands it."""
    if _UNMADE not in reason:
        return reason
    return "a constant is damaged, or needs more memory than there is or is allowed"


# A part of a graph in TensorFlow, to be looked at and never run: its static dtypes and shapes.


def disarmed_graph(meta: MetaGraphFile, names: Collection[str]) -> tf.Graph:
    """Imports what some tensors need; nothing is refused, and what would be can never run.

    Args:
      meta: the file.
      names: full tensor names, of nodes that exist.

    Raises:
      CheckpointError: a node's input does not exist, or the graph cannot be imported.
    """
    return import_disarmed(meta, sub_graph(meta, names).graph_def)


def import_disarmed(meta: MetaGraphFile, graph_def: GraphDef) -> tf.Graph:
    """As `disarmed_graph`, of nodes that were taken from the file before; they are changed.

    Raises:
      CheckpointError: the graph cannot be imported.
    """
    disarm(graph_def)
    graph = tf.Graph()
    with graph.as_default():
        import_graph(meta, graph_def, {})
    return graph


# The dtype and shape of a tensor as its file declares them, where TensorFlow cannot infer them.
#
# A graph may compute a tensor by operations that this TensorFlow does not have. Fed, it needs none
# of them: its own node says enough.

_MAX_DECLARED = 10_000  # Of a node; a hostile count would fill the memory.


def declared(meta: MetaGraphFile, name: str) -> tuple[tf.DType, tf.TensorShape] | None:
    """The dtype and the shape, perhaps unknown, of a tensor.

    Format: `tensorflow/core/framework/op_def.proto`; the file brings the definitions of the
    operations it uses. Its `_output_shapes` are what was inferred when it was written.

    Args:
      meta: the file.
      name: in full, of a node that exists.

    Returns:
      None where the file does not tell.
    """
    node_name, _, index = name.partition(":")
    node = meta.nodes[node_name]
    for definition in meta.proto.meta_info_def.stripped_op_list.op:
        if definition.name == node.op:
            dtypes = list(_dtypes(node, definition))
            if int(index) < len(dtypes):
                try:
                    return tf.as_dtype(dtypes[int(index)]).base_dtype, _shape(node, int(index))
                except (TypeError, ValueError):
                    return None
    return None


def _dtypes(node: NodeDef, definition: OpDef) -> Iterator[int]:
    """The number of the dtype of each output."""
    for output in definition.output_arg:
        if output.type_list_attr:
            yield from attribute_of(node, output.type_list_attr).list.type[:_MAX_DECLARED]
            continue
        dtype = attribute_of(node, output.type_attr).type if output.type_attr else output.type
        count = attribute_of(node, output.number_attr).i if output.number_attr else 1
        yield from [dtype] * min(count, _MAX_DECLARED)


def _shape(node: NodeDef, index: int) -> tf.TensorShape:
    shapes = attribute_of(node, "_output_shapes").list.shape
    return tf.TensorShape(shapes[index] if index < len(shapes) else None)
