"""What a meta graph says of its model, kept in a bare graph.

A `GraphDef` has no place for signatures and collections. They are put into it as the value of a
string constant that nothing takes: a serialized `MetaGraphDef` without a graph. So any client reads
the file as a graph, and whatever copies a graph's nodes copies the description with them.
"""

import re

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.model_parsing import parse_message

NODE = "model_description"

_NODE = re.compile(NODE + "_*")  # Longer where the graph has a node of that name already.


def add_description(meta: MetaGraphDef) -> None:
    """Puts the signatures and the collections of a meta graph into its graph, as a further node.

    A description that the graph has already is replaced.
    """
    take_description(meta.graph_def)
    content = _without_graph(meta).SerializeToString(deterministic=True)
    taken, name = {node.name for node in meta.graph_def.node}, NODE
    while name in taken:
        name += "_"
    node = meta.graph_def.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.string.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(content, tf.string, []))


def take_description(graph_def: GraphDef) -> MetaGraphDef:
    """Takes the description out of a graph.

    Args:
      graph_def: the node of the description is removed from it.

    Returns:
      Signatures and collections, nothing else; none where the graph describes no model.
    """
    for index, node in enumerate(graph_def.node):
        if node.op == "Const" and _NODE.fullmatch(node.name):
            found = _description(node)
            if found is not None:
                del graph_def.node[index]
                return found
    return MetaGraphDef()


def _description(node: NodeDef) -> MetaGraphDef | None:
    """What a node says; None where it is something else."""
    values = node.attr["value"].tensor.string_val if "value" in node.attr else []
    try:
        found = parse_message(MetaGraphDef(), values[0], NODE) if len(values) == 1 else None
    except CheckpointError:
        return None
    return None if found is None else _without_graph(found)


def _without_graph(meta: MetaGraphDef) -> MetaGraphDef:
    """Signatures and collections alone."""
    found = MetaGraphDef()
    for name, signature in meta.signature_def.items():
        found.signature_def[name].CopyFrom(signature)
    for name, collection in meta.collection_def.items():
        found.collection_def[name].CopyFrom(collection)
    return found
