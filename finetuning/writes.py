"""Where a graph writes its own variables while it computes, such as moving averages.

A part that is frozen stays as it is: what would write it is put out of action. An operation that
writes through a reference gives that reference; in its place stands one that only passes it on.
One that writes through a handle gives nothing; in its place stands one that does nothing.
"""

from collections.abc import Collection, Mapping

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import data_inputs
from checkpoints.loading.meta_graph_file import node_of
from checkpoints.loading.variable_values import VARIABLE_OPS

_BY_REFERENCE = ("Assign", "Apply", "SparseApply")
_SCATTERS = frozenset(
    f"Scatter{kind}" for kind in ("Add", "Div", "Max", "Min", "Mul", "Sub", "Update")
) | frozenset(f"ScatterNd{kind}" for kind in ("Add", "Max", "Min", "Sub", "Update"))
_BY_HANDLE = ("ResourceApply", "ResourceScatter", "ResourceSparseApply")
_VARIABLE_OP = "VariableOp"
_PASS_ON = frozenset({"Enter", "Identity", "RefEnter", "RefIdentity", "RefSwitch", "Switch"})


def writes_by_handle(node: NodeDef) -> bool:
    """Whether a node writes the variable whose handle is its first input."""
    named_so = node.op.startswith("Assign") and node.op.endswith(_VARIABLE_OP)
    return named_so or str(node.op).startswith(_BY_HANDLE)


def writes_by_reference(node: NodeDef) -> bool:
    """Whether a node writes the variable whose reference is its first input."""
    if writes_by_handle(node):
        return False
    return node.op in _SCATTERS or str(node.op).startswith(_BY_REFERENCE)


def written(nodes: Mapping[str, NodeDef], name: str) -> str | None:
    """The variable that a node writes; None where it writes none, or nobody can tell which."""
    node = nodes[name]
    if not (writes_by_handle(node) or writes_by_reference(node)):
        return None
    for _ in range(len(nodes)):
        inputs = data_inputs(node)
        if not inputs or node_of(inputs[0]) not in nodes:
            return None
        node = nodes[node_of(inputs[0])]
        if node.op in VARIABLE_OPS:
            return str(node.name)
        if node.op not in _PASS_ON:
            return None
    return None


def hold(graph_def: GraphDef, free: Collection[str]) -> None:
    """Puts out of action, in place, what writes any other variable than those of `free`.

    What a library function writes is held in any case: its variables are arguments.
    """
    nodes = {node.name: node for node in graph_def.node}
    for name in list(nodes):
        if written(nodes, name) not in free:
            _hold(nodes[name])
    for function in graph_def.library.function:
        for node in function.node_def:
            _hold(node)


def _hold(node: NodeDef) -> None:
    """Makes a node that writes into one that does not; leaves any other as it is."""
    controls = [text for text in node.input if text.startswith("^")]
    if writes_by_handle(node):
        _become(node, "NoOp", controls)
    elif writes_by_reference(node) and data_inputs(node):
        dtype = node.attr["T"].type
        _become(node, "RefIdentity", [data_inputs(node)[0], *controls])
        node.attr["T"].type = dtype


def _become(node: NodeDef, op: str, inputs: list[str]) -> None:
    node.op = op
    del node.input[:]
    node.input.extend(inputs)
    node.attr.clear()
