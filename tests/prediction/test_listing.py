"""--list."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import read_meta_graph
from metagraph.model import read_model
from prediction.chosen_model import Record, listing, listing_text
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
    lines = listing_text(_listing(classifier)).splitlines()
    assert "  x:0  float32 [?, 4, 4, 3]" in lines
    assert "  keep_prob:0  float32 [], default 1.0" in lines
    assert "  input x = x:0" in lines
    assert "  output classes = classes:0" in lines
    assert "  class_names = ant, bee, cat" in lines
    assert "  variables = (1 entries)" in lines
    assert not any("save/" in line for line in lines)


def test_as_json(classifier: str) -> None:
    content = _listing(classifier)
    assert json.loads(json.dumps(content)) == content


def test_a_file_that_names_no_outputs(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.placeholder(tf.float32, name="x")
        v1.get_variable("v", [2], use_resource=True)
    lines = listing_text(_listing(f"{tmp_path}/m.meta")).splitlines()
    assert lines[:6] == [
        "inputs",
        "  x:0  float32 of any shape",
        "outputs",
        "  (none)",
        "variables",
        "  v:0  float32 [2]",
    ]
    assert "possible outputs" not in lines


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
    assert "  odd:0  unknown here" in listing_text(content)


def test_a_graph_without_placeholders_lists_what_stands_for_its_pipeline(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        data = v1.data.Dataset.from_tensor_slices((np.ones((8, 3), np.float32), np.zeros(8))).batch(
            2
        )
        x, _ = v1.data.make_initializable_iterator(data).get_next()
        w = v1.get_variable("w", [3, 2], use_resource=False)
        tf.nn.softmax(tf.matmul(x, w), name="probabilities")
    content = _listing(f"{tmp_path}/m.meta")
    assert content["inputs"] == []
    assert content["pipeline"] == [
        {"name": "IteratorGetNext:0", "dtype": "float32", "shape": [None, 3]}
    ]
    assert content["candidates"][0] == {
        "name": "probabilities:0",
        "dtype": "float32",
        "shape": [None, 2],
    }
    assert listing_text(content).splitlines()[:8] == [
        "inputs",
        "  (none)",
        "to feed in place of the input pipeline",
        "  IteratorGetNext:0  float32 [?, 3]",
        "outputs",
        "  (none)",
        "possible outputs",
        "  probabilities:0  float32 [?, 2]",
    ]


def test_plumbing_is_not_listed(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        queue = v1.FIFOQueue(9, [tf.float32], [[3]])
        queue.enqueue(v1.placeholder(tf.float32, [3], name="enqueue_input/Placeholder"))
        w = v1.get_variable("w", [3, 2], use_resource=False)
        tf.matmul(queue.dequeue_many(4), w, name="y")
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    assert {"save/filename", "save/Const", "enqueue_input/Placeholder"} <= meta.nodes.keys()
    content = listing(meta, read_model(meta))
    assert content["inputs"] == []
    assert [record["name"] for record in content["candidates"]] == ["y:0"]


def test_outputs_that_are_named_need_no_candidates(classifier: str) -> None:
    assert _listing(classifier)["candidates"] == []


def test_damage_is_listed_around(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.placeholder_with_default([1.0, 2.0], [2], name="x")
        v1.placeholder_with_default([1.0], [1], name="z")
        v1.get_variable("v", [2], use_resource=False)

    def damage(proto: MetaGraphDef) -> None:
        nodes = {node.name: node for node in proto.graph_def.node}
        nodes["v"].attr["dtype"].type = 999
        nodes["v"].attr["shape"].shape.dim[0].size = -7
        tensor = nodes["x/input"].attr["value"].tensor
        tensor.tensor_shape.dim[0].size = -(10**12)
        nodes["z/input"].attr["value"].tensor.dtype = 999
        proto.collection_def["trainops"].node_list.value.extend(["Adam", "", "^"])
        proto.collection_def["predict"].node_list.value.extend(["nowhere:0", "x:7"])
        proto.signature_def["serving_default"].outputs["y"].name = "^v"
        proto.graph_def.node.add(name="p", op="Placeholder").attr["dtype"].type = 999
        huge = proto.graph_def.node.add(name="q", op="Placeholder")
        huge.attr["dtype"].type = tf.float32.as_datatype_enum
        for _ in range(2):
            huge.attr["shape"].shape.dim.add(size=1 << 62)

    stock.edit_meta(tmp_path / "m.meta", damage)
    content = _listing(f"{tmp_path}/m.meta")
    assert content["variables"] == [{"name": "v:0", "dtype": None, "shape": [None]}]
    assert [record["name"] for record in content["inputs"]] == ["p:0", "q:0", "x:0", "z:0"]
    assert content["inputs"][1] == {"name": "q:0", "dtype": None, "shape": None}
    assert not any("default" in record for record in content["inputs"])
    assert content["outputs"] == [{"name": "x:7", "dtype": None, "shape": None}]
    assert content["collections"]["trainops"] == ["Adam", "", "^"]
    assert listing_text(content)
    json.loads(json.dumps(content))


def _signed(tmp_path: Path, *names: str) -> str:
    """x -> y, z with signatures of these names, whose keys are `x` and `y`: y is the tensor z."""
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [None], name="x")
        v = v1.get_variable("v", initializer=2.0, use_resource=False)
        tf.multiply(x, v, name="y")
        tf.add(x, v, name="z")

    def sign(proto: MetaGraphDef) -> None:
        for name in names:
            proto.signature_def[name].inputs["x"].name = "x:0"
            for key in ("y", "sum"):
                proto.signature_def[name].outputs[key].name = "z:0"

    stock.edit_meta(tmp_path / "m.meta", sign)
    return f"{tmp_path}/m.meta"


def test_a_key_that_is_a_nodes_name_is_marked(tmp_path: Path) -> None:
    content = _listing(_signed(tmp_path, "serving_default"))
    assert content["signature"] == {
        "name": "serving_default",
        "inputs": {"x": "x:0"},
        "outputs": {"sum": "z:0", "y": "z:0"},
        "not_names": ["y"],
    }
    lines = listing_text(content).splitlines()
    start = lines.index("signature serving_default")
    assert lines[start + 1 : start + 5] == [
        "  input x = x:0",
        "  output sum = z:0",
        "  output y = z:0  (--fetch=y is the node of that name)",
        "collections",
    ]


def test_signatures_to_choose_from(tmp_path: Path) -> None:
    path = _signed(tmp_path, "b", "a")
    content = _listing(path)
    assert content["signatures"] == ["a", "b"]
    assert content["signature"]["name"] == ""
    text = listing_text(content)
    assert "signature\nsignatures, to choose from with --signature\n  a\n  b\n" in text
    meta = read_meta_graph(path)
    chosen = listing_text(listing(meta, read_model(meta, "b")))
    assert "signature b\n" in chosen
    assert "other signatures, for --signature\n  a\n" in chosen


def test_a_part_of_many_lines_is_shortened_as_text(
    classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prediction.chosen_model._MAX_SHOWN_LINES", 2)
    content = _listing(classifier)
    lines = listing_text(content).splitlines()
    assert lines[lines.index("inputs") :][1:5] == [
        "  x:0  float32 [?, 4, 4, 3]",
        "  y_:0  int64 [?]",
        "  ... and 1 more (--format=json has all)",
        "outputs",
    ]
    more = len(content["collections"]) - 2
    assert lines[-1] == f"  ... and {more} more (--format=json has all)"
    assert lines[lines.index("variables") :][1:3] == [
        "  fc/w:0  float32 [48, 3]",
        "signature " + content["signature"]["name"],
    ]
    assert len(json.loads(json.dumps(content))["inputs"]) == 3
