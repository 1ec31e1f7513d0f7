"""From the bytes of a stranger's file to a meta graph, in bounded time and memory.

A `.pb` or `.pbtxt` file may hold a frozen graph, a SavedModel or a meta graph. A frozen graph may
bring along a description of its model.
"""

import os
import re
from collections.abc import Callable
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError, EncodeError, Message
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_STRING
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpoints.file_io import HEAD_BYTES, kind_of
from errors import CheckpointError

DEFAULT_MAX_BYTES = 512 << 20
MAX_META_FLAG = "--max_meta_mb"
MAX_TEXT_BYTES = 32 << 20  # The parser of texts is slow: some 2 MiB a second.
# A binary message has control characters, such as the tag \x12 of what a second field holds.
_TEXT = re.compile(rb"(?=[\t\n\r\x20-\x7e\x80-\xff]*\Z)(\s|#[^\n]*\n)*[a-z_]+\s*[:{<]")
_NAMES = {"MetaGraphDef": "meta graph", "GraphDef": "graph"}
M = TypeVar("M", bound=Message)


def parse_message(message: M, content: bytes, path: str) -> M:
    """Fills an empty `message` from its binary or its text format, to the binary parser's limits.

    Raises:
      CheckpointError: it is no such message.
    """
    if not content or kind_of(content[:HEAD_BYTES]) is not None:
        raise _not_a_model(message, content, path)
    if _TEXT.match(content[:HEAD_BYTES]):
        content = _binary(message, content, path)
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        why = ""  # The parser's own reason, where it tells more than that the bytes make no sense.
        if "UTF-8" in str(error):
            why = ": a name in it is no UTF-8"
        elif "epth" in str(error) or "Exceeded" in str(error):
            why = ": it is nested more than 100 deep"
        raise _not_a_model(message, content, path, why) from error
    return message


def what_it_is(content: bytes) -> str:
    """What was found in place of a model, for the end of an error line."""
    kind = kind_of(content[:HEAD_BYTES])
    return f"it is {kind}" if kind else f"its {len(content)} bytes hold no graph"


def _not_a_model(message: Message, content: bytes, path: str, why: str = "") -> CheckpointError:
    name = _NAMES.get(message.DESCRIPTOR.name, message.DESCRIPTOR.name)
    return CheckpointError(f"{path} is no {name}: {what_it_is(content)}{why}")


