"""A serialized graph, node by node, so that no second copy of it need be in memory.

Format: `tensorflow/core/framework/graph.proto`; https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator

from tensorflow.core.framework.graph_pb2 import GraphDef

_NODE_TAG = b"\x0a"  # Field 1, a message.


def graph_parts(graph: GraphDef) -> Iterator[bytes]:
    """The bytes of a graph, piece by piece: a message is its fields, one after another."""
    for node in graph.node:
        content = node.SerializeToString(deterministic=True)
        yield _NODE_TAG + _varint(len(content))
        yield content
    rest = GraphDef(library=graph.library, versions=graph.versions)
    yield rest.SerializeToString(deterministic=True)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that another byte follows."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
