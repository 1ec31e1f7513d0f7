"""Brings a graph as data into TensorFlow, under the file's names, once it is known to be sound."""

import itertools
import re
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.constant_sizes import check_constant_sizes
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.well_formed import check_well_formed

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
