"""A node as TensorFlow itself has it: inputs, outputs, takers, control edges, attributes."""

import json
from pathlib import Path
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
from tests.tools.graph_inspection.graphs import meta_of, variable
from tools.graph_node import attribute_text, attribute_value, node_lines, node_record

v1 = tf.compat.v1


def _sizes(tensor: tf.Tensor) -> list[int | None] | None:
    return None if tensor.shape.rank is None else tensor.shape.as_list()


def _by_tensorflow(op: tf.Operation) -> dict[str, Any]:
    def tensor(found: tf.Tensor) -> dict[str, Any]:
        return {"name": found.name, "dtype": found.dtype.base_dtype.name, "shape": _sizes(found)}

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


def test_attributes_device_colocation_and_control_edges() -> None:
    def build() -> None:
        with tf.device("/job:ps/task:3"):
            x = v1.placeholder(tf.float32, [2], "x")
        with v1.colocate_with(x.op), tf.control_dependencies([x]):
            tf.constant([1.0, 2.0], name="c")

    meta = meta_of(build)
    found = node_record(meta, "c")
    assert found["colocated_with"] == ["x"]
    assert found["control_inputs"] == ["x"]
    assert found["attributes"]["value"]["values"] == [1.0, 2.0]
    assert found["device"] == "/job:ps/task:3"
    text = "\n".join(node_lines(found, 10))
    assert "value = float32 [2] = 1.0, 2.0" in text
    assert "waits for x" in text
    assert node_record(meta, "x")["control_outputs"] == ["c"]


def test_what_it_may_do_beyond_computing() -> None:
    meta = meta_of(lambda: tf.io.read_file("secret", name="read"))
    assert node_record(meta, "read")["risk"] == "can read or write files"
    assert node_record(meta, "read/filename")["risk"] is None


def _with_function() -> None:
    w = variable("w", [4, 2])

    @tf.function  # type: ignore[untyped-decorator]
    def layer(x: tf.Tensor) -> Any:
        return tf.split(tf.matmul(x, w, name="product"), 2, 1, name="halves")

    layer(v1.placeholder(tf.float32, [None, 4], "x"))


def test_a_node_of_a_function() -> None:
    meta = meta_of(_with_function)
    (function,) = (f.signature.name for f in meta.proto.graph_def.library.function)
    found = node_record(meta, f"{function}/halves")
    assert found["function"] == function
    assert [(t["name"], t["shape"]) for t in found["inputs"]] == [
        ("halves/split_dim:0", []),
        ("product:0", [None, 2]),
    ]
    assert [t["shape"] for t in found["outputs"]] == [[None, 1]] * 2
    takers = [taker["node"] for output in found["outputs"] for taker in output["takers"]]
    assert len(takers) == 2
    returned = node_record(meta, f"{function}/{takers[0]}")["outputs"][0]["takers"]
    assert [list(taker) for taker in returned] == [["result"]]
    assert "of the function" in "\n".join(
        node_lines(node_record(meta, f"{function}/{takers[0]}"), 9)
    )


def test_a_node_of_a_function_that_nothing_calls() -> None:
    meta = meta_of(_with_function)
    (function,) = (f.signature.name for f in meta.proto.graph_def.library.function)
    kept = [n for n in meta.proto.graph_def.node if "Partitioned" not in n.op]
    del meta.proto.graph_def.node[:]
    meta.proto.graph_def.node.extend(kept)
    found = node_record(meta, f"{function}/product")
    assert [t["dtype"] for t in found["inputs"]] == [None, None]
    assert [t["name"] for t in found["outputs"]] == ["product:0"]


@pytest.mark.parametrize("text", ["conv1/w:0", "^conv1/w", "conv1/w"])
def test_a_tensor_stands_for_its_node(text: str, cnn_run: Path) -> None:
    assert node_record(open_model(str(cnn_run)), text)["node"] == "conv1/w"


def test_nearest_names(cnn_run: Path) -> None:
    with pytest.raises(ToolError, match=r"no node 'fc2/addd'; the nearest are fc2/add,"):
        node_record(open_model(str(cnn_run)), "fc2/addd")
    meta = meta_of(_with_function)
    with pytest.raises(ToolError, match=r"the nearest are .*layer.*/product"):
        node_record(meta, "product")


def _list(**fields: list[Any]) -> AttrValue:
    return AttrValue(list=AttrValue.ListValue(**fields))


def _shape(*sizes: int) -> Any:
    return tf.TensorShape([None if s < 0 else s for s in sizes]).as_proto()


