"""Dropouts that keep everything: what is multiplied by ones is passed on, and nothing is drawn.

The mask is known without drawing any number, see `masks`. These are the forms in use:

  x / keep * floor(keep + drawn)                      TensorFlow until 1.12
  x * (1 / (1 - rate)) * cast(drawn >= rate)          since 1.13
  select(drawn >= rate, x * (1 / (1 - rate)), 0)      since 2.9
  x * (cast(drawn < keep) / keep)                     here, `models/randomness.py`
"""

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.graph_view import attribute, data_inputs
from checkpoints.loading.meta_graph_file import node_of
from tools.freezing.folding.masks import Masks
from tools.freezing.folding.scalars import Scalars
from tools.freezing.nodes import make_constant, make_identity, remake, waits

_SELECTS = frozenset({"Select", "SelectV2"})


def fold_dropouts(graph: GraphDef) -> None:
    """Makes dropouts that keep everything identities, in place.

    Where it is not known that a mask has the shape of what it is for, the mask becomes a `Fill` of
    its shape, so that nothing is drawn there either.
    """
    nodes = {node.name: node for node in graph.node}
    masks, known = Masks(nodes), Scalars(nodes)
    for node in list(graph.node):
        passed = _passed_on(node, masks, known)
        if passed is not None:
            make_identity(node, passed, attribute(node, "T").type)
    for node in list(graph.node):
        mask = masks.drawn_mask(node)
        if mask is not None and mask.shape is not None:
            _make_fill(graph, node, mask.value, mask.shape, masks.shape_type(node))


def _make_fill(graph: GraphDef, node: NodeDef, value: Array, shape: str, index_type: int) -> None:
    dtype = tf.as_dtype(value.dtype).as_datatype_enum
    constant = graph.node.add(name=f"{node.name}/filled")
    # In a loop of the old kind a constant has to wait for something of the loop.
    make_constant(constant, value, dtype, [f"^{node_of(shape)}"])
    remake(
        node, "Fill", [shape, constant.name, *waits(node)], {"T": dtype, "index_type": index_type}
    )


def _passed_on(node: NodeDef, masks: Masks, known: Scalars) -> str | None:
    """The input that a node gives unchanged, if that is known."""
    inputs = data_inputs(node)
    if node.op == "Mul" and len(inputs) == 2:
        for values, mask in (inputs, inputs[::-1]):
            if masks.is_all(mask, 1, of_shape=values):
                return values
    if node.op == "RealDiv" and len(inputs) == 2 and masks.is_all(inputs[1], 1, inputs[0]):
        return inputs[0]
    if node.op in _SELECTS and len(inputs) == 3 and masks.is_all(inputs[0], True, inputs[1]):
        # A third of a larger shape would make the result as large.
        return inputs[1] if known.value(inputs[2]) is not None else None
    return None
