"""A meta graph as data: a `.meta` file is parsed and looked into, nothing of it is run.

Here are its tensors, its collections of variables, and its signatures: of a SavedModel, or of a
session bundle, which TensorFlow exported to be served before the SavedModel.
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
from checkpoints.manifest import SIGNATURE
from checkpoints.naming import META_SUFFIX
from errors import CheckpointError, first_few, nearest_names
from metagraph.parsing import DEFAULT_MAX_BYTES, MAX_META_FLAG, parse_message, what_it_is


class TensorInfo(NamedTuple):
    """What is known of a tensor before anything runs.

    Attributes:
      name: in full, such as `x:0`.
      dtype: a tf.DType, never a reference type.
      shape: None for each dimension that is not known; None where the rank is not known.
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


# A meta graph as data: a `.meta` file is parsed and looked into, nothing of it is run.
#
# Format: `tensorflow/core/protobuf/meta_graph.proto`.

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2"})
PLACEHOLDERS_WITH_DEFAULT = frozenset({"PlaceholderWithDefault"})
_NODE_NAME = re.compile(r"[^:^\s]+")
_TENSOR_NAME = re.compile(r"[^:^]+:[0-9]{1,9}")
_SUFFIX_OF_ANOTHER_FILE = re.compile(r"\.(index|manifest|data-\d{5}-of-\d{5})$")


@dataclass(frozen=True)
class MetaGraphFile:
    """A parsed meta graph, and where its variables are.

    Attributes:
      path: the file that holds the graph, such as a `.meta`.
      prefix: of the checkpoint that belongs to it: of a `.meta`, its path without that.
      proto: the MetaGraphDef; not to be changed.
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
        """As `find_tensor`.

        Args:
          text: a tensor, or one of `keys`; what is both is the tensor.
          keys: other names of some tensors, such as those of a signature.

        Raises:
          CheckpointError: there is no such node; the message offers the nearest names.
        """
        name = self.find_tensor(text) or keys.get(text)
        if name is None:
            raise CheckpointError(f"{self.path} has no tensor {text!r}; {self._hint(text, keys)}")
        return name

    def _hint(self, text: str, keys: Mapping[str, str]) -> str:
        own = [key for key in keys if key not in self.nodes]
        near = nearest_names(text, [*own, *(f"{name}:0" for name in self.nodes)])
        if not near:
            return "predict.py --list shows its inputs and outputs"
        return "the nearest are " + ", ".join(near)


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


# What the collections of a meta graph tell of its variables.
#
# Format: `tensorflow/core/framework/variable.proto`.


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


# The signatures of a session bundle, what TensorFlow exported to be served before the SavedModel.
#
# A bundle is a checkpoint whose meta graph has `tensorflow.serving.Signatures` in the collection
# `serving_signatures`. TensorFlow no longer has a class for that message, so that its few fields
# are declared here.
#
# Format: `tensorflow/contrib/session_bundle/manifest.proto` of TensorFlow 1.

NAMED = "named"
COLLECTION = "serving_signatures"
_PACKAGE = "tensorflow.serving"
_INPUTS, _OUTPUTS = "inputs", "outputs"
_MAX_BYTES = 1 << 20  # Some hundred are usual; what is small takes little memory once parsed.
# The fields of each message by number; of another type than a text where that is named.
_MESSAGES: Mapping[str, Mapping[int, tuple[str, str | None]]] = {
    "TensorBinding": {1: ("tensor_name", None)},
    "RegressionSignature": {1: ("input", "TensorBinding"), 2: ("output", "TensorBinding")},
    "ClassificationSignature": {
        1: ("input", "TensorBinding"),
        2: ("classes", "TensorBinding"),
        3: ("scores", "TensorBinding"),
    },
    # On the wire, a map is a repeated message of a key and a value.
    "Binding": {1: ("key", None), 2: ("value", "TensorBinding")},
    "GenericSignature": {1: ("map", "Binding")},
    "Signature": {
        1: ("regression_signature", "RegressionSignature"),
        2: ("classification_signature", "ClassificationSignature"),
        3: ("generic_signature", "GenericSignature"),
    },
    "NamedSignature": {1: ("key", None), 2: ("value", "Signature")},
    "Signatures": {
        1: ("default_signature", "Signature"),
        2: ("named_signatures", "NamedSignature"),
    },
}
_REPEATED = ("map", "named_signatures")


class Bindings(NamedTuple):
    """The tensors of a signature, as the file names them.

    Attributes:
      inputs: argument name -> tensor.
      outputs: result name -> tensor.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def bundle_signatures(meta: MetaGraphFile, default: str) -> dict[str, Bindings]:
    """The signatures of a session bundle by name, none where the file is none.

    Results have the keys that TensorFlow gives them when it turns a bundle into a SavedModel:
    `inputs`, and `outputs` or `classes` and `scores`. The two generic signatures `inputs` and
    `outputs` that most bundles have are one here, `named`. Another generic signature does not say
    which of its tensors are inputs: each is both.

    Args:
      meta: the file.
      default: what the bundle's default signature is called.
    """
    signatures: dict[str, Bindings] = {}
    for content in meta.collection(COLLECTION).any_list.value:
        parsed = _parse(content.value, meta.path)
        if parsed is not None:
            signatures |= _signatures(parsed, default)
    return signatures


