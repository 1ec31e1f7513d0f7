"""Takes out of a meta graph what names nodes that it no longer has."""

from collections.abc import Collection

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.loading.graph_view import called
from checkpoints.loading.meta_graph_file import node_of
from tools.editing.collected import message_of, texts_of

_COLOCATED = "loc:@"


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
