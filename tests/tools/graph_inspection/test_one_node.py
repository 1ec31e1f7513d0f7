"""A node as TensorFlow itself has it: inputs, outputs, takers, control edges, colocation."""

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from errors import ToolError
from metagraph.meta import MetaGraphFile
from metagraph.opening import open_model
from tests.tools.graph_inspection.graphs import meta_of, variable
from tools import graph_inspection

v1 = tf.compat.v1


def _shape(tensor: tf.Tensor) -> list[int | None] | None:
    return None if tensor.shape.rank is None else tensor.shape.as_list()


def _by_tensorflow(op: tf.Operation) -> dict[str, Any]:
    def tensor(found: tf.Tensor) -> dict[str, Any]:
        return {"name": found.name, "dtype": found.dtype.base_dtype.name, "shape": _shape(found)}

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
    found = graph_inspection.node_record(meta, name)
    json.dumps(found, allow_nan=False)
    graph_inspection.node_lines(found, 10)
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
    found = graph_inspection.node_record(meta, "c")
    assert found["colocated_with"] == ["x"]
    assert found["control_inputs"] == ["x"]
    assert found["attributes"]["value"]["values"] == [1.0, 2.0]
    assert found["device"] == "/job:ps/task:3"
    text = "\n".join(graph_inspection.node_lines(found, 10))
    assert "value = float32 [2] = 1.0, 2.0" in text
    assert "waits for x" in text
    assert graph_inspection.node_record(meta, "x")["control_outputs"] == ["c"]


def test_what_it_may_do_beyond_computing() -> None:
    meta = meta_of(lambda: tf.io.read_file("secret", name="read"))
    assert graph_inspection.node_record(meta, "read")["risk"] == "can read or write files"
    assert graph_inspection.node_record(meta, "read/filename")["risk"] is None


def _with_function() -> None:
    w = variable("w", [4, 2])

    @tf.function  # type: ignore[untyped-decorator]
    def layer(x: tf.Tensor) -> Any:
        return tf.split(tf.matmul(x, w, name="product"), 2, 1, name="halves")

    layer(v1.placeholder(tf.float32, [None, 4], "x"))


def test_a_node_of_a_function() -> None:
    meta = meta_of(_with_function)
    (function,) = (f.signature.name for f in meta.proto.graph_def.library.function)
    found = graph_inspection.node_record(meta, f"{function}/halves")
    assert found["function"] == function
    assert [(t["name"], t["shape"]) for t in found["inputs"]] == [
        ("halves/split_dim:0", []),
        ("product:0", [None, 2]),
    ]
    assert [t["shape"] for t in found["outputs"]] == [[None, 1]] * 2
    takers = [taker["node"] for output in found["outputs"] for taker in output["takers"]]
    assert len(takers) == 2
    returned = graph_inspection.node_record(meta, f"{function}/{takers[0]}")["outputs"][0]["takers"]
    assert [list(taker) for taker in returned] == [["result"]]
    assert "of the function" in "\n".join(
        graph_inspection.node_lines(
            graph_inspection.node_record(meta, f"{function}/{takers[0]}"), 9
        )
    )


def test_a_node_of_a_function_that_nothing_calls() -> None:
    meta = meta_of(_with_function)
    del meta.proto.graph_def.node[-1]
    (function,) = (f.signature.name for f in meta.proto.graph_def.library.function)
    kept = [n for n in meta.proto.graph_def.node if "Partitioned" not in n.op]
    del meta.proto.graph_def.node[:]
    meta.proto.graph_def.node.extend(kept)
    found = graph_inspection.node_record(meta, f"{function}/product")
    assert found["op"] == "MatMul"
    assert [t["dtype"] for t in found["inputs"]] == [None, None]
    assert [t["name"] for t in found["outputs"]] == ["product:0"]


def test_where_tensorflow_lacks_the_operation_the_file_tells() -> None:
    def build() -> None:
        tf.add(v1.placeholder(tf.float32, [2, 3], "x"), 1.0, name="y")

    meta = meta_of(build)
    meta.nodes["y"].op = "NoSuchOperation"
    for op in meta.proto.meta_info_def.stripped_op_list.op:
        if op.name == "AddV2":
            op.name = "NoSuchOperation"
    found = graph_inspection.node_record(meta, "y")
    assert found["outputs"][0]["dtype"] == "float32"
    assert found["inputs"][0]["name"] == "x:0"


@pytest.mark.parametrize("text", ["conv1/w:0", "^conv1/w", "conv1/w"])
def test_a_tensor_stands_for_its_node(text: str, cnn_run: Path) -> None:
    assert graph_inspection.node_record(open_model(str(cnn_run)), text)["node"] == "conv1/w"


def test_nearest_names(cnn_run: Path) -> None:
    with pytest.raises(ToolError, match=r"no node 'fc2/addd'; the nearest are fc2/add,"):
        graph_inspection.node_record(open_model(str(cnn_run)), "fc2/addd")
    meta = meta_of(_with_function)
    with pytest.raises(ToolError, match=r"the nearest are .*layer.*/product"):
        graph_inspection.node_record(meta, "product")
