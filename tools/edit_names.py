"""Gives the nodes of a meta graph new names, wherever they are named: also in its collections.

What names nodes that the graph no longer has is taken out.
"""

from collections.abc import Callable, Collection, Container, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError, Message
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.control_flow_pb2 import CondContextDef, WhileContextDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, CollectionDef, MetaGraphDef
from tensorflow.core.protobuf.queue_runner_pb2 import QueueRunnerDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from metagraph.graph import View, called, data_inputs, source
from metagraph.meta import COLLECTION as BUNDLE_SIGNATURES
from metagraph.meta import node_of, signatures_message
from metagraph.variables import RESTORE_OPS, VARIABLE_OPS

# What the collections of a meta graph hold that names nodes, as messages and back.
#
# Formats: `tensorflow/core/protobuf/{control_flow,queue_runner,saver}.proto`,
# `tensorflow/core/framework/variable.proto`.

# From the name of a field and its text to what stands in its place.
Replace: TypeAlias = Callable[[str, str], str]
_MESSAGES: Mapping[str, Callable[[], Message]] = {
    "cond_context": CondContextDef,
    "queue_runners": QueueRunnerDef,
    "saved_model_assets": AssetFileDef,
    "savers": SaverDef,
    "while_context": WhileContextDef,
    BUNDLE_SIGNATURES: signatures_message,
}


def message_of(key: str, content: bytes, nodes: Container[str]) -> Any | None:
    """The message that an entry of a collection is; None where it is nothing that names nodes.

    Args:
      key: of the collection. Variables may be in any.
      content: of the entry.
      nodes: the names of the graph's nodes.
    """
    message = _MESSAGES.get(key, VariableDef)()
    try:
        message.ParseFromString(content)
    except DecodeError:
        return None
    if isinstance(message, VariableDef) and node_of(message.variable_name) not in nodes:
        return None
    return message


def replace_in_collection(
    key: str, collection: CollectionDef, replace: Replace, nodes: Container[str]
) -> None:
    """Puts new texts in place of those of a collection that may be names.

    Args:
      key: of the collection.
      collection: its entries, which are changed.
      replace: is given `""` as the field of what stands by itself.
      nodes: as of `message_of`.
    """
    kind = collection.WhichOneof("kind")
    if kind == "node_list":
        listed = collection.node_list.value
        listed[:] = [replace("", text) for text in listed]
    elif kind == "bytes_list":
        entries = collection.bytes_list.value
        entries[:] = [_replaced(key, content, replace, nodes) for content in entries]
    elif kind == "any_list":
        for entry in collection.any_list.value:
            entry.value = _replaced(key, entry.value, replace, nodes)


def _replaced(key: str, content: bytes, replace: Replace, nodes: Container[str]) -> bytes:
    """An entry with new texts; the very same bytes where it has none."""
    message = message_of(key, content, nodes)
    if message is None or not replace_in_message(message, replace):
        return content
    written: bytes = message.SerializeToString(deterministic=True)
    return written


def texts_of(message: Any) -> Iterator[tuple[str, str]]:
    """The field and the text of each text in a message."""
    found: list[tuple[str, str]] = []

    def note(field: str, text: str) -> str:
        found.append((field, text))
        return text

    replace_in_message(message, note)
    yield from found


def replace_in_message(message: Any, replace: Replace) -> bool:
    """Puts new texts in place of all in a message, those of messages in it included.

    Returns:
      Whether one is another than before.
    """
    changed = False
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            if field.message_type.GetOptions().map_entry:
                changed |= _replace_in_map(field.message_type, value, field.name, replace)
                continue
            for part in value if _is_repeated(value) else [value]:
                changed |= replace_in_message(part, replace)
        elif field.type == field.TYPE_STRING:
            changed |= _replace_texts(message, field.name, value, replace)
    return changed


def _is_repeated(value: Any) -> bool:
    return not isinstance(value, (str, Message))


def _replace_texts(message: Any, field: str, value: Any, replace: Replace) -> bool:
    if _is_repeated(value):
        new = [replace(field, text) for text in value]
        changed = new != list(value)
        value[:] = new
        return changed
    new_text = replace(field, value)
    setattr(message, field, new_text)
    return bool(new_text != value)


