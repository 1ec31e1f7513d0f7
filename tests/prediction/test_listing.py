"""--list."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.meta_graph_file import read_meta_graph
from prediction.listing import Record, as_json, as_text, listing
from prediction.model import read_model
from tests.prediction import stock

v1 = tf.compat.v1


def _listing(path: str) -> Record:
    meta = read_meta_graph(path)
    return listing(meta, read_model(meta))


def test_a_classifier_is_listed(classifier: str) -> None:
    content = _listing(classifier)
    assert content["inputs"] == [
        {"name": "x:0", "dtype": "float32", "shape": [None, 4, 4, 3]},
        {"name": "y_:0", "dtype": "int64", "shape": [None]},
        {"name": "keep_prob:0", "dtype": "float32", "shape": [], "default": 1.0},
    ]
    assert content["outputs"] == [
        {"name": "logits:0", "dtype": "float32", "shape": [None, 3]},
        {"name": "classes:0", "dtype": "int64", "shape": [None]},
        {"name": "probabilities:0", "dtype": "float32", "shape": [None, 3]},
    ]
    assert content["variables"] == [{"name": "fc/w:0", "dtype": "float32", "shape": [48, 3]}]
    assert content["signature"]["inputs"] == {"x": "x:0"}
    assert content["collections"]["class_names"] == ["ant", "bee", "cat"]
    assert content["collections"]["predict"] == ["logits:0"]
    assert content["collections"]["variables"] == 1
    assert content["collections"]["input_scale"] == [pytest.approx(1 / 255)]


def test_as_text(classifier: str) -> None:
    lines = as_text(_listing(classifier)).splitlines()
    assert "  x:0  float32 [?, 4, 4, 3]" in lines
    assert "  keep_prob:0  float32 [], default 1.0" in lines
    assert "  input x = x:0" in lines
    assert "  output classes = classes:0" in lines
    assert "  class_names = ant, bee, cat" in lines
    assert "  variables = (1 entries)" in lines
    assert not any("save/" in line for line in lines)


def test_as_json(classifier: str) -> None:
    content = _listing(classifier)
    assert json.loads(as_json(content)) == content


def test_a_file_that_names_no_outputs(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.placeholder(tf.float32, name="x")
        v1.get_variable("v", [2], use_resource=True)
    lines = as_text(_listing(f"{tmp_path}/m.meta")).splitlines()
    assert lines[:6] == [
        "inputs",
        "  x:0  float32 of any shape",
        "outputs",
        "  (none)",
        "variables",
        "  v:0  float32 [2]",
    ]


def test_an_operation_that_this_tensorflow_lacks_does_not_stop_it(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", [2], use_resource=False)

    def add_unknown(proto: MetaGraphDef) -> None:
        proto.graph_def.node.add(name="odd", op="FromAnotherWorld")
        proto.collection_def["predict"].node_list.value.append("odd:0")
        proto.collection_def["empty"].SetInParent()

    stock.edit_meta(tmp_path / "m.meta", add_unknown)
    content = _listing(f"{tmp_path}/m.meta")
    assert content["outputs"] == [{"name": "odd:0", "dtype": None, "shape": None}]
    assert "  odd:0  unknown here" in as_text(content)
