"""The nodes of two graphs, compared by name, as data.

Formats: `tensorflow/core/framework/node_def.proto`, `tensorflow/core/framework/attr_value.proto`.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from tools.comparison.attributes import describe, is_same

# What TensorFlow inferred and wrote down; it follows from the rest.
_INFERRED = "_output_shapes"

Definitions = Mapping[str, OpDef]


class NodeDifference(NamedTuple):
    """A node that both graphs have, and not alike.

    Attributes:
      name: of it.
      changes: a phrase each, such as `input 1: a -> b`.
    """

    name: str
    changes: list[str]


class NodesDifference(NamedTuple):
    """How two sets of nodes differ; names are in the order of their graph.

    Attributes:
      added: that only B has.
      removed: that only A has.
      changed: that both have.
    """

    added: list[str]
    removed: list[str]
    changed: list[NodeDifference]

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.added or self.removed or self.changed)


def compare_nodes(
    a: Mapping[str, NodeDef], b: Mapping[str, NodeDef], definitions: Definitions
) -> NodesDifference:
    """Compares nodes by name.

    Args:
      a: nodes by name.
      b: likewise.
      definitions: of operations; an attribute that a node does not have is the default in it.
    """
    changes = {name: [*_changes(a[name], b[name], definitions)] for name in a if name in b}
    return NodesDifference(
        added=[name for name in b if name not in a],
        removed=[name for name in a if name not in b],
        changed=[NodeDifference(name, found) for name, found in changes.items() if found],
    )


def _changes(a: NodeDef, b: NodeDef, definitions: Definitions) -> Iterator[str]:
    if a.op != b.op:
        yield f"operation: {a.op} -> {b.op}"
    for index, (one, other) in enumerate(itertools.zip_longest(_data(a), _data(b))):
        if one != other:
            yield f"input {index}: {one or 'none'} -> {other or 'none'}"
    yield from (f"waits no longer for {name}" for name in sorted(_waited(a) - _waited(b)))
    yield from (f"waits for {name}" for name in sorted(_waited(b) - _waited(a)))
    if a.device != b.device:
        yield f"device: {a.device or 'none'} -> {b.device or 'none'}"
    for name in sorted({*a.attr, *b.attr} - {_INFERRED}):
        one, other = _attribute(a, name, definitions), _attribute(b, name, definitions)
        if not is_same(one, other):
            yield f"attribute {name}: {describe(one)} -> {describe(other)}"


def _data(node: NodeDef) -> list[str]:
    """The inputs that carry values; `op` and `op:0` are the same."""
    return [text.removesuffix(":0") for text in node.input if not text.startswith("^")]


def _waited(node: NodeDef) -> set[str]:
    return {text[1:] for text in node.input if text.startswith("^")}


def _attribute(node: NodeDef, name: str, definitions: Definitions) -> AttrValue | None:
    """An attribute, or its default; None where there is neither."""
    if name in node.attr:
        return node.attr[name]
    if node.op in definitions:
        for definition in definitions[node.op].attr:
            if definition.name == name and definition.HasField("default_value"):
                return definition.default_value
    return None
