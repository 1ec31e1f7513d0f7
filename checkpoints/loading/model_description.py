"""What a meta graph says of its model, kept in a bare graph.

A `GraphDef` has no place for signatures and collections. They are put into it as the value of a
string constant that nothing takes: a serialized `MetaGraphDef` without a graph. So any client reads
the file as a graph, and whatever copies a graph's nodes copies the description with them.

The names in it are relative to the scope of its node: they stay right where the graph is imported
under a prefix, `tf.import_graph_def(graph_def, name="imported")`.
"""

import re
from collections.abc import Callable

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.model_parsing import parse_message

NODE = "model_description"

# Longer where the graph has a node of that name already.
_NODE = re.compile(rf"(?P<scope>(?:.+/)?){NODE}_*")


def add_description(meta: MetaGraphDef, scope: str = "") -> None:
    """Puts the signatures and the collections of a meta graph into its graph, as a further node.

    A description that the graph has already is replaced.

    Args:
      meta: its graph is changed.
      scope: what all names of the graph begin with, such as `imported/`.
    """
    take_description(meta.graph_def)
    relative = _without_graph(meta, lambda name: name.removeprefix(scope))
    content = relative.SerializeToString(deterministic=True)
    taken, name = {node.name for node in meta.graph_def.node}, scope + NODE
    while name in taken:
        name += "_"
    node = meta.graph_def.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.string.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(content, tf.string, []))


def take_description(graph_def: GraphDef) -> MetaGraphDef:
    """Takes the description out of a graph.

    One in a scope is that of the graph only where all of the graph is in the scope.

    Args:
      graph_def: the node of the description is removed from it.

    Returns:
      Signatures and collections, nothing else; none where the graph describes no model.
    """
    for index, node in enumerate(graph_def.node):
        match = _NODE.fullmatch(node.name) if node.op == "Const" else None
        if match is not None and all(n.name.startswith(match["scope"]) for n in graph_def.node):
            found = _description(node, match["scope"])
            if found is not None:
                del graph_def.node[index]
                return found
    return MetaGraphDef()


def _description(node: NodeDef, scope: str) -> MetaGraphDef | None:
    """What a node says, in the names of its graph; None where it is something else."""
    values = node.attr["value"].tensor.string_val if "value" in node.attr else []
    try:
        found = parse_message(MetaGraphDef(), values[0], NODE) if len(values) == 1 else None
    except CheckpointError:
        return None
    return None if found is None else _without_graph(found, lambda name: scope + name)


def _without_graph(meta: MetaGraphDef, renamed: Callable[[str], str]) -> MetaGraphDef:
    """Signatures and collections alone, with other names of nodes and tensors."""
    found = MetaGraphDef()
    for name, signature in meta.signature_def.items():
        copy = found.signature_def[name]
        copy.CopyFrom(signature)
        for info in (*copy.inputs.values(), *copy.outputs.values()):
            info.name = renamed(info.name)
    for name, collection in meta.collection_def.items():
        found.collection_def[name].CopyFrom(collection)
        if collection.HasField("node_list"):
            names = [renamed(text) for text in collection.node_list.value]
            found.collection_def[name].node_list.value[:] = names
    return found
