"""A part of a graph in TensorFlow, to be looked at and never run: its static dtypes and shapes."""

from collections.abc import Collection

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.loading.graph_import import import_graph
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.op_check import disarm
from checkpoints.loading.sub_graph import sub_graph


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
