"""Signatures, also of session bundles, collections of variables, and how lines name a tensor."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError
from metagraph.meta import (
    NO_SIGNATURE,
    MetaGraphFile,
    Signature,
    TensorInfo,
    bundle_signatures,
    choose_signature,
    format_shape,
    read_signatures,
    variable_definitions,
)
from metagraph.opening import open_model
from metagraph.variables import trainable_names

v1 = tf.compat.v1
DEFAULT = "serving_default"


def _meta(*names: str) -> MetaGraphFile:
    """A graph x -> y with signatures of these names, each for both tensors."""
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.add(x, 1.0, name="y")
        proto = v1.train.export_meta_graph()
        for name in names:
            definition = v1.saved_model.predict_signature_def({"in": x}, {"out": y, "again": y})
            proto.signature_def[name].CopyFrom(definition)
    return MetaGraphFile("m.meta", "m", proto)


def _chosen(meta: MetaGraphFile, asked: str | None = None) -> Signature:
    return choose_signature(meta, read_signatures(meta), asked)


def test_keys_are_sorted_and_what_names_no_tensor_is_left_out() -> None:
    meta = _meta("a")
    meta.proto.signature_def["a"].outputs["lost"].name = "nowhere:0"
    meta.proto.signature_def["a"].inputs["sparse"].coo_sparse.values_tensor_name = "x:0"
    signature = read_signatures(meta)["a"]
    assert signature.inputs == {"in": "x:0"}
    assert list(signature.outputs.items()) == [("again", "y:0"), ("out", "y:0")]


def test_the_signature_in_use() -> None:
    assert _chosen(_meta("a", DEFAULT, "b")).name == DEFAULT
    assert _chosen(_meta("a", DEFAULT), "a").name == "a"
    assert _chosen(_meta("a")).name == "a"
    assert _chosen(_meta("b", "a")) == NO_SIGNATURE
    assert list(read_signatures(_meta("b", "a"))) == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "asked", "line"),
    [
        (["a", DEFAULT], "A", "m.meta has no signature 'A'; there is a"),
        (["a", DEFAULT], "zzzz", "m.meta has no signature 'zzzz'; there is a, serving_default"),
        ([], "a", "m.meta has no signature 'a', and no other"),
    ],
)
def test_a_signature_that_is_not_there(names: list[str], asked: str, line: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        _chosen(_meta(*names), asked)
    assert str(caught.value) == line


def test_a_saved_models_own_initializer_is_no_signature(tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable(2.0)
    spec = tf.TensorSpec([], tf.float32, name="x")
    call = tf.function(lambda x: {"y": x * module.v}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures={"double": call})
    meta = open_model(str(tmp_path))
    assert len(meta.proto.signature_def) == 2
    assert _chosen(meta).name == "double"


# Signatures of session bundles, their messages written byte by byte.


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 0x80
    return bytes([number << 3 | 2, len(content)]) + content


def _binding(name: str) -> bytes:
    return _field(1, name.encode())


def _generic(**tensors: str) -> bytes:
    entries = (_field(1, k.encode()) + _field(2, _binding(t)) for k, t in tensors.items())
    return _field(3, b"".join(_field(1, entry) for entry in entries))


def _named(name: str, signature: bytes) -> bytes:
    return _field(2, _field(1, name.encode()) + _field(2, signature))


REGRESSION = _field(1, _field(1, _binding("x:0")) + _field(2, _binding("y:0")))
CLASSES = _field(1, _binding("x:0")) + _field(2, _binding("c:0"))
CLASSIFICATION = _field(2, CLASSES + _field(3, _binding("s:0")))
REGRESSED = Signature(DEFAULT, {"inputs": "x:0"}, {"outputs": "y:0"})
CLASSIFIED = {"classes": "c:0", "scores": "s:0"}


def _bundle(*contents: bytes) -> dict[str, Signature]:
    proto = MetaGraphDef()
    for content in contents:
        proto.collection_def["serving_signatures"].any_list.value.add(
            type_url="type.googleapis.com/tensorflow.serving.Signatures", value=content
        )
    return bundle_signatures(MetaGraphFile("m.meta", "m", proto))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


def test_the_default_signature_of_a_bundle() -> None:
    assert _bundle() == {}
    assert _bundle(_field(1, REGRESSION)) == {DEFAULT: REGRESSED}
    found = _bundle(_field(1, CLASSIFICATION))
    assert found == {DEFAULT: Signature(DEFAULT, {"inputs": "x:0"}, CLASSIFIED)}
    assert _bundle(_field(1, _field(2, CLASSES)))[DEFAULT].outputs == {"classes": "c:0"}
    assert _bundle(_field(1, b""), _named("x", b""), b"") == {}


def test_generic_inputs_and_outputs_of_a_bundle_are_one_signature() -> None:
    named = _named("inputs", _generic(a="a:0", b="b:0")) + _named("outputs", _generic(y="y:0"))
    pair = Signature("named", {"a": "a:0", "b": "b:0"}, {"y": "y:0"})
    assert _bundle(named + _field(1, REGRESSION)) == {"named": pair, DEFAULT: REGRESSED}
    found = _bundle(_named("inputs", _generic(a="a:0")) + _named("classify", CLASSIFICATION))
    assert found["inputs"] == Signature("inputs", {"a": "a:0"}, {"a": "a:0"})
    assert found["classify"].outputs == CLASSIFIED
    assert len(found) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        _field(1, REGRESSION)[:-1],
        _field(1, _field(1, _field(1, _field(1, b"\xff\xfe")))),
        b"\x0b" * 5000,
        _field(1, REGRESSION) * 120_000,
    ],
    ids=["no field", "cut off", "no UTF-8", "groups in groups", "too large"],
)
def test_damage_of_a_bundle_is_said_and_left_out(content: bytes, said: list[str]) -> None:
    assert _bundle(content, _field(1, REGRESSION)).keys() == {DEFAULT}
    assert said == ["m.meta: its collection serving_signatures is damaged and left out"]


def test_unknown_fields_of_a_bundle_are_passed_over(said: list[str]) -> None:
    assert _bundle(_field(9, b"abc") + _field(1, REGRESSION + b"\x48\x01")).keys() == {DEFAULT}
    assert said == []


# What is read of a collection of variables, and what is passed over.


def _variables(proto: MetaGraphDef, collection: str) -> list[str]:
    found = variable_definitions(MetaGraphFile("m.meta", "m", proto), collection)
    return [name for name, definition in found if definition.variable_name == f"{name}:0"]


def test_the_variables_of_a_collection() -> None:
    with tf.Graph().as_default() as graph:
        v1.get_variable("w", initializer=1.0, use_resource=False)
        v1.get_variable("step", initializer=1, trainable=False, use_resource=True)
        tf.constant(1.0, name="c")
        v1.add_to_collection("others", "w:0")
        proto = v1.train.export_meta_graph(graph=graph)
    assert _variables(proto, "variables") == ["w", "step"]
    assert _variables(proto, "trainable_variables") == ["w"]
    assert _variables(proto, "others") == _variables(proto, "missing") == []
    entries = proto.collection_def["trainable_variables"].bytes_list.value
    entries.extend([b"\xff", b"", VariableDef(variable_name="gone:0").SerializeToString()])
    entries.append(VariableDef(variable_name="c:0").SerializeToString())
    assert _variables(proto, "trainable_variables") == ["w", "c"]
    assert trainable_names(MetaGraphFile("m.meta", "m", proto)) == {"w"}


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((None, 32, 3), "[?, 32, 3]"),
        ((), "[]"),
        (None, "of any shape"),
        (tf.TensorShape([None, 4]), "[?, 4]"),
        (tf.TensorShape(None), "of any shape"),
    ],
)
def test_shapes_in_lines(shape: Sequence[int | None] | tf.TensorShape | None, shown: str) -> None:
    assert format_shape(shape) == shown
    assert str(TensorInfo("x:0", tf.float32, (None, 3))) == "x:0 float32 [?, 3]"