def _replace_in_map(kind: Any, value: Any, field: str, replace: Replace) -> bool:
    """A map of texts to texts, such as `ValuesDef.external_values`, whose keys are names too."""
    types = kind.fields_by_name
    if types["value"].type == types["value"].TYPE_MESSAGE:
        changes = [replace_in_message(part, replace) for part in value.values()]
        return any(changes)
    if types["value"].type != types["value"].TYPE_STRING:
        return False
    old = dict(value)
    new = {replace(field, key): replace(field, text) for key, text in old.items()}
    value.clear()
    value.update(new)
    return new != old


# Gives the nodes of a meta graph new names, wherever they are named.
#
# That is in inputs, colocations, collections, signatures, the saver and the assets, and in what the
# operations that save and restore take for the keys of the checkpoint. Functions of the library
# have names of their own inside, which stay.

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


# Takes out of a meta graph what names nodes that it no longer has.


def drop_lost(proto: MetaGraphDef, gone: Collection[str]) -> None:
    """Takes out colocations, entries of collections, results of signatures, assets and functions.

    Signatures without a result are gone as well. What has never named a node stays.

    Args:
      proto: is changed; the nodes themselves are no longer in it.
      gone: their names.
    """
    for node in proto.graph_def.node:
        _drop_colocations(node, gone)
    names = {node.name for node in proto.graph_def.node} | set(gone)
    for key in list(proto.collection_def):
        _drop_entries(key, proto, gone, names)
    for signature in proto.signature_def.values():
        for tensors in (signature.inputs, signature.outputs):
            for key in [k for k, info in tensors.items() if node_of(info.name) in gone]:
                del tensors[key]
    for key in [k for k, signature in proto.signature_def.items() if not signature.outputs]:
        del proto.signature_def[key]
    assets = [a for a in proto.asset_file_def if node_of(a.tensor_info.name) not in gone]
    del proto.asset_file_def[:]
    proto.asset_file_def.extend(assets)
    _drop_functions(proto)


def _drop_colocations(node: NodeDef, gone: Collection[str]) -> None:
    if "_class" not in node.attr:
        return
    places = node.attr["_class"].list.s
    places[:] = [
        place
        for place in places
        if place.decode("utf-8", "replace").removeprefix(_COLOCATED) not in gone
    ]
    if not places:
        del node.attr["_class"]


def _drop_entries(
    key: str, proto: MetaGraphDef, gone: Collection[str], names: Collection[str]
) -> None:
    """Those of one collection, and the collection where nothing is left of it."""
    collection = proto.collection_def[key]
    kind = collection.WhichOneof("kind")
    if kind == "node_list":
        entries = collection.node_list.value
        entries[:] = [text for text in entries if _node(text) not in gone]
    elif kind == "bytes_list":
        entries = collection.bytes_list.value
        entries[:] = [content for content in entries if not _names_lost(key, content, gone, names)]
    else:
        return
    if not entries:
        del proto.collection_def[key]


def _names_lost(key: str, content: bytes, gone: Collection[str], names: Collection[str]) -> bool:
    """Whether an entry names a node that is gone: a variable, a context, a queue's runner."""
    message = message_of(key, content, names)
    return message is not None and any(_node(text) in gone for _, text in texts_of(message))


def _node(text: str) -> str:
    return node_of(text.removeprefix("^"))


def _drop_functions(proto: MetaGraphDef) -> None:
    """The functions of the library that nothing calls any more, and their gradients."""
    library = {f.signature.name: f for f in proto.graph_def.library.function}
    gradients = {g.function_name: g.gradient_func for g in proto.graph_def.library.gradient}
    kept = set[str]()
    waiting = [name for node in proto.graph_def.node for name in called(node, library)]
    while waiting:
        name = waiting.pop()
        if name in kept or name not in library:
            continue
        kept.add(name)
        waiting += [n for node in library[name].node_def for n in called(node, library)]
        waiting += [gradients[name]] if name in gradients else []
    for name in library.keys() - kept:
        proto.graph_def.library.function.remove(library[name])
    for gradient in [g for g in proto.graph_def.library.gradient if g.function_name not in kept]:
        proto.graph_def.library.gradient.remove(gradient)