def _binary(message: Message, content: bytes, path: str) -> bytes:
    """A text in the binary format."""
    if len(content) > MAX_TEXT_BYTES:
        raise CheckpointError(
            f"{path} is refused: a text of {len(content)} bytes, more than {MAX_TEXT_BYTES}; "
            "convert it to the binary format"
        )
    try:
        parsed: Message = text_format.Parse(content.decode(), type(message)())
        return bytes(parsed.SerializeToString())
    except RecursionError as error:
        raise _not_a_model(message, content, path, ": it is nested too deep") from error
    except (text_format.ParseError, EncodeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise _not_a_model(message, content, path, f": {reason}") from error


# What a meta graph says of its model, kept in a bare graph.
#
# A `GraphDef` has no place for signatures and collections. A string constant that nothing takes has
# them as its value, a serialized `MetaGraphDef` without a graph: any client reads the file as a
# graph. Its names are relative to its node's scope, and stay right in a graph that is imported
# under a prefix.

NODE = "model_description"
# Longer where the graph has a node of that name already.
_NODE = re.compile(rf"(?P<scope>(?:.+/)?){NODE}_*")


def add_description(meta: MetaGraphDef, scope: str = "") -> None:
    """Puts the signatures and collections of a meta graph into its graph, in place of its old ones.

    All names of the graph begin with `scope`, such as `imported/`.
    """
    take_description(meta.graph_def)
    relative = _without_graph(meta, lambda name: name.removeprefix(scope))
    content = relative.SerializeToString(deterministic=True)
    taken, name = {node.name for node in meta.graph_def.node}, scope + NODE
    while name in taken:
        name += "_"
    node = meta.graph_def.node.add(name=name, op="Const")
    node.attr["dtype"].type = DT_STRING
    node.attr["value"].tensor.dtype = DT_STRING
    node.attr["value"].tensor.tensor_shape.SetInParent()
    node.attr["value"].tensor.string_val.append(content)


def take_description(graph_def: GraphDef) -> MetaGraphDef:
    """Takes the description out of a graph; it is empty where there is none.

    One in a scope is that of the graph only where all of the graph is in the scope.
    """
    for index, node in enumerate(graph_def.node):
        match = _NODE.fullmatch(node.name) if node.op == "Const" else None
        if match is not None and all(n.name.startswith(match["scope"]) for n in graph_def.node):
            found = _description(node, match["scope"])
            if found is not None:
                del graph_def.node[index]
                return found
    return MetaGraphDef()


def _description(node: NodeDef, scope: str) -> MetaGraphDef | None:
    """What a node says, in the names of its graph; None where it is something else."""
    values = node.attr["value"].tensor.string_val if "value" in node.attr else []
    try:
        found = parse_message(MetaGraphDef(), values[0], NODE) if len(values) == 1 else None
    except CheckpointError:
        return None
    return None if found is None else _without_graph(found, lambda name: scope + name)


def _without_graph(meta: MetaGraphDef, renamed: Callable[[str], str]) -> MetaGraphDef:
    """Signatures and collections alone, with other names of nodes and tensors."""
    found = MetaGraphDef()
    for name, signature in meta.signature_def.items():
        copy = found.signature_def[name]
        copy.CopyFrom(signature)
        for info in (*copy.inputs.values(), *copy.outputs.values()):
            info.name = renamed(info.name)
    for name, collection in meta.collection_def.items():
        found.collection_def[name].CopyFrom(collection)
        if collection.HasField("node_list"):
            names = [renamed(text) for text in collection.node_list.value]
            found.collection_def[name].node_list.value[:] = names
    return found


# Formats: `tensorflow/core/framework/graph.proto`, `tensorflow/core/protobuf/saved_model.proto`.

GRAPH_SUFFIXES = (".pb", ".pbtxt")
SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_SERVE = "serve"


def parse_graph_file(content: bytes, path: str) -> MetaGraphDef | SavedModel:
    """What the file holds, told by its content: any kind may be called `.pb`.

    Of a graph alone, it is a MetaGraphDef with nothing but that graph and its description.

    Raises:
      CheckpointError: it is none of them.
    """
    if os.path.basename(path) in SAVED_MODEL_FILES:
        return parse_message(SavedModel(), content, path)
    bare, whole, saved = MetaGraphDef(), MetaGraphDef(), SavedModel()
    first_error = None
    for message in (bare.graph_def, saved, whole):
        try:
            parse_message(message, content, path)
        except CheckpointError as error:
            first_error = first_error or error
    if _is_graph(bare.graph_def):
        bare.MergeFrom(take_description(bare.graph_def))
        return bare
    if any(_is_graph(meta.graph_def) for meta in saved.meta_graphs):
        return saved
    if _is_graph(whole.graph_def):
        return whole
    raise first_error or CheckpointError(f"{path} is no graph: {what_it_is(content)}")


def _is_graph(graph: GraphDef) -> bool:
    """Whether bytes that could be read as a graph are one: each node has a name and an op."""
    return bool(graph.node) and all(node.name and node.op for node in graph.node)


def serving_graph(saved_model: SavedModel, path: str) -> MetaGraphDef:
    """The meta graph with the tag `serve`, which predicts; any other where it is the only one.

    Raises:
      CheckpointError: there are several, and none is for serving, or not one alone.
    """
    graphs = [graph for graph in saved_model.meta_graphs if graph.graph_def.node]
    for wanted in ({_SERVE}, {_SERVE, "gpu"}):
        for graph in graphs:
            if set(graph.meta_info_def.tags) == wanted:
                return graph
    if len(graphs) == 1:
        return graphs[0]
    tags = "; ".join(",".join(graph.meta_info_def.tags) or "none" for graph in graphs)
    found = f"the tags of its {len(graphs)} graphs are {tags}" if graphs else "it holds no graph"
    raise CheckpointError(f"{path} has no graph with the one tag {_SERVE!r}: {found}")
