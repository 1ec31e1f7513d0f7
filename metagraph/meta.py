"""A meta graph as data: parsed in bounded time and memory, its tensors, variables, signatures.

Formats: `tensorflow/core/protobuf/meta_graph.proto`, `tensorflow/core/framework/variable.proto`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TypeVar

from absl import logging
from google.protobuf import text_format
from google.protobuf.message import DecodeError, EncodeError, Message
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.framework.types_pb2 import DT_STRING
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, MetaGraphDef

from checkpoints.bundle import fields_of, last_of
from checkpoints.layout import META_SUFFIX, SIGNATURE
from errors import CheckpointError, first_few, nearest_names
from file_io import HEAD_BYTES, kind_of, read_bounded
from metagraph.description import NO_SIGNATURE, Signature

DEFAULT_MAX_BYTES = 512 << 20
MAX_META_FLAG = "--max_meta_mb"
MAX_TEXT_BYTES = 32 << 20  # The parser of texts is slow: some 2 MiB a second.
# A binary message has control characters, such as the tag \x12 of what a second field holds.
_TEXT = re.compile(rb"(?=[\t\n\r\x20-\x7e\x80-\xff]*\Z)(\s|#[^\n]*\n)*[a-z_]+\s*[:{<]")
_NAMES = {"MetaGraphDef": "meta graph", "GraphDef": "graph"}
M = TypeVar("M", bound=Message)


def parse_message(message: M, content: bytes, path: str) -> M:
    """Fills an empty `message` from its binary or text format, or raises CheckpointError."""
    name = _NAMES.get(message.DESCRIPTOR.name, message.DESCRIPTOR.name)
    wrong = f"{path} is no {name}: {what_it_is(content)}"
    if not content or kind_of(content[:HEAD_BYTES]) is not None:
        raise CheckpointError(wrong)
    is_text = _TEXT.match(content[:HEAD_BYTES])
    if is_text and len(content) > MAX_TEXT_BYTES:
        raise CheckpointError(
            f"{path} is refused: a text of {len(content)} bytes, more than {MAX_TEXT_BYTES}; "
            "convert it to the binary format"
        )
    try:
        if is_text:  # By way of the binary format, which is not nested as deep as texts can be.
            content = text_format.Parse(content.decode(), type(message)()).SerializeToString()
        message.ParseFromString(content)
    except (DecodeError, EncodeError, text_format.ParseError, ValueError, RecursionError) as error:
        raise CheckpointError(wrong + _why(error)) from error
    return message


def what_it_is(content: bytes) -> str:
    """What was found in place of a model, for the end of an error line."""
    kind = kind_of(content[:HEAD_BYTES])
    return f"it is {kind}" if kind else f"its {len(content)} bytes hold no graph"


def _why(error: Exception) -> str:
    """A parser's own reason, where it tells more than that the bytes make no sense."""
    told = str(error).partition("\n")[0]
    if isinstance(error, RecursionError):
        return ": it is nested too deep"
    if not isinstance(error, DecodeError):
        return f": {told}"
    if "UTF-8" in told:
        return ": a name in it is no UTF-8"
    return ": it is nested more than 100 deep" if "epth" in told or "Exceeded" in told else ""


# Tensors by name, and the file.

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2"})
INPUT_OPS = PLACEHOLDERS | {"PlaceholderWithDefault"}
LOOPS = frozenset({"While", "StatelessWhile", "For", "Enter", "RefEnter"})
_NODE_NAME = re.compile(r"[^:^\s]+")
_TENSOR_NAME = re.compile(r"[^:^]+:[0-9]{1,9}")
_SENDS, _AS = frozenset({"_Send", "_HostSend"}), "tensor_name"
_NO_HINT = "predict.py --list shows its inputs and outputs"


