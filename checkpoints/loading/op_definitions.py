"""What the installed TensorFlow says of operations: their inputs, outputs and attributes."""

import itertools
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef


def op_definitions(graph_def: GraphDef) -> Mapping[str, OpDef]:
    """What this TensorFlow says of each operation of a graph and of the functions it has in it.

    One that it does not have is left out: the import of the graph says so.
    """
    functions = graph_def.library.function
    nodes = itertools.chain(graph_def.node, *(function.node_def for function in functions))
    ops = {node.op for node in nodes} - {function.signature.name for function in functions}
    flat = GraphDef(node=[NodeDef(name=op, op=op) for op in sorted(ops)])
    with tf.Graph().as_default() as graph:  # It refuses to work outside one.
        exported = tf.compat.v1.train.export_meta_graph(graph_def=flat, graph=graph)
    return {op.name: op for op in exported.meta_info_def.stripped_op_list.op}
