"""The part of a graph that some tensors need: a graph as data, cut where it is fed."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.errors import CheckpointError
from checkpoints.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    node_of,
)


class SubGraph(NamedTuple):
    """A part of a graph.

    Attributes:
      graph_def: the nodes and library functions that are needed, pinned to no device.
      feeds: those of the fed tensors that its nodes take; it no longer computes them.
    """

    graph_def: GraphDef
    feeds: frozenset[str]

    @property
    def unfed(self) -> tuple[str, ...]:
        """The placeholders without a default that still have to be fed."""
        return tuple(f"{n.name}:0" for n in self.graph_def.node if n.op in PLACEHOLDERS)


def sub_graph(
    meta: MetaGraphFile, fetches: Collection[str], feeds: Collection[str] = ()
) -> SubGraph:
    """Keeps what `fetches` are computed from, control inputs included, and nothing else.

    A fed tensor ends the walk: it is left in the inputs of its consumers, and the node that
    computed it is dropped unless another of its outputs is needed. As a fed node does not run,
    nothing waits for it either: control inputs from it are dropped.

    Args:
      meta: the file.
      fetches: full tensor names, of nodes that exist.
      feeds: likewise.

    Raises:
      CheckpointError: a node's input does not exist.
    """
    feeds = set(feeds)
    fed_nodes = {node_of(name) for name in feeds}
    kept, taken = set[str](), set[str]()
    waiting = [node_of(name) for name in fetches if name not in feeds]
    while waiting:
        node = waiting.pop()
        if node not in kept:
            kept.add(node)
            inputs = set(_inputs(meta, node, fed_nodes))
            taken |= inputs & feeds
            waiting += [node_of(name) for name in inputs - feeds]
    graph_def = GraphDef(versions=meta.proto.graph_def.versions)
    for name, node in meta.nodes.items():
        if name in kept:
            graph_def.node.append(_cleaned(node, fed_nodes))
    _add_functions(meta, graph_def)
    return SubGraph(graph_def, frozenset(taken))


def _inputs(meta: MetaGraphFile, node: str, fed_nodes: Collection[str]) -> Iterator[str]:
    """The full names of the tensors that a node waits for, its control inputs as output 0."""
    for text in meta.nodes[node].input:
        name = text.removeprefix("^")
        if node_of(name) not in meta.nodes:
            raise CheckpointError(f"{meta.path} is damaged: {node} has an unknown input {text}")
        if not (text.startswith("^") and name in fed_nodes):
            yield name if ":" in name else f"{name}:0"


def _cleaned(node: NodeDef, fed_nodes: Collection[str] = ()) -> NodeDef:
    """A copy without what ties a node to where and when it was made.

    Those are its device, its colocation with nodes that may be gone, and shapes that were
    inferred by an older TensorFlow. Shapes of placeholders stay, as the graphs of old producers
    (before version 24) have them nowhere else.
    """
    cleaned = NodeDef()
    cleaned.CopyFrom(node)
    cleaned.device = ""
    cleaned.attr.pop("_class", None)
    if node.op not in PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT:
        cleaned.attr.pop("_output_shapes", None)
    kept = [n for n in node.input if not (n.startswith("^") and n[1:] in fed_nodes)]
    del cleaned.input[:]
    cleaned.input.extend(kept)
    return cleaned


def _add_functions(meta: MetaGraphFile, graph_def: GraphDef) -> None:
    """Adds the library functions that the nodes of `graph_def` call, and those they call."""
    library = {
        function.signature.name: function for function in meta.proto.graph_def.library.function
    }
    added = set[str]()
    waiting = [name for node in graph_def.node for name in _called(node, library)]
    while waiting:
        name = waiting.pop()
        if name in added:
            continue
        added.add(name)
        waiting += [n for node in library[name].node_def for n in _called(node, library)]
        copy = graph_def.library.function.add()
        copy.CopyFrom(library[name])
        del copy.node_def[:]
        copy.node_def.extend(_cleaned(node) for node in library[name].node_def)


def _called(node: NodeDef, library: Mapping[str, FunctionDef]) -> Iterator[str]:
    """The functions of `library` that a node names: by its op (the old form) or in an attribute."""
    named = [node.op, *(name for value in node.attr.values() for name in _functions_in(value))]
    return (name for name in named if name in library)


def _functions_in(value: AttrValue) -> list[str]:
    return [value.func.name, *(function.name for function in value.list.func)]
