"""The layers of a graph: its name scopes."""

import posixpath
import re
from collections.abc import Container

_PART = re.compile(r"/part_\d+$")  # Of a partitioned variable.


def layer_of(path: str, nodes: Container[str], depth: int | None = None) -> str:
    """The scope that a node belongs to; empty for the top.

    What TensorFlow puts into a scope named after a node, as `w/read` and `w/Assign`, belongs with
    that node.

    Args:
      path: of the node.
      nodes: the names of the graph's nodes.
      depth: at most so many scopes, the outer ones; None for all.
    """
    scope = posixpath.dirname(_PART.sub("", path))
    while scope and scope in nodes:
        scope = posixpath.dirname(scope)
    return scope if depth is None else "/".join(scope.split("/")[:depth])
