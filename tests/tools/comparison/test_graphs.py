"""What is told of two graphs, each made by plain TensorFlow."""

import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metagraph.meta import MetaGraphFile
from tests.tools.graph_inspection.graphs import meta_of
from tools.differences import compare_graphs

v1 = tf.compat.v1
ALL = re.compile("")


def _model() -> None:
    x = v1.placeholder(tf.float32, [None, 2], name="x")
    scale = tf.constant([1.0, 2.0], name="scale")
    tf.nn.softmax(tf.multiply(x, scale, name="scaled"), name="y")


def _differences(a: MetaGraphFile, b: MetaGraphFile, pattern: str = "") -> dict[str, Any]:
    """What differs, of each kind of part that has something."""
    found = compare_graphs(a, b, re.compile(pattern))
    return {kind: told for kind, told in found.items() if any(told.values())}


def _changes(a: MetaGraphFile, b: MetaGraphFile) -> dict[str, list[str]]:
    nodes = compare_graphs(a, b, ALL)["nodes"]
    assert nodes["added"] == nodes["removed"] == []
    return {node["name"]: node["changes"] for node in nodes["changed"]}


def test_an_attribute_left_out_is_its_default() -> None:
    def convolve() -> None:
        x = v1.placeholder(tf.float32, [1, 4, 4, 1])
        tf.nn.conv2d(x, tf.zeros([2, 2, 1, 1]), strides=1, padding="SAME")

    whole, stripped = meta_of(convolve), meta_of(convolve, strip_default_attrs=True)
    assert stripped.proto.graph_def.ByteSize() < whole.proto.graph_def.ByteSize()
    assert not _differences(whole, stripped)


def test_added_and_removed() -> None:
    def more() -> None:
        _model()
        tf.identity(v1.get_default_graph().get_tensor_by_name("y:0"), name="z")

    a, b = meta_of(_model), meta_of(more)
    assert _differences(a, b) == {"nodes": {"added": ["z"], "removed": [], "changed": []}}
    assert _differences(b, a) == {"nodes": {"added": [], "removed": ["z"], "changed": []}}
    assert not _differences(a, b, "^x")


def test_what_changed_of_a_node_is_told() -> None:
    b = meta_of(_model)
    b.nodes["y"].input[0] = "x"
    b.nodes["y"].input.append("^scale")
    b.nodes["scaled"].op = "Add"
    b.nodes["x"].attr["shape"].shape.dim[1].size = 3
    b.nodes["x"].device = "/cpu:0"
    value = tf.make_tensor_proto(np.array([1.0, 5.0], np.float32))
    b.nodes["scale"].attr["value"].tensor.CopyFrom(value)
    assert _changes(meta_of(_model), b) == {
        "x": ["device: none -> /cpu:0", "attribute shape: [?, 2] -> [?, 3]"],
        "scale": ["attribute value: float32 [2] = 1.0, 2.0 -> float32 [2] = 1.0, 5.0"],
        "scaled": ["operation: Mul -> Add"],
        "y": ["input 0: scaled -> x", "waits for scale"],
    }


def test_two_ways_to_write_one_constant_are_one() -> None:
    b = meta_of(_model)
    tensor = b.nodes["scale"].attr["value"].tensor
    tensor.tensor_content = b""
    tensor.float_val.extend([1.0, 2.0])
    assert not _differences(meta_of(_model), b)


@pytest.mark.parametrize(
    ("sizes", "shape"), [([2**40], "[1099511627776]"), ([-(2**31), 2**31, 2**62 + 1], "[?, ")]
)
def test_a_constant_of_a_hostile_size_is_not_unpacked(sizes: list[int], shape: str) -> None:
    metas = [meta_of(_model), meta_of(_model)]
    for value, meta in enumerate(metas):
        tensor = meta.nodes["scale"].attr["value"].tensor
        tensor.Clear()
        tensor.dtype = tf.float32.as_datatype_enum
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.append(value)
    ((change,),) = _changes(*metas).values()
    assert change.startswith(f"attribute value: float32 {shape}")


def _function(value: float) -> MetaGraphFile:
    called = tf.function(lambda x: tf.multiply(x, value, name="product"), autograph=False)
    meta = meta_of(lambda: called(v1.placeholder(tf.float32, [])))
    (function,) = meta.proto.graph_def.library.function
    function.signature.name = "doubled"
    for node in meta.nodes.values():
        if "f" in node.attr:
            node.attr["f"].func.name = "doubled"
    return meta


def test_functions() -> None:
    a, b = _function(2.0), _function(3.0)
    (changed,) = compare_graphs(a, b, ALL)["functions"]["changed"]
    assert changed["name"] == "doubled"
    (change,) = changed["changes"]
    assert change.endswith("attribute value: float32 [] = 2.0 -> float32 [] = 3.0")
    found = compare_graphs(meta_of(_model), a, ALL)["functions"]
    assert (found["added"], found["removed"]) == (["doubled"], [])


def _signed(output: str, *labels: bytes) -> MetaGraphFile:
    meta = meta_of(_model)
    meta.proto.signature_def["serve"].inputs["x"].name = "x:0"
    meta.proto.signature_def["serve"].outputs[output].name = "y:0"
    meta.proto.collection_def["labels"].bytes_list.value.extend(labels)
    return meta


def test_signatures_and_collections() -> None:
    a, one, other = meta_of(_model), _signed("y", b"cat"), _signed("z", b"cat", b"dog")
    found = compare_graphs(one, other, ALL)
    changes = ["output y removed", "output z added"]
    assert found["signatures"]["changed"] == [{"name": "serve", "changes": changes}]
    labels = {"name": "labels", "changes": ["1 -> 2 entries"]}
    assert found["collections"]["changed"] == [labels]
    assert compare_graphs(a, one, ALL)["signatures"]["added"] == ["serve"]
    assert compare_graphs(one, a, ALL)["collections"]["removed"] == ["labels"]
