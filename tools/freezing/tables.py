"""Lookup tables of a frozen graph: what fills them comes with it, as constants.

A table is no constant: it has to be filled in each session. The nodes that do so are kept, and the
collection `table_initializer` names them; predict.py runs them by itself, another client has to.
"""

from collections.abc import Mapping, Sequence

from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.loading.fed_tensors import free_scope
from checkpoints.loading.lookup_tables import Filling
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.restored_values import Restoring
from tools.freezing.nodes import make_constant

TABLE_INITIALIZERS = "table_initializer"

_SCOPE = "tables"


def add_table_values(
    graph: GraphDef, meta: MetaGraphFile, fillings: Sequence[Filling], assets: Mapping[str, str]
) -> list[str]:
    """Adds what fills the tables of a graph; returns the nodes to run for that.

    Args:
      graph: what is needed of the file; nodes are added to it.
      meta: the file.
      fillings: of the tables of `graph`.
      assets: the files that tables are filled from, as `load_inference_graph` takes them.

    Raises:
      CheckpointError: a file is not named, or is damaged; or no table takes an asset.
    """
    restoring = Restoring(meta, (), fillings, free_scope(meta, _SCOPE))
    steps = restoring.steps(assets)
    graph.MergeFrom(restoring.graph_def)
    nodes = {node.name: node for node in graph.node}
    for step in steps:
        for tensor, value in step.feeds.items():
            node = nodes[node_of(tensor)]
            make_constant(node, value, node.attr["dtype"].type)
    return [name for step in steps for name in step.targets]
