"""Conditionals of the new kind: of the functions that are chosen between, the one that runs.

It is written out in the place of the choice, so that what is known inside of it can be folded too.

Operations: `tensorflow/core/ops/functional_ops.cc`.
"""

from tensorflow.core.framework.attr_value_pb2 import NameAttrList
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.graph_view import attribute, data_inputs
from tools.freezing.folding.scalars import Scalars
from tools.freezing.folding.written_out import can_write_out, write_out

_CALLS = {
    "Case": "StatefulPartitionedCall",
    "If": "StatefulPartitionedCall",
    "StatelessCase": "PartitionedCall",
    "StatelessIf": "PartitionedCall",
}
_KEPT = ("Tin", "Tout")


def fold_branches(graph: GraphDef) -> bool:
    """Puts the chosen function in the place of each choice that is known, in place.

    Returns:
      Whether something was folded.
    """
    known = Scalars({node.name: node for node in graph.node})
    library = {function.signature.name: function for function in graph.library.function}
    folded = False
    for node in list(graph.node):
        choice = known.value(data_inputs(node)[0]) if node.op in _CALLS else None
        if choice is not None:
            folded = True
            _call(node, _chosen(node, choice))
            function = library.get(node.attr["f"].func.name)
            if function is not None and can_write_out(node, function):
                write_out(graph, node, function)
    return folded


def _chosen(node: NodeDef, choice: Array) -> NameAttrList:
    """The function that is run; of several by number, the last where there is none of it."""
    if node.op.endswith("If"):
        return attribute(node, "then_branch" if choice else "else_branch").func
    branches = attribute(node, "branches").list.func
    index = int(choice)
    return branches[index if 0 <= index < len(branches) else -1]


def _call(node: NodeDef, function: NameAttrList) -> None:
    chosen = NameAttrList()
    chosen.CopyFrom(function)
    node.op = _CALLS[node.op]
    del node.input[0]
    for name in [name for name in node.attr if name not in _KEPT]:
        node.attr.pop(name)
    node.attr["f"].func.CopyFrom(chosen)