@pytest.mark.parametrize(
    ("value", "plain", "text"),
    [
        (AttrValue(s=b"NHWC"), "NHWC", "NHWC"),
        (AttrValue(s=b"\xff"), "\\xff", "\\xff"),
        (AttrValue(i=-3), -3, "-3"),
        (AttrValue(f=0.5), 0.5, "0.5"),
        (AttrValue(f=float("nan")), "nan", "nan"),
        (AttrValue(b=True), True, "true"),
        (AttrValue(type=1), "float32", "float32"),
        (AttrValue(type=101), "float32_ref", "float32_ref"),
        (AttrValue(type=99), "dtype 99", "dtype 99"),
        (AttrValue(shape=_shape(-1, 3)), [None, 3], "[?, 3]"),
        (AttrValue(shape=tf.TensorShape(None).as_proto()), None, "?"),
        (AttrValue(placeholder="T"), {"placeholder": "T"}, "as the caller's T"),
        (AttrValue(), None, "?"),
        (_list(i=[1, 2, 2, 1]), [1, 2, 2, 1], "[1, 2, 2, 1]"),
        (_list(type=[1, 9]), ["float32", "int64"], "[float32, int64]"),
        (_list(shape=[_shape(2), _shape(-1)]), [[2], [None]], "[[2], [?]]"),
        (_list(s=[b"a", b"b"]), ["a", "b"], "[a, b]"),
        (_list(), [], "[]"),
    ],
    ids=str.split(
        "text bytes int float nan bool dtype ref unknown_dtype shape no_rank placeholder nothing "
        "ints dtypes shapes texts empty"
    ),
)
def test_attributes_are_decoded(value: AttrValue, plain: Any, text: str) -> None:
    assert attribute_value(value) == plain
    assert attribute_text(plain) == text


def test_a_function_has_its_name_and_attributes() -> None:
    value = AttrValue()
    value.func.name = "body"
    value.func.attr["T"].type = 1
    found = attribute_value(value)
    assert found == {"function": "body", "attributes": {"T": "float32"}}
    assert attribute_text(found) == "body(T=float32)"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
        np.arange(3, dtype=np.int64) - 1,
        np.array([True, False]),
        np.array([b"one", b"two"], object),
        np.float64(2.5),
        np.zeros([0, 3], np.float16),
        np.array([1 + 2j, 3j], np.complex64),
        np.array([1.5, 2.5], ml_dtypes.bfloat16),
        np.array([1.5, np.inf], np.float32),
    ],
    ids=str.split("float int bool string scalar empty complex bfloat16 infinite"),
)
def test_the_first_values_of_a_constant(array: Any) -> None:
    found = attribute_value(AttrValue(tensor=tf.make_tensor_proto(array)))
    assert found["shape"] == list(array.shape)
    assert found["dtype"] == tf.as_dtype(array.dtype).name
    expected = np.asarray(array).reshape(-1)[:8]
    if array.dtype.kind == "O":
        assert found["values"] == [value.decode() for value in expected]
    elif array.dtype.kind == "c":
        assert found["values"] == [str(value) for value in expected]
    else:
        assert [float(value) for value in found["values"]] == [float(x) for x in expected]


@pytest.mark.parametrize("shape", [(1000,), (2**40, 2**20)])
def test_equal_values_are_held_once_and_a_shape_takes_no_memory(shape: tuple[int, ...]) -> None:
    tensor = TensorProto(dtype=1, float_val=[1.0, 2.0], tensor_shape=_shape(*shape))
    found = attribute_value(AttrValue(tensor=tensor))
    assert found["values"] == [1.0] + [2.0] * 7
    assert attribute_text(found).endswith("] = 1.0" + ", 2.0" * 7 + ", ...")


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(dtype=1, tensor_content=b"\0", tensor_shape=_shape(4)),
        TensorProto(dtype=99, tensor_content=b"\0" * 16, tensor_shape=_shape(4)),
        TensorProto(dtype=20, tensor_shape=_shape(4)),
        TensorProto(dtype=1, float_val=[1.0], tensor_shape={"dim": [{"size": -5}]}),
    ],
    ids=["too few bytes", "no such dtype", "a resource", "a negative size"],
)
def test_a_damaged_constant_is_said_to_be(tensor: TensorProto) -> None:
    found = attribute_value(AttrValue(tensor=tensor))
    assert found["values"] is None
    assert attribute_text(found).endswith("which cannot be read")


def test_a_long_attribute_is_cut() -> None:
    text = attribute_text("x" * 5000)
    assert text == "x" * 2000 + "... (3000 characters more)"
