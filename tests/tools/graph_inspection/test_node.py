"""A node as TensorFlow itself has it: inputs, outputs, takers, control edges, attributes."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.tensor_pb2 import TensorProto

from errors import ToolError
from metagraph.meta import MetaGraphFile
from metagraph.opening import open_model
from tests.tools.graph_inspection.graphs import meta_of
from tools.graph_inspection import node_lines, node_record
from tools.graph_subject import attribute_text

v1 = tf.compat.v1


def _by_tensorflow(op: tf.Operation) -> dict[str, Any]:
    def tensor(found: tf.Tensor) -> dict[str, Any]:
        shape = None if found.shape.rank is None else found.shape.as_list()
        return {"name": found.name, "dtype": found.dtype.base_dtype.name, "shape": shape}

    def takers(output: tf.Tensor) -> list[tuple[str, int]]:
        consumers = {op.name: op for op in output.consumers()}.values()
        return sorted(
            (taker.name, position)
            for taker in consumers
            for position, found in enumerate(taker.inputs)
            if found.name == output.name
        )

    return {
        "op": op.type,
        "inputs": [tensor(found) for found in op.inputs],
        "outputs": [{**tensor(out), "takers": takers(out)} for out in op.outputs],
        "control_inputs": sorted(found.name for found in op.control_inputs),
    }


def _by_us(meta: MetaGraphFile, name: str) -> dict[str, Any]:
    found = node_record(meta, name)
    json.dumps(found, allow_nan=False)
    node_lines(found, 10)
    for output in found["outputs"]:
        output["takers"] = sorted((t["node"], t["input"]) for t in output["takers"])
    found["control_inputs"] = sorted(found["control_inputs"])
    return {key: found[key] for key in ("op", "inputs", "outputs", "control_inputs")}


@pytest.mark.parametrize("run", ["linear_run", "cnn_run"])
def test_every_node_is_as_tensorflow_has_it(run: str, request: pytest.FixtureRequest) -> None:
    meta = open_model(str(request.getfixturevalue(run)))
    with tf.Graph().as_default() as graph:
        v1.train.import_meta_graph(meta.path)
    for op in graph.get_operations()[::3]:
        assert _by_us(meta, op.name) == _by_tensorflow(op)


def _placed() -> None:
    with tf.device("/job:ps/task:3"):
        x = v1.placeholder(tf.float32, [2], "x")
    with v1.colocate_with(x.op), tf.control_dependencies([x]):
        tf.constant([1.0, 2.0], name="c")
    tf.io.read_file("secret", name="read")


@pytest.mark.parametrize("text", ["c", "c:0", "^c"])
def test_attributes_device_colocation_and_control_edges(text: str) -> None:
    meta = meta_of(_placed)
    found = node_record(meta, text)
    assert found["node"] == "c"
    assert found["colocated_with"] == found["control_inputs"] == ["x"]
    assert found["device"] == "/job:ps/task:3"
    lines = "\n".join(node_lines(found, 10))
    assert "value = float32 [2] = 1.0, 2.0" in lines
    assert "waits for x" in lines
    assert node_record(meta, "x")["control_outputs"] == ["c"]


def test_risks_unknown_operations_and_names() -> None:
    meta = meta_of(_placed)
    assert node_record(meta, "read")["risk"] == "can read or write files"
    assert node_record(meta, "read/filename")["risk"] is None
    with pytest.raises(ToolError, match="no node 'reat'; the nearest are read"):
        node_record(meta, "reat")
    meta.nodes["read"].op = "NoSuchOperation"
    (taken,) = node_record(meta, "read")["inputs"]
    assert taken == {"name": "read/filename:0", "dtype": None, "shape": None}


def _list(**fields: list[Any]) -> AttrValue:
    return AttrValue(list=AttrValue.ListValue(**fields))


def _shape(*sizes: int) -> Any:
    return tf.TensorShape([None if s < 0 else s for s in sizes]).as_proto()


def _calling() -> AttrValue:
    value = AttrValue()
    value.func.name = "body"
    value.func.attr["T"].type = 1
    return value


def _constant(array: Any) -> AttrValue:
    return AttrValue(tensor=tf.make_tensor_proto(array))


def _damaged(**fields: Any) -> AttrValue:
    return AttrValue(tensor=TensorProto(**{"dtype": 1, "tensor_shape": _shape(4), **fields}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (AttrValue(s=b"NHWC"), "NHWC"),
        (AttrValue(s=b"\xff"), "\\xff"),
        (AttrValue(i=-3), "-3"),
        (AttrValue(f=0.5), "0.5"),
        (AttrValue(f=float("nan")), "nan"),
        (AttrValue(b=True), "True"),
        (AttrValue(type=1), "float32"),
        (AttrValue(type=101), "float32_ref"),
        (AttrValue(type=99), "dtype 99"),
        (AttrValue(shape=_shape(-1, 3)), "[?, 3]"),
        (AttrValue(shape=tf.TensorShape(None).as_proto()), "of any shape"),
        (AttrValue(placeholder="T"), "as the caller's T"),
        (_calling(), "body(T=float32)"),
        (AttrValue(), "?"),
        (_list(i=[1, 2, 2, 1]), "[1, 2, 2, 1]"),
        (_list(type=[1, 9]), "[float32, int64]"),
        (_list(shape=[_shape(2), _shape(-1)]), "[[2], [?]]"),
        (_list(s=[b"a", b"b"]), "[a, b]"),
        (_list(), "[]"),
        (_constant(np.arange(3, dtype=np.int64) - 1), "int64 [3] = -1, 0, 1"),
        (_constant(np.array([True, False])), "bool [2] = true, false"),
        (_constant(np.array([b"one", b"two"], object)), 'string [2] = "one", "two"'),
        (_constant(np.float64(2.5)), "float64 [] = 2.5"),
        (_constant(np.zeros([0, 3], np.float16)), "float16 [0, 3] = "),
        (_constant(np.array([1 + 2j, 3j], np.complex64)), 'complex64 [2] = "(1+2j)", "3j"'),
        (_constant(np.array([1.5, 2.5], ml_dtypes.bfloat16)), "bfloat16 [2] = 1.5, 2.5"),
        (_constant(np.array([1.5, np.inf], np.float32)), 'float32 [2] = 1.5, "Infinity"'),
        (
            _constant(np.arange(12, dtype=np.int32).reshape(3, 4)),
            "int32 [3, 4] = 0, 1, 2, 3, 4, 5, 6, 7, ...",
        ),
        # Equal values are held once, and a shape takes no memory.
        (
            _damaged(float_val=[1.0, 2.0], tensor_shape=_shape(2**40, 2**20)),
            f"float32 [{2**40}, {2**20}] = 1.0" + ", 2.0" * 7 + ", ...",
        ),
        (_damaged(tensor_content=b"\0"), "float32 [4], which cannot be read"),
        (_damaged(dtype=99, tensor_content=b"\0" * 16), "dtype 99 [4], which cannot be read"),
        (_damaged(dtype=20), "resource [4], which cannot be read"),
        (
            _damaged(float_val=[1.0], tensor_shape={"dim": [{"size": -5}]}),
            "float32 [?], which cannot be read",
        ),
    ],
)
def test_attributes_are_decoded(value: AttrValue, text: str) -> None:
    assert attribute_text(value) == text


def test_a_long_attribute_is_cut() -> None:
    meta = meta_of(_placed)
    meta.nodes["x"].attr["long"].s = b"x" * 5000
    lines = node_lines(node_record(meta, "x"), 10)
    assert "    long = " + "x" * 2000 + "... (3000 characters more)" in lines
