"""Works out what is known of a graph, and takes out what then never runs."""

from collections.abc import Collection

from tensorflow.core.framework.graph_pb2 import GraphDef

from tools.freezing.folding.branches import fold_branches
from tools.freezing.folding.conditionals import fold_conditionals
from tools.freezing.folding.dropout import fold_dropouts


def fold(graph: GraphDef, wanted: Collection[str]) -> None:
    """Folds conditionals of known predicates, and dropouts that keep everything.

    All is done within the graph itself; the functions that it calls stay as they are.

    Args:
      graph: changed in place, without variables; what never runs any more is still there, and
        nothing that `wanted` needs takes it.
      wanted: full names of the tensors that are fetched; they keep their values and names.
    """
    folding = True
    while folding:  # What comes out of a conditional may be the predicate of another.
        folding = fold_conditionals(graph, wanted) or fold_branches(graph)
    fold_dropouts(graph)
