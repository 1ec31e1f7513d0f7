"""Who takes what of whom, and what serves no prediction; what is offered, test_candidates has."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.usage import (
    Wiring,
    dependence,
    handled_iterators,
    is_source,
    output_index,
    plumbing,
    wiring_of,
)
from tests.prediction import stock

v1 = tf.compat.v1


def _wiring(*nodes: tuple[str, str, list[str]]) -> Wiring:
    proto = MetaGraphDef()
    for name, op, inputs in nodes:
        proto.graph_def.node.add(name=name, op=op, input=inputs)
    return wiring_of(MetaGraphFile("m.meta", "m", proto))


def test_control_inputs_and_what_does_not_exist_are_left_out() -> None:
    wiring = _wiring(("a", "Const", []), ("b", "Add", ["a", "a:1", "^a", "gone:0"]))
    assert wiring.taken == {"a": [], "b": ["a", "a:1"]}
    assert wiring.takers == {"a": ["b", "b"]}
    assert wiring.tensors_taken("b", "a") == {"a:0", "a:1"}


def test_numbers_of_outputs() -> None:
    texts = ("a", "a:0", "a:12", "a:", "a:x", "a:-1", "a:99999999999999")
    assert [output_index(text) for text in texts] == [0, 0, 12, 0, 0, 0, 0]


def test_each_output_of_a_source_is_an_input_of_its_own() -> None:
    wiring = _wiring(
        ("rows", "IteratorGetNext", []),
        ("x", "Identity", ["rows"]),
        ("loss", "Sub", ["x", "rows:1"]),
        ("other", "Identity", ["rows:2"]),
    )
    needs = dependence(wiring, ["rows:0", "rows:1"], left_out=())
    assert needs == {"rows": {"rows:0", "rows:1"}, "x": {"rows:0"}, "loss": {"rows:0", "rows:1"}}


def test_a_shape_and_what_is_left_out_end_the_walk() -> None:
    wiring = _wiring(
        ("x", "Placeholder", []),
        ("shape", "Shape", ["x"]),
        ("zeros", "Fill", ["shape"]),
        ("saved", "SaveV2", ["x"]),
        ("late", "Identity", ["saved"]),
    )
    assert dependence(wiring, ["x:0"], left_out={"saved"}).keys() == {"x", "shape"}


def test_without_inputs_every_node_counts() -> None:
    wiring = _wiring(("a", "Const", []), ("b", "SaveV2", ["a"]))
    assert dependence(wiring, [], left_out={"b"}) == {"a": set()}


def test_savers_training_summaries_and_pipelines_are_plumbing(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [None], name="x")
        w = v1.get_variable("w", initializer=np.float32(1), use_resource=False)
        loss = tf.reduce_mean(tf.square(x * w, name="square"), name="loss")
        v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        v1.summary.scalar("seen", loss)
        queue = v1.FIFOQueue(9, [tf.float32], [[]], name="queue")
        queue.enqueue(v1.placeholder(tf.float32, [], name="filling"), name="fill")
        tf.argmax(x, output_type=tf.int32, name="head")
        best = v1.get_variable("best", initializer=np.int32(0), use_resource=False)
        v1.assign(best, tf.argmax(x, output_type=tf.int32, name="only_kept"), name="keep")
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    found = plumbing(meta, wiring_of(meta))
    assert not found & {"x", "square", "loss", "head", "only_kept", "w"}
    assert {"save/Const", "save/SaveV2", "seen", "queue", "fill", "filling", "keep"} <= found
    assert any(name.startswith("gradients/") for name in found)


def test_handles_of_iterators(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", [1], use_resource=False)
        for name in ("handle", "both"):
            handle = v1.placeholder(tf.string, [], name=name)
            v1.data.Iterator.from_string_handle(handle, tf.float32).get_next(name=f"of_{name}")
        tf.identity(handle, name="text")
        v1.placeholder(tf.string, [], name="untaken")
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    wiring = wiring_of(meta)
    (iterator,) = handled_iterators(wiring, "handle")
    assert meta.nodes[iterator].op.startswith("IteratorFromStringHandle")
    assert handled_iterators(wiring, "both") == handled_iterators(wiring, "untaken") == []
    assert is_source(meta.nodes["of_handle"])
    assert not is_source(meta.nodes[iterator])