def _parse(content: bytes, path: str) -> Any | None:
    """A message `Signatures`; None, and a warning, where it is damaged or absurdly large."""
    message = signatures_message()
    if len(content) <= _MAX_BYTES:
        try:
            message.ParseFromString(content)
            return message
        except DecodeError:
            pass
    logging.warning("%s: its collection %s is damaged and left out", path, COLLECTION)
    return None


def signatures_message() -> Any:
    """An empty message `Signatures`."""
    return GetMessageClass(_descriptor())()


def _descriptor() -> Any:
    """Of the message `Signatures`, in a pool of its own: a newer TensorFlow may have one too."""
    file = FileDescriptorProto(name="manifest.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in fields.items():
            repeated = field in _REPEATED
            label = "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"
            added = message.field.add(name=field, number=number)
            added.label = FieldDescriptorProto.Label.Value(label)
            if kind is None:
                added.type = FieldDescriptorProto.TYPE_STRING
            else:
                added.type = FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{kind}"
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindMessageTypeByName(f"{_PACKAGE}.Signatures")


def _signatures(message: Any, default: str) -> dict[str, Bindings]:
    named = {entry.key: entry.value for entry in message.named_signatures}
    found = {}
    if _is_pair(named):
        inputs, outputs = named.pop(_INPUTS), named.pop(_OUTPUTS)
        found[NAMED] = Bindings(_generic(inputs), _generic(outputs))
    found |= {key: _bindings(signature) for key, signature in named.items()}
    if message.HasField("default_signature"):
        found[default] = _bindings(message.default_signature)
    return {key: bindings for key, bindings in found.items() if bindings.inputs or bindings.outputs}


def _is_pair(named: Mapping[str, Any]) -> bool:
    return all(
        key in named and named[key].HasField("generic_signature") for key in (_INPUTS, _OUTPUTS)
    )


def _bindings(signature: Any) -> Bindings:
    """Whichever of the three kinds of signature it is."""
    if signature.HasField("regression_signature"):
        regression = signature.regression_signature
        return Bindings(
            dict(_bound(regression, {_INPUTS: "input"})),
            dict(_bound(regression, {_OUTPUTS: "output"})),
        )
    if signature.HasField("classification_signature"):
        classification = signature.classification_signature
        return Bindings(
            dict(_bound(classification, {_INPUTS: "input"})),
            dict(_bound(classification, {"classes": "classes", "scores": "scores"})),
        )
    return Bindings(_generic(signature), _generic(signature))


def _bound(signature: Any, fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Key and tensor of those fields that are set; a classifier may have classes or scores only."""
    for key, field in fields.items():
        name = getattr(signature, field).tensor_name
        if name:
            yield key, name


def _generic(signature: Any) -> dict[str, str]:
    return {entry.key: entry.value.tensor_name for entry in signature.generic_signature.map}


# The signatures of a graph: named inputs and outputs, of a SavedModel or of a session bundle.

_OF_LOADERS = "__saved_model_"  # `__saved_model_init_op` and so on name no tensors to predict with.
_MAX_NAMED = 10


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


def read_signatures(meta: MetaGraphFile) -> dict[str, Signature]:
    """All of them by name, sorted; what names no tensor of the graph is left out of them."""
    found = dict(bundle_signatures(meta, SIGNATURE))
    named = {
        name: Signature(name, _tensors(meta, bindings.inputs), _tensors(meta, bindings.outputs))
        for name, bindings in found.items()
    }
    for name, proto in meta.proto.signature_def.items():
        inputs = {key: info.name for key, info in proto.inputs.items()}
        outputs = {key: info.name for key, info in proto.outputs.items()}
        if not name.startswith(_OF_LOADERS):
            named[name] = Signature(name, _tensors(meta, inputs), _tensors(meta, outputs))
    return dict(sorted(named.items()))


def _tensors(meta: MetaGraphFile, names: Mapping[str, str]) -> dict[str, str]:
    found = {key: meta.find_tensor(name) for key, name in sorted(names.items())}
    return {key: name for key, name in found.items() if name is not None}


def choose_signature(
    meta: MetaGraphFile, signatures: Mapping[str, Signature], asked: str | None
) -> Signature:
    """The signature to use: the one asked for, or `serving_default`, or the only one.

    Where none is asked for and there is no such one, it is NO_SIGNATURE.

    Args:
      meta: the file.
      signatures: its own.
      asked: a name, None for none.

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
