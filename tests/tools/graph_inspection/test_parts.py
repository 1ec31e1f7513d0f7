"""The parts that tell what stands in a file: info, graph, saver, collections, signatures, ..."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import MetaGraphFile
from metagraph.model import read_model
from tests.tools.graph_inspection.graphs import meta_of, variable
from tools import graph_parts
from tools.graph_subject import Subject

v1 = tf.compat.v1


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.


def _subject(meta: MetaGraphFile, *fetch: str) -> Subject:
    return Subject(meta, read_model(meta), fetch)


def _collections(build: Callable[[], Any]) -> dict[str, Any]:
    found = graph_parts.collections_part(_subject(meta_of(build)))
    json.dumps(found, allow_nan=False)
    graph_parts.collections_lines(found, 10)
    return found


def test_variables_are_decoded() -> None:
    def build() -> None:
        variable("w", [3], resource=False)
        v1.get_variable("step", initializer=0, trainable=False, use_resource=True)
        v1.get_variable("p", [4, 2], partitioner=v1.fixed_size_partitioner(2))

    found = _collections(build)
    assert [entry["variable"] for entry in found["trainable_variables"]] == [
        "w:0",
        "p/part_0:0",
        "p/part_1:0",
    ]
    by_name = {entry["variable"]: entry for entry in found["variables"]}
    assert by_name["w:0"]["initializer"] == "w/Assign"
    assert (by_name["w:0"]["is_resource"], by_name["step:0"]["is_resource"]) == (False, True)


def test_what_is_no_variable_is_bytes() -> None:
    """A queue's runner looks like a variable of the queue's name; a context is damaged."""

    def build() -> None:
        queue = tf.queue.FIFOQueue(5, [tf.float32], [[]], name="rows")
        v1.train.add_queue_runner(v1.train.QueueRunner(queue, [queue.enqueue([1.0], name="fill")]))
        v1.add_to_collection("w", variable("w", [2]))

    meta = meta_of(build)
    meta.proto.collection_def["while_context"].bytes_list.value.append(b"\x0a\xff")
    meta.proto.collection_def["variables"].bytes_list.value.append(b"\xff")
    found = graph_parts.collections_part(_subject(meta))
    assert [entry["kind"] for entry in found["queue_runners"]] == ["bytes"]
    assert found["while_context"] == [{"kind": "bytes", "bytes": 2}]
    assert found["variables"][-1] == {"kind": "bytes", "bytes": 1}
    assert "1 bytes" in "\n".join(graph_parts.collections_lines(found, 10))


def test_names_texts_numbers_and_what_is_none_of_these() -> None:
    meta = meta_of(lambda: variable("w", [2]))
    collections = meta.proto.collection_def
    collections["names"].node_list.value.append("w:0")
    collections["texts"].bytes_list.value.extend([b"cat", "Hund\u00e9".encode()])
    collections["ints"].int64_list.value.extend([1, -2])
    collections["floats"].float_list.value.extend([0.5, float("inf")])
    collections["blobs"].bytes_list.value.extend([b"\xff\x00\x01", b"\xfe"])
    collections["mine"].bytes_list.value.extend(collections["variables"].bytes_list.value)
    collections["nothing"].SetInParent()
    collections["any"].any_list.value.add(type_url="type.googleapis.com/x.Y", value=b"123")
    found = graph_parts.collections_part(_subject(meta))
    json.dumps(found, allow_nan=False)
    assert found["names"] == ["w:0"]
    assert found["texts"] == ["cat", "Hund\u00e9"]
    assert found["ints"] == [1, -2]
    assert found["floats"] == [0.5, "Infinity"]
    assert found["blobs"] == [{"kind": "bytes", "bytes": 3}, {"kind": "bytes", "bytes": 1}]
    assert found["mine"][0]["variable"] == "w:0"
    assert found["nothing"] == []
    assert found["any"] == [{"kind": "bytes", "type": "x.Y", "bytes": 3}]
    text = "\n".join(graph_parts.collections_lines(found, 10))
    assert "3 bytes of x.Y" in text


def _saver(build: Callable[[], Any]) -> dict[str, Any]:
    with tf.Graph().as_default() as graph:
        saver = build().as_saver_def()
        proto = v1.train.export_meta_graph(graph=graph, saver_def=saver)
    found = graph_parts.saver_part(_subject(MetaGraphFile("model.meta", "model", proto)))
    json.dumps(found, allow_nan=False)
    return found


def test_a_saver_under_other_names_with_its_retention() -> None:
    def build() -> Any:
        w, _ = variable("w", [3]), variable("left", [2])
        return v1.train.Saver({"elsewhere/w": w}, max_to_keep=7, keep_checkpoint_every_n_hours=2)

    found = _saver(build)
    assert found["saved"] == [{"variable": "w", "key": "elsewhere/w"}]
    assert found["not_saved"] == ["left"]
    assert (found["max_to_keep"], found["keep_checkpoint_every_n_hours"]) == (7, 2)
    assert (found["version"], found["sharded"]) == ("V2", False)
    assert found["restore_op_name"] == "save/restore_all"
    text = "\n".join(graph_parts.saver_lines(found, 10))
    assert "w as elsewhere/w" in text
    assert "does not save: left" in text


def test_a_sharded_saver_of_the_format_v1_and_partitions() -> None:
    def build() -> Any:
        v1.get_variable("p", [5, 2], partitioner=v1.fixed_size_partitioner(2), use_resource=True)
        return v1.train.Saver(sharded=True, write_version=v1.train.SaverDef.V1)

    found = _saver(build)
    assert (found["version"], found["sharded"]) == ("V1", True)
    assert [place["slice"]["sizes"] for place in found["saved"]] == [(3, 2), (2, 2)]
    text = "\n".join(graph_parts.saver_lines(found, 10))
    assert "p/part_1 as [2, 2] of p [5, 2] from [3, 0]" in text


def test_no_saver() -> None:
    found = graph_parts.saver_part(_subject(meta_of(lambda: variable("w", [2]))))
    assert not found["present"]
    assert [*graph_parts.saver_lines(found, 10)] == ["saver: the file has none"]


def test_sparse_and_lost_tensors_of_a_signature() -> None:
    meta = meta_of(lambda: v1.placeholder(tf.float32, [2], "x"))
    inputs = meta.proto.signature_def["mine"].inputs
    inputs["sparse"].coo_sparse.values_tensor_name = "x:0"
    inputs["lost"].name = "gone:0"
    found = graph_parts.signatures_part(_subject(meta))["mine"]["inputs"]
    assert (found["sparse"]["name"], found["sparse"]["exists"]) == ("(coo_sparse)", True)
    assert not found["lost"]["exists"]
    lines = graph_parts.signatures_lines(
        {"mine": {"method_name": "", "inputs": found, "outputs": {}}}, 9
    )
    assert any("gone:0, which the graph does not have" in line for line in lines)


def test_an_unknown_operation_and_tags_are_told() -> None:
    meta = meta_of(lambda: tf.constant(1, name="c"))
    meta.nodes["c"].op = "NoSuchOperation"
    meta.proto.meta_info_def.tags.extend(["serve", "gpu"])
    meta.proto.graph_def.versions.bad_consumers.append(5)
    found = graph_parts.info_part(_subject(meta))
    assert found["unknown_ops"] == ["NoSuchOperation"]
    text = "\n".join(graph_parts.info_lines(found, 10))
    assert "not in this TensorFlow: NoSuchOperation" in text
    assert "tags serve, gpu" in text
    assert "bad consumers 5" in text


def test_functions() -> None:
    @tf.function  # type: ignore[untyped-decorator]
    def double(x: tf.Tensor) -> tf.Tensor:
        return x + x

    meta = meta_of(lambda: double(v1.placeholder(tf.float32, [2])))
    found = graph_parts.functions_part(_subject(meta))
    (function,) = meta.proto.graph_def.library.function
    assert found == {function.signature.name: {"AddV2": 1, "Identity": 1}}
    assert [*graph_parts.functions_lines(found, 5)] == [
        "functions (1)",
        f"  {function.signature.name}, 2 nodes: AddV2 1, Identity 1",
    ]


def test_safety_of_a_graph_with_files() -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [2], "x")
        tf.identity(x, name="y")
        tf.io.write_file("target", tf.io.read_file("secret", name="read"), name="write")

    meta = meta_of(build)
    found = graph_parts.safety_part(_subject(meta, "y"))
    assert found["inference"] == {"passes": True, "offenders": []}
    assert {entry["node"] for entry in found["whole"]["offenders"]} == {"read", "write"}
    text = "\n".join(graph_parts.safety_lines(found, 10))
    assert "ReadFile, which can read or write files: read" in text
    found = graph_parts.safety_part(_subject(meta, "read"))
    assert [entry["node"] for entry in found["inference"]["offenders"]] == ["read"]


def test_nothing_to_predict() -> None:
    meta = MetaGraphFile("model.meta", "model", MetaGraphDef())
    meta.proto.graph_def.node.add(name="n", op="NoOp")
    found = graph_parts.safety_part(_subject(meta))
    assert found["inference"] is None
    assert "--fetch" in "\n".join(graph_parts.safety_lines(found, 10))
