"""Refuses graphs that TensorFlow takes in without a word and then crashes on.

Of a graph itself it checks every node when it is imported. It does not look into constants, and
into library functions only when they are run, where some mistakes end the process.
"""

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.graph_view import called, data_inputs
from checkpoints.loading.op_definitions import op_definitions

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