@dataclass(frozen=True)
class MetaGraphFile:
    """A parsed meta graph, which is not to be changed, and where its variables are."""

    path: str  # The file that holds the graph, such as a `.meta`.
    prefix: str  # Of the checkpoint that belongs to it: of a `.meta`, its path without that.
    proto: MetaGraphDef
    others: tuple[str, ...] = ()  # Prefixes of checkpoints that complete that one.
    averaged: bool = False  # Whether a variable has the value of its moving average, if any.
    # What is known of the shapes of tensors beside what the file says, by their full names.
    shapes: Mapping[str, tuple[int | None, ...] | None] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> Mapping[str, NodeDef]:
        """The graph's nodes by name, in the file's order; CheckpointError where a name is wrong."""
        nodes = {node.name: node for node in self.proto.graph_def.node}
        if len(nodes) != len(self.proto.graph_def.node):
            raise CheckpointError(f"{self.path} is damaged: two of its nodes have the same name")
        for name in nodes:
            if not _NODE_NAME.fullmatch(name):
                raise CheckpointError(f"{self.path} is damaged: {name!r} is no name of a node")
        return nodes

    @cached_property
    def taken(self) -> Mapping[str, Sequence[str]]:
        """Node -> the tensors that it takes, as in the file, without those that do not exist."""
        return {
            name: [t for t in node.input if not t.startswith("^") and node_of(t) in self.nodes]
            for name, node in self.nodes.items()
        }

    def givers(self, name: str) -> list[str]:
        """The nodes that a node takes tensors of, once for each."""
        return [node_of(text) for text in self.taken[name]]

    @cached_property
    def takers(self) -> Mapping[str, Sequence[str]]:
        """Node -> who takes an output of it, once for each; loops of old graphs are cycles."""
        found: dict[str, list[str]] = {}
        for name in self.nodes:
            for giver in self.givers(name):
                found.setdefault(giver, []).append(name)
        return found

    def tensors_taken(self, taker: str, name: str) -> set[str]:
        """The full names of those outputs of the node `name` that `taker` takes."""
        taken = (text for text in self.taken[taker] if node_of(text) == name)
        return {f"{name}:{output_index(text)}" for text in taken}

    @cached_property
    def sent(self) -> Mapping[bytes, str]:
        """What one device sends to another, by the name that it is sent under."""
        sends = (node for node in self.nodes.values() if node.op in _SENDS and node.input)
        return {node.attr[_AS].s: node.input[0] for node in sends if _AS in node.attr}

    def collection(self, key: str) -> CollectionDef:
        """A collection; an empty one where the file has none of that name."""
        held = self.proto.collection_def
        return held[key] if key in held else CollectionDef()

    def find_tensor(self, text: str) -> str | None:
        """The full name of a tensor, `op:0` of `op`; None where there is no such node."""
        name = text if ":" in text else f"{text}:0"
        known = _TENSOR_NAME.fullmatch(name) and node_of(name) in self.nodes
        return name if known else None

    def tensor_name(self, text: str, keys: Mapping[str, str] = MappingProxyType({})) -> str:
        """As `find_tensor`, also by `keys` as of a signature; CheckpointError, with near names."""
        name = self.find_tensor(text) or keys.get(text)
        if name is None:
            own = [key for key in keys if key not in self.nodes]
            near = nearest_names(text, [*own, *(f"{name}:0" for name in self.nodes)])
            hint = f"the nearest are {', '.join(near)}" if near else _NO_HINT
            raise CheckpointError(f"{self.path} has no tensor {text!r}; {hint}")
        return name


def node_of(tensor_name: str) -> str:
    """The node that a tensor `name:index` is an output of."""
    return tensor_name.partition(":")[0]


def output_index(text: str) -> int:
    """1 of `a:1`, 0 of `a`; of what is neither, 0."""
    index = text.partition(":")[2]
    return int(index) if index.isdecimal() and len(index) < 10 else 0


def shape_sizes(shape: TensorShapeProto) -> tuple[int | None, ...] | None:
    """Sizes, None where one is not known, and for a shape without a rank."""
    if shape.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)


def read_meta_graph(path: str, max_bytes: int = DEFAULT_MAX_BYTES) -> MetaGraphFile:
    """Reads and parses a `.meta` file, binary or text; CheckpointError where it is none."""
    content = read_bounded(path, max_bytes, MAX_META_FLAG)
    proto = parse_message(MetaGraphDef(), content, path)
    if not proto.graph_def.node:
        raise CheckpointError(f"{path} is no meta graph: {what_it_is(content)}")
    return MetaGraphFile(path, path.removesuffix(META_SUFFIX), proto)


