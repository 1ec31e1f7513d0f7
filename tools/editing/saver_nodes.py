"""Nodes of a saver: new ones under its scope, the old ones taken out."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.loading.graph_view import data_inputs
from checkpoints.loading.meta_graph_file import node_of
from tools.common.errors import ToolError

# What stands between what saves or restores and its file's name, or what says that it is done.
_PLUMBING = frozenset(
    {
        "Const",
        "Identity",
        "MergeV2Checkpoints",
        "NoOp",
        "Pack",
        "ShardedFilename",
        "ShardedFilespec",
        "StringJoin",
    }
)


class Scope:
    """Adds nodes under one scope of a graph, under names that are free."""

    def __init__(self, proto: MetaGraphDef, scope: str) -> None:
        self._graph_def = proto.graph_def
        self._scope = f"{scope}/" if scope else ""
        self._taken = {node.name for node in proto.graph_def.node}

    def free(self, name: str) -> str:
        """A name of the scope that no node has."""
        full = self._scope + name
        while full in self._taken:
            full += "_"
        return full

    def add(self, name: str, op: str, inputs: Sequence[str]) -> NodeDef:
        """Adds a node of a `free` name; its attributes are left to the caller."""
        self._taken.add(name)
        return self._graph_def.node.add(name=name, op=op, input=inputs)

    def texts(self, name: str, values: Sequence[str]) -> str:
        """Adds a constant of texts and returns its name."""
        node = self.add(self.free(name), "Const", [])
        node.attr["dtype"].type = tf.string.as_datatype_enum
        tensor = tf.make_tensor_proto([value.encode() for value in values], tf.string)
        node.attr["value"].tensor.CopyFrom(tensor)
        return str(node.name)

    def cast(self, name: str, tensor: str, old: int, new: int) -> str:
        """The tensor in another dtype; itself where it has that."""
        if old == new:
            return tensor
        node = self.add(self.free(name), "Cast", [tensor])
        node.attr["SrcT"].type, node.attr["DstT"].type = old, new
        return str(node.name)


def rewire(nodes: Iterable[NodeDef], tensors: Mapping[str, str], gone: Collection[str]) -> None:
    """Puts new tensors in place of old ones in the inputs of some nodes.

    Args:
      nodes: are changed.
      tensors: old -> new, as they stand in an input: `name`, or `name:1`.
      gone: nodes that are no longer there, or others by now.

    Raises:
      ToolError: one takes another tensor of theirs.
    """
    for node in nodes:
        old = [text.removesuffix(":0") for text in node.input]
        lost = next((text for text in old if node_of(text) in gone and text not in tensors), None)
        if lost is not None:
            raise ToolError(f"{node.name} takes {lost} of the saver, which has to go")
        if not tensors.keys().isdisjoint(old):
            node.input[:] = [tensors.get(text, text) for text in old]


def drop_nodes(proto: MetaGraphDef, gone: Collection[str]) -> None:
    """Takes nodes out of the graph, and out of what others wait for."""
    nodes = proto.graph_def.node
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if node.name in gone:
            del nodes[index]
        elif any(text.startswith("^") and text[1:] in gone for text in node.input):
            node.input[:] = [t for t in node.input if not (t.startswith("^") and t[1:] in gone)]


def drop_saver(
    proto: MetaGraphDef,
    old: Collection[str],
    saving: Collection[str],
    restoring: Collection[str],
    kept: Collection[str],
) -> None:
    """Takes out an old saver, but for what gives or takes the tensors that are kept.

    Args:
      proto: is changed.
      old: the operations that save and restore.
      saving: the nodes that saving stands on.
      restoring: likewise.
      kept: tensors that are still saved or restored, as they stand in an input; the latter are
        left there, for `rewire`.
    """
    nodes = {node.name: node for node in proto.graph_def.node}
    gone, size = set(old), 0
    while len(gone) > size:
        size = len(gone)
        gone |= {n for n in saving if _is_plumbing(nodes, n) and _stands_on(nodes[n], gone)}
        gone |= {n for n in restoring if n in nodes and _takes_gone(nodes[n], gone, old, kept)}
    given = {node_of(text) for text in (proto.saver_def.filename_tensor_name, *kept)}
    drop_nodes(proto, gone | _only_for(nodes, gone, {*saving, *restoring} - given))


def _is_plumbing(nodes: Mapping[str, NodeDef], name: str) -> bool:
    return name in nodes and nodes[name].op in _PLUMBING


def _stands_on(node: NodeDef, gone: Collection[str]) -> bool:
    return any(node_of(text.removeprefix("^")) in gone for text in node.input)


def _takes_gone(
    node: NodeDef, gone: Collection[str], old: Collection[str], kept: Collection[str]
) -> bool:
    """Whether a node takes a restored tensor that is not kept, or what has gone with one."""
    return any(
        node_of(text) in gone and not (node_of(text) in old and text.removesuffix(":0") in kept)
        for text in data_inputs(node)
    )


def _only_for(
    nodes: Mapping[str, NodeDef], gone: Collection[str], candidates: Collection[str]
) -> set[str]:
    """The plumbing that only nodes which are gone have taken, such as their constants."""
    takers: dict[str, set[str]] = {}
    for node in nodes.values():
        for text in node.input:
            takers.setdefault(node_of(text.removeprefix("^")), set()).add(node.name)
    left = {name for name in candidates if name in takers and _is_plumbing(nodes, name)}
    found, size = set[str](), -1
    while len(found) > size:
        size = len(found)
        found |= {name for name in left if all(t in gone or t in found for t in takers[name])}
    return found
