"""Gives the nodes of a meta graph new names, wherever they are named.

That is in inputs, colocations, collections, signatures, the saver and the assets, and in what the
operations that save and restore take for the keys of the checkpoint. Functions of the library have
names of their own inside, which stay.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from google.protobuf.message import Message
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.loading.graph_view import View, data_inputs, source
from checkpoints.loading.saver_mapping import RESTORE_OPS
from checkpoints.loading.variable_values import VARIABLE_OPS
from tools.editing.collected import replace_in_collection, replace_in_message

SAVE_OPS = frozenset({"Save", "SaveSlices", "SaveV2"})

_COLOCATED = "loc:@"
# Texts that are no names. A context's own is that of its frame, as its nodes have it.
_NO_NAMES = frozenset({"context_name", "filename", "key", "method_name"})
_FULL_NAME = "full_name"  # Of a partitioned variable: the key that its slices are saved under.


class Names(NamedTuple):
    """New names.

    Attributes:
      nodes: old name -> new name, of all nodes of the graph.
      keys: likewise, of the checkpoint's keys.
    """

    nodes: Mapping[str, str]
    keys: Mapping[str, str]

    def of_node(self, text: str) -> str:
        """`name`, `name:1`, `^name` or `loc:@name` with the node's new name; other texts as is."""
        start = next((mark for mark in (_COLOCATED, "^") if text.startswith(mark)), "")
        name, colon, output = text.removeprefix(start).partition(":")
        return f"{start}{self.nodes[name]}{colon}{output}" if name in self.nodes else text

    def of_text(self, field: str, text: str) -> str:
        """What stands in a field of a message, or by itself in a collection."""
        if field in _NO_NAMES:
            return text
        if field == _FULL_NAME:
            return self.keys.get(text, text)
        new = self.of_node(text)
        return self.keys.get(text, text) if new == text and not field else new


def rename(proto: MetaGraphDef, names: Names) -> None:
    """Changes `proto` so that all of it has the new names."""
    rename_keys(proto.graph_def, names.keys)
    for node in proto.graph_def.node:
        _rename_node(node, names)
    for function in proto.graph_def.library.function:
        own = {node.name for node in function.node_def}
        outer = names._replace(nodes={k: v for k, v in names.nodes.items() if k not in own})
        for node in function.node_def:
            _rename_colocations(node, outer)
    for message in _named_parts(proto):
        replace_in_message(message, names.of_text)
    for key, collection in proto.collection_def.items():
        replace_in_collection(key, collection, names.of_text, names.nodes)


def rename_keys(graph_def: GraphDef, keys: Mapping[str, str]) -> None:
    """Has every operation of the graph that saves or restores use the new keys."""
    view = View({node.name: node for node in graph_def.node})
    constants: dict[str, NodeDef] = {}  # Several operations may share one.
    for node in graph_def.node:
        inputs = data_inputs(node) if node.op in SAVE_OPS | RESTORE_OPS else []
        found = source(view, inputs[1]) if len(inputs) > 1 else None
        if found is not None and found.node.op == "Const":
            constants[found.node.name] = found.node
    for node in constants.values():
        texts = node.attr["value"].tensor.string_val
        texts[:] = [_new_key(text, keys) for text in texts]


def _new_key(text: bytes, keys: Mapping[str, str]) -> bytes:
    new = keys.get(text.decode("utf-8", "replace"))
    return text if new is None else new.encode()


def _named_parts(proto: MetaGraphDef) -> Iterator[Message]:
    """What names nodes, but for the graph and the collections."""
    yield proto.saver_def
    yield from (asset.tensor_info for asset in proto.asset_file_def)
    for signature in proto.signature_def.values():
        yield from signature.inputs.values()
        yield from signature.outputs.values()


def _rename_node(node: NodeDef, names: Names) -> None:
    if node.op in VARIABLE_OPS and "shared_name" in node.attr:
        shared = node.attr["shared_name"]
        shared.s = names.of_text("", shared.s.decode("utf-8", "replace")).encode()
    node.name = names.nodes[node.name]
    node.input[:] = [names.of_node(text) for text in node.input]
    _rename_colocations(node, names)


def _rename_colocations(node: NodeDef, names: Names) -> None:
    if "_class" in node.attr:
        places = node.attr["_class"].list.s
        places[:] = [names.of_node(place.decode("utf-8", "replace")).encode() for place in places]
