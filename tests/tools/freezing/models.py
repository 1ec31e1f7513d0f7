"""Models in plain TensorFlow, frozen by us and run by a client that knows nothing of ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from metagraph.meta import read_meta_graph
from tools.freeze import PartConfig
from tools.freezing import freeze_and_compare
from tools.frozen_graph import FrozenGraph

v1 = tf.compat.v1

Array = npt.NDArray[Any]


def frozen(meta: str, *outputs: str, **asked: Any) -> FrozenGraph:
    """The frozen graph, which is found to compute what the original does."""
    config = PartConfig(meta, "none.pb", outputs=outputs, **asked)
    found, _, difference = freeze_and_compare(read_meta_graph(meta), config)
    assert difference == 0.0
    return found


def fed(found: FrozenGraph) -> dict[str, str]:
    """The names of its inputs by their keys."""
    return {key: info.name for key, info in found.inputs.items()}


def ops(graph: GraphDef) -> set[str]:
    """All operations of a graph and of its functions."""
    functions = graph.library.function
    return {node.op for nodes in (graph.node, *(f.node_def for f in functions)) for node in nodes}


def run(graph: GraphDef, fetches: Sequence[str], feeds: Mapping[str, Any]) -> list[Array]:
    """What a stock client gets from the graph alone; nothing is restored or initialised."""
    with tf.Graph().as_default() as imported, v1.Session() as session:
        tf.import_graph_def(GraphDef.FromString(graph.SerializeToString()), name="")
        assert not imported.get_collection(v1.GraphKeys.GLOBAL_VARIABLES)
        return [np.asarray(value) for value in session.run(list(fetches), dict(feeds))]
