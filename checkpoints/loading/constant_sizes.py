"""Refuses constants that are far larger in memory than in their file.

Of equal values at the end of a constant, its file holds one: a few bytes may stand for any number.
TensorFlow takes the memory when it needs the value, which may be while it infers shapes.
"""

import math
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto

from checkpoints.errors import CheckpointError

MAX_BYTES = 1 << 30  # Of all constants together, beyond what the file holds of them.

_MAX_RANK = 254  # TensorFlow's own limit.
_CONSTANTS = ("Const", "HostConst")
_UNKNOWN_BYTES = 8  # Of a value whose dtype has no size, such as a string.


def check_constant_sizes(graph_def: GraphDef, where: str) -> None:
    """Sees that all constants of a graph and of its functions can be held.

    Args:
      graph_def: what is to be imported.
      where: the file it came from, for the message.

    Raises:
      CheckpointError: a constant has a negative size, or all together more than `MAX_BYTES`.
    """
    total = 0
    for node in _constants(graph_def):
        tensor = node.attr["value"].tensor
        sizes = [dim.size for dim in tensor.tensor_shape.dim]
        if min(sizes, default=0) < 0 or tensor.tensor_shape.unknown_rank or len(sizes) > _MAX_RANK:
            raise CheckpointError(f"{where} is damaged: the constant {node.name} has no shape")
        total += max(0, math.prod(sizes) * _value_bytes(tensor) - len(tensor.tensor_content))
        if total > MAX_BYTES:
            raise CheckpointError(
                f"{where} is refused: with the constant {node.name} of shape {sizes}, its "
                f"constants take more than {MAX_BYTES >> 20} MiB of memory"
            )


def _constants(graph_def: GraphDef) -> Iterator[NodeDef]:
    for node in graph_def.node:
        if node.op in _CONSTANTS:
            yield node
    for function in graph_def.library.function:
        for node in function.node_def:
            if node.op in _CONSTANTS:
                yield node


def _value_bytes(tensor: TensorProto) -> int:
    try:
        size: int = tf.as_dtype(tensor.dtype).size
    except TypeError:
        return _UNKNOWN_BYTES
    return size or _UNKNOWN_BYTES
