"""A meta graph as data: a `.meta` file is parsed and looked into, nothing of it is run.

Here are its tensors, its collections of variables, and its signatures: of a SavedModel, or of a
session bundle, which TensorFlow exported to be served before the SavedModel.

Formats: `tensorflow/core/protobuf/meta_graph.proto`, `tensorflow/core/framework/variable.proto`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, MetaGraphDef

from checkpoints.file_io import read_bounded
from checkpoints.naming import META_SUFFIX, SIGNATURE
from errors import CheckpointError, first_few, nearest_names
from metagraph.parsing import DEFAULT_MAX_BYTES, MAX_META_FLAG, parse_message, what_it_is


class TensorInfo(NamedTuple):
    """What is known of a tensor such as `x:0` before anything runs; it has no reference type.

    A dimension that is not known is None, and so is the shape where its rank is not known.
    """

    name: str
    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        """As in an error line: `x:0 float32 [?, 32, 32, 3]`."""
        return f"{self.name} {self.dtype.name} {format_shape(self.shape)}"


def format_shape(shape: Sequence[int | None] | tf.TensorShape | None) -> str:
    """`[?, 32, 32, 3]`; `of any shape` where the rank is not known."""
    if isinstance(shape, tf.TensorShape):
        shape = None if shape.rank is None else shape.as_list()
    if shape is None:
        return "of any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2"})
PLACEHOLDERS_WITH_DEFAULT = frozenset({"PlaceholderWithDefault"})
_NODE_NAME = re.compile(r"[^:^\s]+")
_TENSOR_NAME = re.compile(r"[^:^]+:[0-9]{1,9}")
_NO_HINT = "predict.py --list shows its inputs and outputs"
_SUFFIX_OF_ANOTHER_FILE = re.compile(r"\.(index|manifest|data-\d{5}-of-\d{5})$")


@dataclass(frozen=True)
class MetaGraphFile:
    """A parsed meta graph, which is not to be changed, and where its variables are.

    Attributes:
      path: the file that holds the graph, such as a `.meta`.
      prefix: of the checkpoint that belongs to it: of a `.meta`, its path without that.
    """

    path: str
    prefix: str
    proto: MetaGraphDef

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
        if key not in self.proto.collection_def:
            return CollectionDef()
        return self.proto.collection_def[key]

    def find_tensor(self, text: str) -> str | None:
        """The full name of a tensor of this graph, None where there is no such node.

        `op/name` means `op/name:0`.
        """
        name = text if ":" in text else f"{text}:0"
        known = _TENSOR_NAME.fullmatch(name) and node_of(name) in self.nodes
        return name if known else None

    def tensor_name(self, text: str, keys: Mapping[str, str] = MappingProxyType({})) -> str:
        """As `find_tensor`; tensors may have other names too, such as the keys of a signature.

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
    prefix = path.removesuffix(META_SUFFIX)
    if prefix == path:
        stem = _SUFFIX_OF_ANOTHER_FILE.sub("", path)
        raise CheckpointError(f"{path} is no .meta file; expected one such as {stem}{META_SUFFIX}")
    content = read_bounded(path, max_bytes, MAX_META_FLAG)
    proto = parse_message(MetaGraphDef(), content, path)
    if not proto.graph_def.node:
        raise CheckpointError(f"{path} is no meta graph: {what_it_is(content)}")
    return MetaGraphFile(path, prefix, proto)


def variable_definitions(meta: MetaGraphFile, collection: str) -> Iterator[tuple[str, VariableDef]]:
    """The node and the definition of each variable of a collection; of another one, nothing.

    Anything may be in a collection: what is no definition, or of no node of the graph, is left out.
    """
    for content in meta.collection(collection).bytes_list.value:
        try:
            found = VariableDef.FromString(content)
        except DecodeError:
            continue
        name = node_of(found.variable_name)
        if name in meta.nodes:
            yield name, found


# The signatures of a session bundle: a checkpoint whose meta graph has a message that TensorFlow no
# longer has a class for, so that its few fields are declared here.
#
# Format: `tensorflow/contrib/session_bundle/manifest.proto` of TensorFlow 1.

