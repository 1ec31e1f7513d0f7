"""A graph once more in the same graph, on other inputs and with the same constants."""

from collections.abc import Mapping, Set

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.meta_graph_file import node_of
from tools.freezing.frozen_graph import FrozenGraph


def import_second_copy(
    graph: tf.Graph, frozen: FrozenGraph, values: Mapping[str, tf.Tensor], scope: str
) -> dict[str, str]:
    """Imports what computes into the default graph again, under another scope.

    What takes nothing is that of the first copy: constants, which hold the weights, so that the
    file grows by kilobytes, and tables, which are filled once; so are inputs that are not replaced.
    (A constant inside of a loop takes something: it waits for the loop.)

    Args:
      graph: the default graph, with the first copy under its own names.
      frozen: what the first copy was imported from.
      values: what some of its inputs are in the second copy, by full name.
      scope: no node of the graph may be in it.

    Returns:
      The outputs of the second copy: key -> full tensor name.
    """
    graph_def = frozen.meta.graph_def
    inputs = {node_of(name) for name in frozen.inputs.values()}
    shared = {node.name for node in graph_def.node if node.name in inputs or not node.input}
    copy = GraphDef(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if node.name not in shared:
            _copy(node, copy.node.add(), shared)
    taken = {_full(text) for node in copy.node for text in node.input if text[0] != "^"}
    mapped = {
        name: values[name] if name in values else graph.get_tensor_by_name(name)
        for name in taken
        if node_of(name) in shared
    }
    tf.import_graph_def(copy, input_map=mapped, name=scope)

    def in_the_copy(name: str) -> str:
        if name in values:
            return str(values[name].name)
        return name if node_of(name) in shared else f"{scope}/{name}"

    return {key: in_the_copy(name) for key, name in frozen.outputs.items()}


def _copy(node: NodeDef, copied: NodeDef, shared: Set[str]) -> None:
    """Copies a node; for what is shared, which only gives a value, it does not wait."""
    copied.CopyFrom(node)
    kept = [text for text in node.input if text[0] != "^" or text[1:] not in shared]
    copied.input[:] = kept


def _full(text: str) -> str:
    return text if ":" in text else f"{text}:0"
