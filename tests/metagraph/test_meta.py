"""Signatures, also of a session bundle, collections of variables, and how lines name a tensor."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.description import NO_SIGNATURE, Signature, TensorInfo, format_shape
from metagraph.meta import (
    MetaGraphFile,
    bundle_signature,
    choose_signature,
    read_signatures,
    variable_definitions,
)
from metagraph.opening import open_model
from metagraph.variables import trainable_names
from tests.metagraph.made import of_graph, of_proto, refused, warnings_said

v1 = tf.compat.v1
DEFAULT = "serving_default"


def _meta(*names: str) -> MetaGraphFile:
    """A graph x -> y with signatures of these names, each for both tensors."""
    meta = of_graph(lambda: tf.add(v1.placeholder(tf.float32, [None], name="x"), 1.0, name="y"))
    for name in names:
        signature = meta.proto.signature_def[name]
        signature.inputs["in"].name = "x:0"
        signature.outputs["out"].name = signature.outputs["again"].name = "y:0"
    return meta


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
    with refused(f"^{re.escape(line)}$"):
        _chosen(_meta(*names), asked)


def test_a_saved_models_own_initializer_is_no_signature(tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable(2.0)
    spec = tf.TensorSpec([], tf.float32)
    call = tf.function(lambda x: {"y": x * module.v}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures={"double": call})
    meta = open_model(str(tmp_path))
    assert len(meta.proto.signature_def) == 2
    assert _chosen(meta).name == "double"


# The signature of a session bundle, its message written byte by byte.


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 0x80
    return bytes([number << 3 | 2, len(content)]) + content


def _tensors(*names: str) -> bytes:
    return b"".join(_field(i, _field(1, name.encode())) for i, name in enumerate(names, 1) if name)


REGRESSION = _field(1, _field(1, _tensors("x:0", "y:0")))
REGRESSED = Signature(DEFAULT, {"inputs": "x:0"}, {"outputs": "y:0"})
GENERIC = _field(1, _field(3, _field(1, _field(1, b"k") + _field(2, _tensors("x:0")))))


def _classification(*names: str) -> bytes:
    return _field(1, _field(2, _tensors(*names)))


def _classified(**outputs: str) -> Signature:
    return Signature(DEFAULT, {"inputs": "x:0"}, outputs)


def _bundle(*contents: bytes) -> Signature:
    proto = MetaGraphDef()
    for content in contents:
        proto.collection_def["serving_signatures"].any_list.value.add(
            type_url="type.googleapis.com/tensorflow.serving.Signatures", value=content
        )
    return bundle_signature(of_proto(proto))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return warnings_said(monkeypatch)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ([], NO_SIGNATURE),
        ([b""], NO_SIGNATURE),
        ([_field(1, b"")], NO_SIGNATURE),
        ([REGRESSION], REGRESSED),
        ([b"", _field(9, b"abc") + REGRESSION], REGRESSED),  # Fields that are not known.
        ([_classification("x:0", "c:0", "s:0")], _classified(classes="c:0", scores="s:0")),
        ([_classification("x:0", "", "s:0")], _classified(scores="s:0")),
        ([GENERIC], NO_SIGNATURE),
    ],
    ids=["absent", "empty", "no kind", "regression", "others", "classes", "scores", "generic"],
)
def test_the_default_signature_of_a_bundle(
    contents: list[bytes], expected: Signature, said: list[str]
) -> None:
    assert _bundle(*contents) == expected
    assert said == []


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        REGRESSION[:-1],
        _field(1, _field(1, _tensors("x:0"))).replace(b"x", b"\xff"),
        b"\x0b" * 5000,
        REGRESSION * 120_000,
    ],
    ids=["no field", "cut off", "no UTF-8", "groups in groups", "too large"],
)
def test_damage_of_a_bundle_is_said_and_left_out(content: bytes, said: list[str]) -> None:
    assert _bundle(content, REGRESSION) == REGRESSED
    assert said == ["m.meta: its collection serving_signatures is damaged and left out"]


# What is read of a collection of variables, and what is passed over.


def _variables(proto: MetaGraphDef, collection: str) -> list[str]:
    found = variable_definitions(of_proto(proto), collection)
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
    assert trainable_names(of_proto(proto)) == {"w"}


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
