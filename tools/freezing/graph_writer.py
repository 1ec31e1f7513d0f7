"""Writes a graph, node by node, so that no second copy of it is in memory.

Format: `tensorflow/core/framework/graph.proto`; https://protobuf.dev/programming-guides/encoding
"""

import os
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.durable import flush, rename
from tools.common.errors import ToolError

_TEMPORARY_SUFFIX = ".tmp"
_NODE_TAG = b"\x0a"  # Field 1, a message.


def write_graph(graph: GraphDef, path: str) -> int:
    """Writes the bytes of `graph` in one step: at any instant the old file is there or the new.

    Returns:
      How many bytes there are.

    Raises:
      ToolError: the disk refuses; what was there is as it was.
    """
    temporary, folder = path + _TEMPORARY_SUFFIX, os.path.dirname(path)
    size = 0
    try:
        if folder:
            tf.io.gfile.makedirs(folder)
        with tf.io.gfile.GFile(temporary, "wb") as file:
            for part in _parts(graph):
                file.write(part)
                size += len(part)
        flush(temporary)
        rename(temporary, path)
        flush(folder or ".")
    except (tf.errors.OpError, OSError) as error:
        _remove(temporary)
        raise ToolError(f"{path} cannot be written: {error}") from error
    return size


def _parts(graph: GraphDef) -> Iterator[bytes]:
    """The serialized graph, piece by piece: a message is its fields, one after another."""
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


def _remove(path: str) -> None:
    if tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)
