"""Texts of a constant in a graph, taken one at a time: a hostile shape costs no memory."""

import math

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_STRING


def text_at(node: NodeDef, index: int) -> str | None:
    """The text at a place of a constant of strings.

    Format: `tensorflow/core/framework/tensor.proto`; where there are fewer texts than the shape
    says, the last one fills the rest.

    Args:
      node: of any kind.
      index: into its flattened value.

    Returns:
      None where `node` is no such constant, or is damaged, or has no such place.
    """
    if node.op != "Const" or "value" not in node.attr:
        return None
    tensor = node.attr["value"].tensor
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    texts = tensor.string_val
    if tensor.dtype != DT_STRING or not texts or min(sizes, default=0) < 0:
        return None
    if not len(texts) <= math.prod(sizes) or not 0 <= index < math.prod(sizes):
        return None
    try:
        return str(texts[min(index, len(texts) - 1)].decode("utf-8"))
    except UnicodeDecodeError:
        return None
