"""Variables of a graph become constants, and what takes them by reference or handle, their values.

A variable is replaced where it stands, so that its name is that of its value. Loops, conditionals
and functions may pass on references (to a `VariableV2`) or handles (of a `VarHandleOp`); they pass
on the value from then on.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.errors import first_few
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.sub_graph import nodes_by_op
from checkpoints.loading.variable_values import (
    RESOURCE_VARIABLE,
    VARIABLE_OPS,
    Variable,
    read_values,
    variable_of,
)
from tools.common.errors import ToolError
from tools.freezing.handles import Handles
from tools.freezing.nodes import fill_constant, remake
from tools.freezing.references import replace_references

_MOST_BYTES = 2**31 - 1  # Of one protobuf message.
_SHOWN = 3


class Replaced(NamedTuple):
    """What has become of the variables of a graph.

    Attributes:
      variables: by name; a constant of that name waits for the value.
      writers: nodes that take a variable itself, those of functions as `function/node`.
    """

    variables: Mapping[str, Variable]
    writers: Collection[str]


def replace_variables(graph: GraphDef, meta: MetaGraphFile, fed: Collection[str]) -> Replaced:
    """Replaces them by constants that have no values yet.

    What changes a variable stays as it is: see `check_writers`, for what is still there once
    the graph is folded.

    Args:
      graph: a part of the file's graph; changed in place.
      meta: the file.
      fed: nodes in whose place there is by now a placeholder or a constant.

    Raises:
      CheckpointError: a variable is damaged.
    """
    found = {node.name: variable_of(meta, node) for node in graph.node if node.op in VARIABLE_OPS}
    for node in graph.node:
        if node.name in found:
            remake(node, "Const", (), {"dtype": found[node.name].dtype.as_datatype_enum})
    nodes = [meta.nodes[n] for n in {*found, *fed} if meta.nodes[n].op in VARIABLE_OPS]
    dtypes = {n.name: variable_of(meta, n).dtype.as_datatype_enum for n in nodes}
    handles = {node.name for node in nodes if node.op == RESOURCE_VARIABLE}
    writers = replace_references(graph, dtypes.keys() - handles)
    replacing = Handles(graph)
    replacing.replace({name: dtypes[name] for name in handles})
    return Replaced(found, {*writers, *replacing.writers})


def check_writers(graph: GraphDef, writers: Collection[str], path: str) -> None:
    """Sees that a graph takes no variable but to read it.

    Args:
      graph: the one that is kept.
      writers: as of `Replaced`.
      path: of the file.

    Raises:
      ToolError: it writes to one; or does something else with it that a constant cannot do.
    """
    found = [
        f"{name} ({op})"
        for op, names in nodes_by_op(graph).items()
        for name in names
        if name in writers
    ]
    if found:
        raise ToolError(
            f"{path} cannot be frozen: its outputs need {first_few(found, _SHOWN)}, which changes "
            "a variable or does not just read it, and a frozen graph has none; name other --outputs"
        )


def fill_constants(graph: GraphDef, meta: MetaGraphFile, variables: Mapping[str, Variable]) -> None:
    """Gives the constants their values; each value is freed once it is in the graph.

    Args:
      graph: changed in place; what has become of some of `variables` may be gone.
      meta: the file.
      variables: as of `Replaced`.

    Raises:
      CheckpointError: the checkpoint lacks a variable or is damaged.
      ToolError: the graph would be larger than a protobuf message can be.
    """
    nodes = [node for node in graph.node if node.name in variables]
    values = read_values(meta, [variables[node.name] for node in nodes])
    size = graph.ByteSize() + sum(value.nbytes for value in values.values())
    if size > _MOST_BYTES:
        raise ToolError(
            f"{meta.path} with its variables takes {size} bytes, and a file of one graph holds at "
            f"most {_MOST_BYTES}: keep fewer --outputs, or export a SavedModel, whose variables "
            "are in files of their own"
        )
    for node in nodes:
        fill_constant(node, values.pop(node.name))
