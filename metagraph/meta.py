"""A meta graph as data: its tensors, its collections of variables, and its signatures.

Formats: `tensorflow/core/protobuf/meta_graph.proto`, `tensorflow/core/framework/variable.proto`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from absl import logging
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, MetaGraphDef

from checkpoints.file_io import read_bounded
from checkpoints.naming import META_SUFFIX, SIGNATURE
from errors import CheckpointError, first_few, nearest_names
from metagraph.description import NO_SIGNATURE, Signature
from metagraph.parsing import DEFAULT_MAX_BYTES, MAX_META_FLAG, parse_message, what_it_is

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2"})
PLACEHOLDERS_WITH_DEFAULT = frozenset({"PlaceholderWithDefault"})
_NODE_NAME = re.compile(r"[^:^\s]+")
_TENSOR_NAME = re.compile(r"[^:^]+:[0-9]{1,9}")
_NO_HINT = "predict.py --list shows its inputs and outputs"


@dataclass(frozen=True)
class MetaGraphFile:
    """A parsed meta graph, which is not to be changed, and where its variables are.

    Attributes:
      path: the file that holds the graph, such as a `.meta`.
      prefix: of the checkpoint that belongs to it: of a `.meta`, its path without that.
      averaged: whether a variable has the value of its moving average, where there is one.
    """

    path: str
    prefix: str
    proto: MetaGraphDef
    averaged: bool = False

    @cached_property
    def nodes(self) -> Mapping[str, NodeDef]:
        """The graph's nodes by name, in the file's order.

        Raises:
          CheckpointError: two nodes have one name, or one has a name that is none.
        """
        nodes = {node.name: node for node in self.proto.graph_def.node}
        if len(nodes) != len(self.proto.graph_def.node):
            raise CheckpointError(f"{self.path} is damaged: two of its nodes have the same name")
        for name in nodes:
            if not _NODE_NAME.fullmatch(name):
                raise CheckpointError(f"{self.path} is damaged: {name!r} is no name of a node")
        return nodes

    def collection(self, key: str) -> CollectionDef:
        """A collection; an empty one where the file has none of that name."""
        held = self.proto.collection_def
        return held[key] if key in held else CollectionDef()

    def find_tensor(self, text: str) -> str | None:
        """The full name of a tensor of this graph, None where there is no such node.

        `op/name` means `op/name:0`.
        """
        name = text if ":" in text else f"{text}:0"
        known = _TENSOR_NAME.fullmatch(name) and node_of(name) in self.nodes
        return name if known else None

    def tensor_name(self, text: str, keys: Mapping[str, str] = MappingProxyType({})) -> str:
        """As `find_tensor`; `keys` are further names of tensors, such as those of a signature.

        Raises:
          CheckpointError: there is no such node; the message offers the nearest names.
        """
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


def read_meta_graph(path: str, max_bytes: int = DEFAULT_MAX_BYTES) -> MetaGraphFile:
    """Reads and parses a `.meta` file, binary or text.

    Raises:
      CheckpointError: the file is missing, unreadable, larger than `max_bytes` or no meta graph.
    """
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
_MAX_BYTES = 1 << 20  # Some hundred are usual; what is small takes little memory once parsed.
_KINDS = {1: ("inputs", "outputs"), 2: ("inputs", "classes", "scores")}
_BYTES = 2  # The wire type of texts and messages.


def bundle_signature(meta: MetaGraphFile) -> Signature:
    """The default signature of a session bundle; NO_SIGNATURE where the file has none."""
    for content in meta.collection(BUNDLE).any_list.value:
        try:
            if len(content.value) > _MAX_BYTES:
                raise DecodeError
            default = _fields(_fields(content.value).get(1, b""))
            for kind in default.keys() & _KINDS.keys():
                tensors = _fields(default[kind])
                names = {
                    key: _fields(tensors[number]).get(1, b"").decode()
                    for number, key in enumerate(_KINDS[kind], 1)
                    if number in tensors
                }
                inputs = {key: names.pop(key) for key in ("inputs",) if key in names}
                return Signature(SIGNATURE, inputs, names)
        except (DecodeError, UnicodeDecodeError):
            logging.warning("%s: its collection %s is damaged and left out", meta.path, BUNDLE)
    return NO_SIGNATURE


def _fields(message: bytes) -> dict[int, bytes]:
    """The texts and messages that a message holds, by the numbers of their fields."""
    fields = UnknownFieldSet(Empty.FromString(message))
    found = (fields[index] for index in range(len(fields)))
    return {field.field_number: field.data for field in found if field.wire_type == _BYTES}


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

    Raises:
      CheckpointError: there is no signature of the name that is asked for.
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
