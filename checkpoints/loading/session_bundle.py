"""The signatures of a session bundle, what TensorFlow exported to be served before the SavedModel.

A bundle is a checkpoint whose meta graph has `tensorflow.serving.Signatures` in the collection
`serving_signatures`. TensorFlow no longer has a class for that message, so that its few fields are
declared here.

Format: `tensorflow/contrib/session_bundle/manifest.proto` of TensorFlow 1.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from absl import logging
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from checkpoints.loading.meta_graph_file import MetaGraphFile

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