COLLECTION = "serving_signatures"
_PACKAGE = "tensorflow.serving"
_MAX_BYTES = 1 << 20  # Some hundred are usual; what is small takes little memory once parsed.
# The fields of each message, numbered from 1: texts, or messages; those with a star are repeated.
# On the wire, a map is a repeated message of a key and a value.
_MESSAGES: Mapping[str, Sequence[str]] = {
    "TensorBinding": ["tensor_name"],
    "RegressionSignature": ["input TensorBinding", "output TensorBinding"],
    "ClassificationSignature": [f"{name} TensorBinding" for name in ("input", "classes", "scores")],
    "Binding": ["key", "value TensorBinding"],
    "GenericSignature": ["map Binding*"],
    "Signature": [
        "regression_signature RegressionSignature",
        "classification_signature ClassificationSignature",
        "generic_signature GenericSignature",
    ],
    "NamedSignature": ["key", "value Signature"],
    "Signatures": ["default_signature Signature", "named_signatures NamedSignature*"],
}
# The tensors of a kind of signature, under the keys that TensorFlow gives them when it turns a
# bundle into a SavedModel. A classifier may have classes or scores only.
_INPUTS = {"inputs": "input"}
_KINDS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "regression_signature": (_INPUTS, {"outputs": "output"}),
    "classification_signature": (_INPUTS, {"classes": "classes", "scores": "scores"}),
}
_NAMED = "named"  # The pair of generic signatures that most bundles have, `inputs` and `outputs`.


class Signature(NamedTuple):
    """One signature; keys are sorted, as protobuf maps have no order of their own.

    Attributes:
      name: of the signature; empty for the one of a file that has none.
      inputs: argument name -> full tensor name.
      outputs: result name -> full tensor name.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


NO_SIGNATURE = Signature("", {}, {})


def bundle_signatures(meta: MetaGraphFile) -> dict[str, Signature]:
    """The signatures of a session bundle by name, none where the file is none.

    The default one is `serving_default`. A generic signature does not say which of its tensors are
    inputs: each is both, but for the pair `inputs` and `outputs`, which is one here.
    """
    found: dict[str, Signature] = {}
    for content in meta.collection(COLLECTION).any_list.value:
        message = signatures_message()
        try:
            if len(content.value) > _MAX_BYTES:
                raise DecodeError
            message.ParseFromString(content.value)
        except DecodeError:
            logging.warning("%s: its collection %s is damaged and left out", meta.path, COLLECTION)
            continue
        named = {
            entry.key: _signature(entry.key, entry.value) for entry in message.named_signatures
        }
        generic = {e.key for e in message.named_signatures if e.value.HasField("generic_signature")}
        if {"inputs", "outputs"} <= generic:
            pair = named.pop("inputs").inputs, named.pop("outputs").outputs
            named[_NAMED] = named.get(_NAMED) or Signature(_NAMED, *pair)
        if message.HasField("default_signature"):
            named[SIGNATURE] = _signature(SIGNATURE, message.default_signature)
        found |= {name: one for name, one in named.items() if one.inputs or one.outputs}
    return found


def _signature(name: str, message: Any) -> Signature:
    """Whichever of the three kinds of signature it is."""
    for kind, parts in _KINDS.items():
        if message.HasField(kind):
            one = getattr(message, kind)
            bound = (
                {key: getattr(one, field).tensor_name for key, field in p.items()} for p in parts
            )
            return Signature(name, *({k: text for k, text in p.items() if text} for p in bound))
    generic = {entry.key: entry.value.tensor_name for entry in message.generic_signature.map}
    return Signature(name, generic, generic)


def signatures_message() -> Any:
    """An empty message `Signatures`, of a pool of its own: a newer TensorFlow may have one too."""
    file = FileDescriptorProto(name="manifest.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields, 1):
            field_name, _, kind = field.partition(" ")
            label = "LABEL_REPEATED" if kind.endswith("*") else "LABEL_OPTIONAL"
            added = message.field.add(name=field_name, number=number)
            added.label = FieldDescriptorProto.Label.Value(label)
            added.type = FieldDescriptorProto.TYPE_STRING
            if kind:
                added.type = FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{kind.rstrip('*')}"
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Signatures"))()


_OF_LOADERS = "__saved_model_"  # `__saved_model_init_op` and so on name no tensors to predict with.
_MAX_NAMED = 10


def read_signatures(meta: MetaGraphFile) -> dict[str, Signature]:
    """All of them by name, sorted; what names no tensor of the graph is left out of them."""
    found = bundle_signatures(meta)
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
    """The one of the file's signatures to use: as asked for, or `serving_default`, or the only one.

    Where none is asked for and there is no such one, it is NO_SIGNATURE.

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
