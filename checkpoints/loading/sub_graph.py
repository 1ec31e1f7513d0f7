"""The part of a graph that some tensors need: a graph as data, cut where it is fed."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.graph_view import called
from checkpoints.loading.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    node_of,
)
from checkpoints.loading.silent import silence, silent_inputs


@dataclass(frozen=True, eq=False)
class SubGraph:
    """A part of a graph.

    Attributes:
      meta: the file that the graph is in.
      names: the nodes that are needed.
      feeds: those of the fed tensors that they take; it no longer computes them.
      fed_nodes: the nodes of all fed tensors.
    """

    meta: MetaGraphFile
    names: frozenset[str]
    feeds: frozenset[str]
    fed_nodes: frozenset[str]

    @cached_property
    def unfed(self) -> tuple[str, ...]:
        """The placeholders without a default that still have to be fed, in the file's order."""
        found = {name for name in self.names if self.meta.nodes[name].op in PLACEHOLDERS}
        return tuple(f"{name}:0" for name in self.meta.nodes if name in found) if found else ()

    @cached_property
    def graph_def(self) -> GraphDef:
        """The nodes in the file's order and the library functions they need.

        They are on no device, and print nothing.
        """
        graph_def = GraphDef(versions=self.meta.proto.graph_def.versions)
        for name, node in self.meta.nodes.items():
            if name in self.names:
                _copy_cleaned(node, graph_def.node.add(), self.fed_nodes)
        _add_functions(self.meta, graph_def)
        return graph_def


def sub_graph(
    meta: MetaGraphFile, fetches: Collection[str], feeds: Collection[str] = ()
) -> SubGraph:
    """Keeps what `fetches` are computed from, control inputs included, and nothing else.

    A fed tensor ends the walk: it is left in the inputs of its consumers, and the node that
    computed it is dropped unless another of its outputs is needed. As a fed node does not run,
    nothing waits for it either: control inputs from it are dropped. Loops, also those that no
    TensorFlow has made, end as each node is visited once.

    Args:
      meta: the file.
      fetches: full tensor names, of nodes that exist.
      feeds: likewise.

    Raises:
      CheckpointError: a node's input does not exist.
    """
    feeds = frozenset(feeds)
    fed_nodes = frozenset(node_of(name) for name in feeds)
    kept, taken = set[str](), set[str]()
    waiting = [node_of(name) for name in fetches if name not in feeds]
    while waiting:
        node = waiting.pop()
        if node in kept:
            continue
        kept.add(node)
        for name in _inputs(meta, node, fed_nodes):
            if name in feeds:
                taken.add(name)
            else:
                waiting.append(node_of(name))
    return SubGraph(meta, frozenset(kept), frozenset(taken), fed_nodes)


def nodes_by_op(graph_def: GraphDef) -> dict[str, list[str]]:
    """The names of the nodes of each operation; of a library function's, as `function/node`."""
    found: dict[str, list[str]] = {}
    for node in graph_def.node:
        found.setdefault(node.op, []).append(node.name)
    for function in graph_def.library.function:
        for node in function.node_def:
            found.setdefault(node.op, []).append(f"{function.signature.name}/{node.name}")
    return found


def reachable(meta: MetaGraphFile, nodes: Iterable[str]) -> set[str]:
    """The nodes that some nodes stand on, they included; inputs that do not exist are left out."""
    found = set[str]()
    waiting = list(nodes)
    while waiting:
        name = waiting.pop()
        if name not in found and name in meta.nodes:
            found.add(name)
            waiting += [node_of(text.removeprefix("^")) for text in meta.nodes[name].input]
    return found


def _inputs(meta: MetaGraphFile, node: str, fed_nodes: Collection[str]) -> Iterator[str]:
    """The full names of the tensors that a node waits for, its control inputs as output 0."""
    for text in silent_inputs(meta.nodes[node]):
        name = text.removeprefix("^")
        if node_of(name) not in meta.nodes:
            raise CheckpointError(f"{meta.path} is damaged: {node} has an unknown input {text}")
        if not (text.startswith("^") and name in fed_nodes):
            yield name if ":" in name else f"{name}:0"


def _copy_cleaned(
    node: NodeDef, cleaned: NodeDef, fed_nodes: Collection[str] = frozenset()
) -> None:
    """Copies a node to the empty `cleaned`, without what ties it to where and when it was made.

    Those are its device, its colocation with nodes that may be gone, and shapes that were
    inferred by an older TensorFlow. Shapes of placeholders stay, as the graphs of old producers
    (before version 24) have them nowhere else. What prints is made silent.
    """
    cleaned.CopyFrom(node)
    silence(cleaned)
    cleaned.ClearField("device")
    cleaned.attr.pop("_class", None)
    if node.op not in PLACEHOLDERS and node.op not in PLACEHOLDERS_WITH_DEFAULT:
        cleaned.attr.pop("_output_shapes", None)
    if fed_nodes and any(text.startswith("^") and text[1:] in fed_nodes for text in cleaned.input):
        kept = [n for n in cleaned.input if not (n.startswith("^") and n[1:] in fed_nodes)]
        del cleaned.input[:]
        cleaned.input.extend(kept)


def _add_functions(meta: MetaGraphFile, graph_def: GraphDef) -> None:
    """Adds the library functions that the nodes of `graph_def` call, and those they call."""
    library = {
        function.signature.name: function for function in meta.proto.graph_def.library.function
    }
    added = set[str]()
    waiting = [name for node in graph_def.node for name in called(node, library)]
    while waiting:
        name = waiting.pop()
        if name in added:
            continue
        added.add(name)
        waiting += [n for node in library[name].node_def for n in called(node, library)]
        copy = graph_def.library.function.add()
        copy.CopyFrom(library[name])
        del copy.node_def[:]
        for node in library[name].node_def:
            _copy_cleaned(node, copy.node_def.add())
