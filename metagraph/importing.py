"""Brings a graph as data into TensorFlow, under the file's names, once it is known to be sound.

Refused are graphs that TensorFlow takes in without a word and then crashes on, and constants that
are far larger in memory than in their file. A part may also be imported only to be looked at.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.framework.types_pb2 import DT_INT32, DT_RESOURCE, DT_STRING

from errors import CheckpointError, reason
from metagraph.graph import (
    View,
    attribute_of,
    called,
    data_inputs,
    remake,
    source,
    sub_graph,
    waits,
)
from metagraph.meta import MetaGraphFile, node_of, output_index
from metagraph.safety import disarm, op_definitions

MAX_BYTES = 1 << 30  # Of all constants together, beyond what the file holds of them.
_TEXT_BYTES = 8  # Of one text in memory, at least.
_MAX_WIDTH = 1000  # Characters of a number as text: it is filled up with spaces.
_MAX_DEPTH = 100  # Functions within functions.
_MAX_NODES = 1_000_000  # Of a function with all that it calls, as often as it does.
# The number of an output beyond 32 bits becomes another one, which no operation has.
_NO_OUTPUT = re.compile(r".*:\d{10,}", re.DOTALL)
# The field of an AttrValue for a type as an OpDef writes it, where the names differ.
_FIELD = {"string": "s", "int": "i", "float": "f", "bool": "b"}
# How TensorFlow says that it cannot make a constant; the constant itself follows, as text.
_UNMADE = "Cannot parse tensor from"
_NODE = re.compile(r"\{\{node (\S+?)\}\}")  # How TensorFlow marks nodes in its messages.


def run_errors() -> tuple[type[Exception], ...]:
    """What a session raises; the second where its message quotes bytes that are no text."""
    return tf.errors.OpError, UnicodeDecodeError


def check_well_formed(graph_def: GraphDef, where: str) -> None:
    """Refuses what TensorFlow does not check, in a graph that is to be imported from a file.

    Raises CheckpointError where a constant's value has another dtype, or all constants take more
    than MAX_BYTES; a node takes an output that there cannot be, merges another number of inputs
    than it has, or writes numbers of thousands of digits; a function calls itself, or others many
    thousand times over; an attribute in a function does not fit its operation.
    """
    definitions = op_definitions(graph_def)
    functions = graph_def.library.function
    nodes = [*graph_def.node, *(node for f in functions for node in f.node_def)]
    _check_constants(nodes, where)
    for node in nodes:
        if mistake := _mistake(node):
            raise CheckpointError(f"{where} is damaged: node {node.name} has {mistake}")
    _check_calls(graph_def, where)
    for node in nodes[len(graph_def.node) :]:
        if node.op in definitions:
            _check_attributes(node, definitions[node.op], where)


def _mistake(node: NodeDef) -> str | None:
    """What of a node TensorFlow takes as it is: it would look beyond all, or never end."""
    for text in node.input:
        if _NO_OUTPUT.fullmatch(text):
            return f"the input {text}"
    if node.op in ("Merge", "RefMerge") and node.attr["N"].i != len(data_inputs(node)):
        return f"{len(data_inputs(node))} inputs, where it says {node.attr['N'].i}"
    if node.op == "AsString" and node.attr["width"].i > _MAX_WIDTH:
        return f"width {node.attr['width'].i}"
    return None


def _check_constants(nodes: Iterable[NodeDef], where: str) -> None:
    """A file holds one of the equal values at a constant's end: it may stand for any number.

    TensorFlow takes the memory as it infers shapes, and ends the process at another dtype.
    """
    total = 0
    for node in (node for node in nodes if node.op in ("Const", "HostConst")):
        tensor, dtype = attribute_of(node, "value").tensor, attribute_of(node, "dtype").type
        if tensor.dtype != dtype:
            raise CheckpointError(
                f"{where} is damaged: node {node.name} has dtype number {dtype} and a value of "
                f"dtype number {tensor.dtype}"
            )
        sizes = [dim.size for dim in tensor.tensor_shape.dim]
        held = len(tensor.tensor_content)
        total += max(0, math.prod(max(0, size) for size in sizes) * _value_bytes(dtype) - held)
        if total > MAX_BYTES:
            raise CheckpointError(
                f"{where} is refused: with the constant {node.name} of shape {sizes}, its "
                f"constants take more than {MAX_BYTES >> 20} MiB of memory"
            )


def _value_bytes(dtype: int) -> int:
    """The bytes of one value of a dtype, by its number in `types.proto`; of an unknown one, 8."""
    try:
        return max(1, tf.as_dtype(dtype).size) if dtype != DT_STRING else _TEXT_BYTES
    except TypeError:
        return _TEXT_BYTES


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
    """Sees that each attribute is there, or has a default, and has a value of its type."""
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
    """Whether a value, or its caller's, is of a type such as `int` or `list(shape)`."""
    element = kind.removeprefix("list(").removesuffix(")")
    field = _FIELD.get(element, element)
    if value.WhichOneof("value") == "list":
        held = {held.name for held, _ in value.list.ListFields()}
        return kind != element and held <= {field}
    return value.WhichOneof("value") in ("placeholder", field if kind == element else "list")


def import_graph(
    meta: MetaGraphFile, graph_def: GraphDef, input_map: Mapping[str, tf.Tensor]
) -> None:
    """Imports into the default graph, under the file's names; or a CheckpointError."""
    check_well_formed(graph_def, meta.path)
    try:
        tf.import_graph_def(
            graph_def,
            input_map=dict(input_map),
            name="",
            producer_op_list=meta.proto.meta_info_def.stripped_op_list,
        )
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise CheckpointError(f"{meta.path} cannot be imported: {_plain(reason(error))}") from error


