"""The parts that tell what stands in a file: info, saver, collections, signatures, safety, ..."""

import json
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import MetaGraphFile
from tests.tools.graph_inspection.graphs import meta_of, subject_of, variable
from tools import graph_parts

v1 = tf.compat.v1

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.


def _look(part: str, meta: MetaGraphFile, *fetch: str) -> tuple[dict[str, Any], str]:
    """A part as JSON and as text."""
    found = getattr(graph_parts, f"{part}_part")(subject_of(meta, *fetch))
    lines = getattr(graph_parts, f"{part}_lines")(found, 10)
    return json.loads(json.dumps(found, allow_nan=False)), "\n".join(lines)


def test_variables_in_collections() -> None:
    def build() -> None:
        variable("w", [3], resource=False)
        v1.get_variable("step", initializer=0, trainable=False, use_resource=True)
        v1.get_variable("p", [4, 2], partitioner=v1.fixed_size_partitioner(2))

    found, _ = _look("collections", meta_of(build))
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

    meta = meta_of(build)
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


def test_a_saver_under_other_names_with_its_retention() -> None:
    def build() -> Any:
        w, _ = variable("w", [3]), variable("left", [2])
        return v1.train.Saver({"elsewhere/w": w}, max_to_keep=7, keep_checkpoint_every_n_hours=2)

    found, text = _look("saver", meta_of(build))
    assert found["saved"] == [{"variable": "w", "key": "elsewhere/w"}]
    assert found["not_saved"] == ["left"]
    assert found["restore_op_name"] == "save/restore_all"
    assert "version V2; keeps 7 checkpoints, and one every 2.0 hours" in text
    assert "w as elsewhere/w" in text
    assert "does not save: left" in text


def test_a_sharded_saver_of_the_format_v1_and_partitions() -> None:
    def build() -> Any:
        v1.get_variable("p", [5, 2], partitioner=v1.fixed_size_partitioner(2), use_resource=True)
        return v1.train.Saver(sharded=True, write_version=v1.train.SaverDef.V1)

    found, text = _look("saver", meta_of(build))
    assert (found["version"], found["sharded"]) == ("V1", True)
    assert [place["slice"]["sizes"] for place in found["saved"]] == [[3, 2], [2, 2]]
    assert "p/part_1 as [2, 2] of p [5, 2] from [3, 0]" in text


def test_no_saver_and_nothing_to_predict() -> None:
    meta = MetaGraphFile("model.meta", "model", MetaGraphDef())
    meta.proto.graph_def.node.add(name="n", op="NoOp")
    assert _look("saver", meta)[1] == "saver: the file has none"
    found, text = _look("safety", meta)
    assert found["inference"] is None
    assert "--fetch" in text


def test_sparse_and_lost_tensors_of_a_signature() -> None:
    meta = meta_of(lambda: v1.placeholder(tf.float32, [2], "x"))
    inputs = meta.proto.signature_def["mine"].inputs
    inputs["sparse"].coo_sparse.values_tensor_name = "x:0"
    inputs["lost"].name = "gone:0"
    found, text = _look("signatures", meta)
    sparse = found["mine"]["inputs"]["sparse"]
    assert (sparse["name"], sparse["exists"]) == ("(coo_sparse)", True)
    assert "gone:0, which the graph does not have" in text


def test_an_unknown_operation_and_tags_are_told() -> None:
    meta = meta_of(lambda: tf.constant(1, name="c"))
    meta.nodes["c"].op = "NoSuchOperation"
    meta.proto.meta_info_def.tags.extend(["serve", "gpu"])
    meta.proto.graph_def.versions.bad_consumers.append(5)
    found, text = _look("info", meta)
    assert found["unknown_ops"] == ["NoSuchOperation"]
    for told in ("not in this TensorFlow: NoSuchOperation", "tags serve, gpu", "bad consumers 5"):
        assert told in text


def test_functions() -> None:
    double = tf.function(lambda x: x + x, autograph=False)
    meta = meta_of(lambda: double(v1.placeholder(tf.float32, [2])))
    (function,) = meta.proto.graph_def.library.function
    found, text = _look("functions", meta)
    assert found == {function.signature.name: {"AddV2": 1, "Identity": 1}}
    told = f"  {function.signature.name}, 2 nodes: AddV2 1, Identity 1"
    assert text.splitlines() == ["functions (1)", told]


def test_safety_of_a_graph_with_files() -> None:
    def build() -> None:
        tf.identity(v1.placeholder(tf.float32, [2], "x"), name="y")
        tf.io.write_file("target", tf.io.read_file("secret", name="read"), name="write")

    found, text = _look("safety", meta_of(build), "y")
    assert found["inference"] == {"passes": True, "offenders": []}
    assert {entry["node"] for entry in found["whole"]["offenders"]} == {"read", "write"}
    assert "ReadFile, which can read or write files: read" in text
    found, _ = _look("safety", meta_of(build), "read")
    assert [entry["node"] for entry in found["inference"]["offenders"]] == ["read"]
