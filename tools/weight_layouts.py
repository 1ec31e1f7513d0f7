"""How the weights of a graph lie in PyTorch: told by the operation that takes them, or refused.

A dimension of a filter is H, W (D, of three; K, of one): its place, I: the channels it takes, O:
those it gives, M: those that a depthwise one gives for each that it takes.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import Array
from errors import ToolError, first_few
from metagraph.graph import View, attribute_of, called, data_inputs, sub_graph, views
from metagraph.meta import MetaGraphFile
from metagraph.model import find_candidates, read_model
from metagraph.variables import AVERAGE, VARIABLE_OPS, checkpoint_keys


class Layout(NamedTuple):
    """What becomes of an array: its axes in another order, and perhaps two of them as one."""

    name: str
    axes: tuple[int, ...] = ()  # Empty where it stays as it is.
    is_depthwise: bool = False  # The channels that it takes and gives become one, with a 1 after.

    def apply(self, value: Array) -> Array:
        """The array as it is to be written, in one piece."""
        if self.axes:
            value = value.transpose(self.axes)
        if self.is_depthwise:
            value = value.reshape(math.prod(value.shape[:2]), 1, *value.shape[2:])
        return np.asarray(value, order="C")

    def undo(self, value: Array, shape: Sequence[int]) -> Array:
        """The array of this shape that `apply` has made `value` of."""
        if not self.axes:
            return value
        return value.reshape([shape[axis] for axis in self.axes]).transpose(np.argsort(self.axes))


AS_IT_IS, UNKNOWN = Layout("as it is"), Layout("unknown")
_SWAPPED = Layout("IO -> OI", (1, 0))
# By operation and rank. A filter of rank 3 gets a first dimension, as `tf.nn.conv1d` has it.
_FILTERS = {
    ("Conv2D", 3): Layout("KIO -> OIK", (2, 1, 0)),
    ("Conv2D", 4): Layout("HWIO -> OIHW", (3, 2, 0, 1)),
    ("Conv3D", 5): Layout("DHWIO -> OIDHW", (4, 3, 0, 1, 2)),
    ("DepthwiseConv2dNative", 4): Layout("HWIM -> (IM)1HW", (2, 3, 0, 1), is_depthwise=True),
    # A transposed convolution; the first of its inputs is a shape.
    ("Conv2DBackpropInput", 3): Layout("KOI -> IOK", (2, 1, 0)),
    ("Conv2DBackpropInput", 4): Layout("HWOI -> IOHW", (3, 2, 0, 1)),
    ("Conv3DBackpropInputV2", 5): Layout("DHWOI -> IODHW", (4, 3, 0, 1, 2)),
}
_FLIPS = {  # The attributes that say of the first and second input that it is transposed.
    "MatMul": ("transpose_a", "transpose_b"),
    **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), ("adj_x", "adj_y")),
}
_LOOKED_UP = frozenset({"Gather", "GatherV2", "ResourceGather"})
_NO_USE = frozenset({"IsVariableInitialized", "L2Loss", "Shape", "VarIsInitializedOp"})
_SEEN_THROUGH = frozenset(
    {"Cast", "Enter", "ExpandDims", "Identity", "ReadVariableOp", "RefEnter", "RefIdentity"}
)
_MOST_STEPS = 64  # From an operation to the variable: a hostile chain may be endless.
_MOST_NAMED = 5


def torch_layouts(
    meta: MetaGraphFile, shapes: Mapping[str, Sequence[int]], names: Sequence[str]
) -> dict[str, Layout]:
    """What becomes of some of the variables of a checkpoint, all of which `shapes` has.

    Vectors and single numbers stay as they are. Of the others, what the prediction takes them for
    tells. Raises ToolError where that does not, or tells two things.
    """
    uses = _uses(meta, shapes)
    found, unknown = dict[str, Layout](), list[str]()
    for name in names:
        own = uses.get(name) or uses.get(name.removesuffix(AVERAGE), set())
        told = {layout for _, layout in own} if len(shapes[name]) > 1 else {AS_IT_IS}
        if len(told) == 1 and UNKNOWN not in told:
            found[name] = told.pop()
            continue
        ops = ", ".join(sorted({op for op, _ in own})) or "no operation of the prediction"
        unknown.append(f"{name} {list(shapes[name])} (taken by {ops})")
    if unknown:
        raise ToolError(
            "--layout=torch: the graph does not tell how these lie: "
            f"{first_few(unknown, _MOST_NAMED)}; leave them out with --only, or leave out --layout"
        )
    return found


def _uses(
    meta: MetaGraphFile, shapes: Mapping[str, Sequence[int]]
) -> dict[str, set[tuple[str, Layout]]]:
    """The operations of the prediction that take each variable, with what they tell of it."""
    model = read_model(meta)
    outputs = dict.fromkeys([*model.predict, *model.outputs.values()])
    graph = sub_graph(meta, [*outputs] or find_candidates(meta).outputs).graph_def
    needed = MetaGraphFile(meta.path, meta.prefix, MetaGraphDef(graph_def=graph))
    library = {function.signature.name: function for function in graph.library.function}
    names = [node.name for node in graph.node if node.op in VARIABLE_OPS]
    keys = {name: stored.key for name, stored in checkpoint_keys(meta, names, shapes).items()}
    uses = defaultdict[str, set[tuple[str, Layout]]](set)
    for node, index, name in _takers(needed):
        key = keys[name]
        if key in shapes and not any(called(node, library)):
            uses[key].add((node.op, _told(node, index, len(shapes[key]))))
    return uses


def _takers(meta: MetaGraphFile) -> Iterator[tuple[NodeDef, int, str]]:
    """Each node that takes a variable's value as the input of an index, and the variable."""
    wanted = {op for op, _ in _FILTERS} | _FLIPS.keys() | _LOOKED_UP
    for view in views(meta, wanted):
        for node in view.nodes.values():
            if node.op not in _SEEN_THROUGH | _NO_USE:
                for index, text in enumerate(data_inputs(node)):
                    if name := _variable(view, text):
                        yield node, index, name


def _variable(view: View, text: str) -> str | None:
    """The variable whose value an input is, in its own shape but for dimensions of one."""
    for _ in range(_MOST_STEPS):
        name = text.partition(":")[0]
        if view.caller is not None and name in view.arguments:
            view, text = view.caller, view.arguments[name]
            continue
        node = view.nodes.get(name)
        if node is None or node.op in VARIABLE_OPS:
            return node and node.name
        inputs = data_inputs(node)
        if node.op not in _SEEN_THROUGH or not inputs:
            return None
        text = inputs[0]
    return None


def _told(node: NodeDef, index: int, rank: int) -> Layout:
    """What an operation tells of a variable that is its input; `UNKNOWN` where it is nothing."""
    if index == 1 and (node.op, rank) in _FILTERS:
        return _FILTERS[node.op, rank]
    if node.op in _FLIPS and rank == 2 and index < 2:
        flipped = attribute_of(node, _FLIPS[node.op][index]).b
        return AS_IT_IS if flipped == (index == 1) else _SWAPPED
    return AS_IT_IS if node.op in _LOOKED_UP and index == 0 else UNKNOWN
