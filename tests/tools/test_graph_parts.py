"""A node as TensorFlow has it, and the parts that tell what stands in a file."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import ToolError
from metagraph.meta import MetaGraphFile
from metagraph.opening import open_model
from tests.metagraph.made import of_graph
from tests.tools.conftest import subject_of, variable
from tools.graph_parts import PARTS, attribute_text, node_lines, node_record

v1 = tf.compat.v1


def _by_tensorflow(op: tf.Operation) -> dict[str, Any]:
    def tensor(found: tf.Tensor) -> dict[str, Any]:
        shape = None if found.shape.rank is None else tuple(found.shape.as_list())
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
    meta = of_graph(_placed)
    found = node_record(meta, text)
    assert found["node"] == "c"
    assert found["colocated_with"] == found["control_inputs"] == ["x"]
    assert found["device"] == "/job:ps/task:3"
    lines = "\n".join(node_lines(found, 10))
    assert "value = float32 [2] = 1.0, 2.0" in lines
    assert "waits for x" in lines
    assert node_record(meta, "x")["control_outputs"] == ["c"]


def test_risks_unknown_operations_and_names() -> None:
    meta = of_graph(_placed)
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
    meta = of_graph(_placed)
    meta.nodes["x"].attr["long"].s = b"x" * 5000
    lines = node_lines(node_record(meta, "x"), 10)
    assert "    long = " + "x" * 2000 + "... (3000 characters more)" in lines


# Info, collections, signatures, safety, functions.


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.


def _look(part: str, meta: MetaGraphFile, *fetch: str) -> tuple[dict[str, Any], str]:
    """A part as JSON and as text."""
    look, lines = PARTS[part]
    found = look(subject_of(meta, *fetch))
    return json.loads(json.dumps(found, allow_nan=False)), "\n".join(lines(found, 10))


def test_variables_in_collections() -> None:
    def build() -> None:
        variable("w", [3], resource=False)
        v1.get_variable("step", initializer=0, trainable=False, use_resource=True)
        v1.get_variable("p", [4, 2], partitioner=v1.fixed_size_partitioner(2))

    found, _ = _look("collections", of_graph(build))
    trainable = [entry["variable"] for entry in found["trainable_variables"]]
    assert trainable == ["w:0", "p/part_0:0", "p/part_1:0"]
    by_name = {entry["variable"]: entry for entry in found["variables"]}
    assert by_name["w:0"]["initializer"] == "w/Assign"
    assert (by_name["w:0"]["is_resource"], by_name["step:0"]["is_resource"]) == (False, True)


def test_whatever_a_collection_holds() -> None:
    def build() -> None:
        variable("w", [2])
        queue = tf.queue.FIFOQueue(5, [tf.float32], [[]], name="rows")
        v1.train.add_queue_runner(v1.train.QueueRunner(queue, [queue.enqueue([1.0], name="fill")]))

    meta = of_graph(build)
    collections = meta.proto.collection_def
    collections["names"].node_list.value.append("w:0")
    collections["texts"].bytes_list.value.extend([b"cat", "Hund\u00e9".encode()])
    collections["ints"].int64_list.value.extend([1, -2])
    collections["floats"].float_list.value.extend([0.5, float("inf")])
    collections["blobs"].bytes_list.value.extend([b"\xff\x00\x01", b"\x0a\xff"])
    collections["mine"].bytes_list.value.extend(collections["variables"].bytes_list.value)
    collections["nothing"].SetInParent()
    collections["any"].any_list.value.add(type_url="type.googleapis.com/x.Y", value=b"123")
    found, text = _look("collections", meta)
    assert found.pop("mine")[0]["variable"] == "w:0"
    assert found.pop("queue_runners")[0]["kind"] == "bytes"  # It begins with a node's name too.
    assert {key: found[key] for key in found if "variables" not in key} == {
        "names": ["w:0"],
        "texts": ["cat", "Hund\u00e9"],
        "ints": [1, -2],
        "floats": [0.5, "Infinity"],
        "blobs": [{"kind": "bytes", "bytes": 3}, {"kind": "bytes", "bytes": 2}],
        "nothing": [],
        "any": [{"kind": "bytes", "type": "x.Y", "bytes": 3}],
    }
    assert "3 bytes of x.Y" in text


def test_a_saver_with_its_retention() -> None:
    def build() -> Any:
        return v1.train.Saver([variable("w", [3])], max_to_keep=7)

    found, text = _look("info", of_graph(build))
    assert found["saver"] == {
        "filename_tensor_name": "save/Const:0",
        "save_tensor_name": "save/control_dependency:0",
        "restore_op_name": "save/restore_all",
        "max_to_keep": 7,
    }
    assert "save_tensor_name save/control_dependency:0, restore_op_name save/restore_all" in text


def test_no_saver_and_nothing_to_predict() -> None:
    meta = MetaGraphFile("model.meta", "model", MetaGraphDef())
    meta.proto.graph_def.node.add(name="n", op="NoOp")
    assert "saver" not in _look("info", meta)[1]
    found, text = _look("safety", meta)
    assert found["inference"] is None
    assert "--fetch" in text


def test_sparse_and_lost_tensors_of_a_signature() -> None:
    meta = of_graph(lambda: v1.placeholder(tf.float32, [2], "x"))
    inputs = meta.proto.signature_def["mine"].inputs
    inputs["sparse"].coo_sparse.values_tensor_name = "x:0"
    inputs["lost"].name = "gone:0"
    found, text = _look("signatures", meta)
    sparse = found["mine"]["inputs"]["sparse"]
    assert (sparse["name"], sparse["exists"]) == ("(coo_sparse)", True)
    assert "gone:0, which the graph does not have" in text


def test_an_unknown_operation_and_tags_are_told() -> None:
    meta = of_graph(lambda: tf.constant(1, name="c"))
    meta.nodes["c"].op = "NoSuchOperation"
    meta.proto.meta_info_def.tags.extend(["serve", "gpu"])
    meta.proto.graph_def.versions.bad_consumers.append(5)
    found, text = _look("info", meta)
    assert found["unknown_ops"] == ["NoSuchOperation"]
    for told in ("not in this TensorFlow: NoSuchOperation", "tags serve, gpu", "bad consumers 5"):
        assert told in text


def test_functions() -> None:
    double = tf.function(lambda x: x + x, autograph=False)
    meta = of_graph(lambda: double(v1.placeholder(tf.float32, [2])))
    (function,) = meta.proto.graph_def.library.function
    found, text = _look("functions", meta)
    assert found == {function.signature.name: {"AddV2": 1, "Identity": 1}}
    told = f"  {function.signature.name}, 2 nodes: AddV2 1, Identity 1"
    assert text.splitlines() == ["functions (1)", told]


def test_safety_of_a_graph_with_files() -> None:
    def build() -> None:
        tf.identity(v1.placeholder(tf.float32, [2], "x"), name="y")
        tf.io.write_file("target", tf.io.read_file("secret", name="read"), name="write")

    found, text = _look("safety", of_graph(build), "y")
    assert found["inference"] == {"passes": True, "offenders": []}
    assert {entry["node"] for entry in found["whole"]["offenders"]} == {"read", "write"}
    assert "ReadFile, which can read or write files: read" in text
    found, _ = _look("safety", of_graph(build), "read")
    assert [entry["node"] for entry in found["inference"]["offenders"]] == ["read"]
