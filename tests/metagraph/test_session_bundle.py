"""Signatures of session bundles, their messages written byte by byte."""

import pytest
from absl import logging
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import Bindings, MetaGraphFile, bundle_signatures


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
CLASSIFICATION = _field(
    2, _field(1, _binding("x:0")) + _field(2, _binding("c:0")) + _field(3, _binding("s:0"))
)


def _found(*contents: bytes) -> dict[str, Bindings]:
    proto = MetaGraphDef()
    for content in contents:
        proto.collection_def["serving_signatures"].any_list.value.add(
            type_url="type.googleapis.com/tensorflow.serving.Signatures", value=content
        )
    return bundle_signatures(MetaGraphFile("m.meta", "m", proto), "main")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


def test_a_file_that_is_no_bundle_has_none() -> None:
    assert bundle_signatures(MetaGraphFile("m.meta", "m", MetaGraphDef()), "main") == {}


def test_the_default_signature() -> None:
    assert _found(_field(1, REGRESSION)) == {
        "main": Bindings({"inputs": "x:0"}, {"outputs": "y:0"})
    }
    assert _found(_field(1, CLASSIFICATION)) == {
        "main": Bindings({"inputs": "x:0"}, {"classes": "c:0", "scores": "s:0"})
    }


def test_a_classifier_may_have_no_scores() -> None:
    signature = _field(2, _field(1, _binding("x:0")) + _field(2, _binding("c:0")))
    assert _found(_field(1, signature))["main"].outputs == {"classes": "c:0"}


def test_generic_inputs_and_outputs_are_one_signature() -> None:
    named = _named("inputs", _generic(a="a:0", b="b:0")) + _named("outputs", _generic(y="y:0"))
    assert _found(named + _field(1, REGRESSION)) == {
        "named": Bindings({"a": "a:0", "b": "b:0"}, {"y": "y:0"}),
        "main": Bindings({"inputs": "x:0"}, {"outputs": "y:0"}),
    }


def test_other_named_signatures_are_their_own() -> None:
    found = _found(_named("inputs", _generic(a="a:0")) + _named("classify", CLASSIFICATION))
    assert found["inputs"] == Bindings({"a": "a:0"}, {"a": "a:0"})
    assert found["classify"].outputs == {"classes": "c:0", "scores": "s:0"}
    assert len(found) == 2


def test_signatures_without_a_tensor_are_none() -> None:
    assert _found(_field(1, b""), _named("x", b""), b"") == {}


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
def test_damage_is_said_and_left_out(content: bytes, said: list[str]) -> None:
    assert _found(content, _field(1, REGRESSION)).keys() == {"main"}
    assert said == ["m.meta: its collection serving_signatures is damaged and left out"]


def test_fields_that_are_unknown_are_passed_over(said: list[str]) -> None:
    assert _found(_field(9, b"abc") + _field(1, REGRESSION + b"\x48\x01")).keys() == {"main"}
    assert said == []


def test_every_cut_is_read_or_said(said: list[str]) -> None:
    whole = _field(1, CLASSIFICATION) + _named("inputs", _generic(a="a:0"))
    for end in range(len(whole)):
        _found(whole[:end])
    assert len(said) == len(whole) - 2  # Nothing, and the first field alone, are whole messages.