def tensor_of(graph: tf.Graph, name: str) -> tf.Tensor:
    """The tensor of a name such as `x:0`; CheckpointError where its node has no such output."""
    node, outputs = node_of(name), graph.get_operation_by_name(node_of(name)).outputs
    if output_index(name) >= len(outputs):
        raise CheckpointError(f"there is no tensor {name} (outputs of {node}: {len(outputs)})")
    return outputs[output_index(name)]


def reason_of_run(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """The node and the reason, out of the many lines of a session's message.

    The reason is the first line, or, where a traceback goes before it, the one after `Node: ...`.
    """
    if isinstance(error, UnicodeDecodeError):
        told = error.object.decode("utf-8", "backslashreplace")
    else:
        told = str(error.message)
    lines = told.strip().splitlines()
    after = [said for line, said in itertools.pairwise(lines) if line.startswith("Node: ")]
    node = _NODE.search(told)
    return f"{f' at {node[1]}' if node else ''}: {_plain((after or lines)[0])}"


def _plain(line: str) -> str:
    said = "a constant is damaged, or needs more memory than there is or is allowed"
    return said if _UNMADE in line else line


def disarmed_graph(meta: MetaGraphFile, names: Collection[str]) -> tf.Graph:
    """What some tensors need, to be looked at; raises as `import_disarmed` does."""
    return import_disarmed(meta, sub_graph(meta, names).graph_def)


def import_disarmed(meta: MetaGraphFile, graph_def: GraphDef) -> tf.Graph:
    """Imports nodes of the file, disarmed in place, to be looked at; or a CheckpointError."""
    disarm(graph_def)
    graph = tf.Graph()
    with graph.as_default():
        import_graph(meta, graph_def, {})
    return graph


# Old tools froze a graph by putting constants in place of its variables, and left the operations
# that take a reference, or a handle, to a variable: no importer takes them. In place of each is one
# that computes the same of a value; what it would write is not kept.

_PASSED = frozenset({"Enter", "Exit", "Identity", "Merge", "NextIteration", "Switch"})
_SCATTERED = ("Add", "Max", "Min", "Sub", "Update")
BY_VALUE = {f"Ref{op}": op for op in _PASSED}  # What passes on a reference, or a value.
_OF_CONSTANTS = BY_VALUE | {op: op for op in _PASSED}
_OF_CONSTANTS |= {"Assign": "Identity", "AssignAdd": "AddV2", "AssignSub": "Sub"}
_OF_CONSTANTS |= {"CountUpTo": "Identity", "ReadVariableOp": "Identity", "ResourceGather": "Gather"}
_OF_CONSTANTS |= {f"Assign{op}VariableOp": "NoOp" for op in ("", "Add", "Sub")}
_OF_CONSTANTS |= {f"Scatter{n}{op}": f"TensorScatter{op}" for op in _SCATTERED for n in ("", "Nd")}


def take_by_value(graph_def: GraphDef) -> list[str]:
    """Has what takes constants for variables take values, in place; returns its nodes."""
    nodes = {node.name: node for node in graph_def.node}
    found = list[tuple[NodeDef, int]]()  # A damaged graph may have two nodes of one name.
    for node in graph_def.node:
        takes_values = node.op in _PASSED and attribute_of(node, "T").type != DT_RESOURCE
        inputs = data_inputs(node) if node.op in _OF_CONSTANTS and not takes_values else []
        taken = source(View(nodes), inputs[0], _OF_CONSTANTS) if inputs else None
        if taken is not None and taken.node.op == "Const":  # In place of a variable.
            found.append((node, attribute_of(taken.node, "dtype").type))
    for node, dtype in found:
        _take_by_value(graph_def, node, dtype)
    return [node.name for node, _ in found]


def _take_by_value(graph_def: GraphDef, node: NodeDef, dtype: int) -> None:
    """Makes another operation of a node, given the dtype of the constant that it takes."""
    inputs, op = data_inputs(node), _OF_CONSTANTS[node.op]
    if node.op in _PASSED or node.op in BY_VALUE:
        node.op, node.attr["T"].type = op, dtype
        return
    types = {"Tparams" if op == "Gather" else "T": dtype} if op != "NoOp" else {}
    if "Tindices" in node.attr:
        types["Tindices"] = node.attr["Tindices"].type
        if not node.op.startswith(("ScatterNd", "Resource")) and len(inputs) == 3:
            inputs[1] = _as_rows(graph_def, node, inputs[1])
    taken = {"NoOp": [], "Identity": inputs[-1:]}.get(op, inputs)
    remake(node, op, [*taken, *waits(node)], types)


def _as_rows(graph_def: GraphDef, node: NodeDef, indices: str) -> str:
    """Adds what makes of each index a row of its own, in the loop that it is in, if any."""
    last = graph_def.node.add(name=f"{node.name}/last")
    remake(last, "Const", [f"^{node_of(indices)}"], {"dtype": DT_INT32})
    value = last.attr["value"].tensor
    value.dtype, value.tensor_shape.unknown_rank = DT_INT32, False
    value.int_val.append(-1)
    rows = graph_def.node.add(name=f"{node.name}/rows")
    types = {"T": node.attr["Tindices"].type, "Tdim": DT_INT32}
    remake(rows, "ExpandDims", [indices, last.name], types)
    return str(rows.name)