def variable_definitions(meta: MetaGraphFile, collection: str) -> Iterator[tuple[str, VariableDef]]:
    """The node and definition of each variable of a collection; what is neither is left out."""
    for content in meta.collection(collection).bytes_list.value:
        try:
            found = VariableDef.FromString(content)
        except DecodeError:
            continue
        name = node_of(found.variable_name)
        if name in meta.nodes:
            yield name, found


# A session bundle, exported before there was the SavedModel, is a checkpoint whose meta graph has a
# message that TensorFlow has no class for any longer. Its default signature is read, by the numbers
# of fields, under the keys of a SavedModel's: that of a regression, or of a classifier.
# Format: `tensorflow/contrib/session_bundle/manifest.proto` of TensorFlow 1.

BUNDLE = "serving_signatures"
_MAX_BUNDLE_BYTES = 1 << 20  # Some hundred are usual; a small one takes little memory.
_KINDS = {1: ("inputs", "outputs"), 2: ("inputs", "classes", "scores")}


def bundle_signature(meta: MetaGraphFile) -> Signature:
    """The default signature of a session bundle; NO_SIGNATURE where the file has none."""
    for content in meta.collection(BUNDLE).any_list.value:
        try:
            if len(content.value) > _MAX_BUNDLE_BYTES:
                raise DecodeError
            default = fields_of(last_of(fields_of(content.value), 1, b""))
            for kind in default.keys() & _KINDS.keys():
                tensors = fields_of(last_of(default, kind, b""))
                names = {
                    key: last_of(fields_of(last_of(tensors, number, b"")), 1, b"").decode()
                    for number, key in enumerate(_KINDS[kind], 1)
                    if number in tensors
                }
                inputs = {key: names.pop(key) for key in ("inputs",) if key in names}
                return Signature(SIGNATURE, inputs, names)
        except (DecodeError, UnicodeDecodeError, TypeError):
            logging.warning("%s: its collection %s is damaged and left out", meta.path, BUNDLE)
    return NO_SIGNATURE


_OF_LOADERS = "__saved_model_"  # `__saved_model_init_op` and so on name no tensors to predict with.
_MAX_NAMED = 10


def read_signatures(meta: MetaGraphFile) -> dict[str, Signature]:
    """All of them by name, sorted; what names no tensor of the graph is left out of them."""
    bundled = bundle_signature(meta)
    found = {bundled.name: bundled} if bundled.name else {}
    for name, proto in meta.proto.signature_def.items():
        if not name.startswith(_OF_LOADERS):
            inputs = {key: info.name for key, info in proto.inputs.items()}
            found[name] = Signature(
                name, inputs, {k: info.name for k, info in proto.outputs.items()}
            )
    return {
        name: Signature(name, _tensors(meta, one.inputs), _tensors(meta, one.outputs))
        for name, one in sorted(found.items())
    }


def _tensors(meta: MetaGraphFile, names: Mapping[str, str]) -> dict[str, str]:
    found = {key: meta.find_tensor(name) for key, name in sorted(names.items())}
    return {key: name for key, name in found.items() if name is not None}


def choose_signature(
    meta: MetaGraphFile, signatures: Mapping[str, Signature], asked: str | None
) -> Signature:
    """The one asked for; by default `serving_default`, the only one, or NO_SIGNATURE.

    Raises CheckpointError where there is no signature of the name that is asked for.
    """
    if asked is None:
        if SIGNATURE in signatures:
            return signatures[SIGNATURE]
        return next(iter(signatures.values())) if len(signatures) == 1 else NO_SIGNATURE
    if asked in signatures:
        return signatures[asked]
    if not signatures:
        raise CheckpointError(f"{meta.path} has no signature {asked!r}, and no other")
    names = nearest_names(asked, [*signatures]) or [*signatures]
    raise CheckpointError(
        f"{meta.path} has no signature {asked!r}; there is {first_few(names, _MAX_NAMED)}"
    )


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
    """Puts signatures and collections into the graph, all of whose names begin with `scope`."""
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
