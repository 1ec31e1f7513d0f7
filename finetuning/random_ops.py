"""Random operations of a graph become functions of a key: what they draw can be drawn again.

A stateful operation draws from a generator of the session, whose place nobody saves: a run that is
resumed would draw other dropout masks than an unbroken one. Its stateless kin draws the same kind
of numbers from a key of two integers.

Operations: `tensorflow/core/ops/random_ops.cc`, `stateless_random_ops.cc`.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from prediction.randomness import RANDOM_OPS

_FIRST_STREAM = 1 << 30  # Streams below it are of the models of this project.


class _Kin(NamedTuple):
    """The stateless kin of an operation.

    Attributes:
      op: its name.
      key_input: which of its inputs is the key; the others are those of the stateful one.
      renamed: attributes that have another name there.
    """

    op: str
    key_input: int
    renamed: Mapping[str, str]


_KIN: Mapping[str, _Kin] = {
    "Multinomial": _Kin("StatelessMultinomial", 2, {}),
    "RandomStandardNormal": _Kin("StatelessRandomNormal", 1, {}),
    "RandomUniform": _Kin("StatelessRandomUniform", 1, {}),
    "RandomUniformInt": _Kin("StatelessRandomUniformInt", 1, {"Tout": "dtype"}),
    "TruncatedNormal": _Kin("StatelessTruncatedNormal", 1, {}),
}


def make_stateless(graph_def: GraphDef, key_of: Callable[[str], str]) -> list[str]:
    """Rewrites the random nodes of a graph, in place.

    Args:
      graph_def: its library functions stay as they are.
      key_of: node -> the name of the tensor that is to be its key, int64 [2].

    Returns:
      The nodes that stay random, with the operation of each, those of functions included.
    """
    for node in graph_def.node:
        if node.op in _KIN:
            _rewrite(node, key_of(node.name))
    left = [f"{node.name} ({node.op})" for node in graph_def.node if node.op in RANDOM_OPS]
    left += [
        f"{function.signature.name}/{node.name} ({node.op})"
        for function in graph_def.library.function
        for node in function.node_def
        if node.op in RANDOM_OPS
    ]
    return left


def random_nodes(graph_def: GraphDef) -> list[str]:
    """The nodes that `make_stateless` rewrites."""
    return [node.name for node in graph_def.node if node.op in _KIN]


def stream_of(node: str) -> int:
    """The stream of a node's draws, in [2**30, 2**31), from its name."""
    return _FIRST_STREAM | zlib.crc32(node.encode()) & (_FIRST_STREAM - 1)


def _rewrite(node: NodeDef, key: str) -> None:
    kin = _KIN[node.op]
    inputs = list(node.input)
    inputs.insert(kin.key_input, key)
    del node.input[:]
    node.input.extend(inputs)
    node.op = kin.op
    for name in ("seed", "seed2"):
        node.attr.pop(name, None)
    for old, new in kin.renamed.items():
        node.attr[new].CopyFrom(node.attr[old])
        del node.attr[old]
    node.attr["Tseed"].type = tf.int64.as_datatype_enum
