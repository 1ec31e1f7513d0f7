"""What serves no prediction."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from metagraph.meta import read_meta_graph
from metagraph.usage import handled_iterators, is_source, plumbing, wiring_of
from tests.prediction import stock

v1 = tf.compat.v1


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
    found = plumbing(meta, wiring_of(meta), results={"ArgMax"})
    assert not found & {"x", "square", "loss", "head", "only_kept", "w"}
    assert {"save/Const", "save/SaveV2", "seen", "queue", "fill", "filling", "keep"} <= found
    assert any(name.startswith("gradients/") for name in found)
    assert "only_kept" in plumbing(meta, wiring_of(meta), results=())


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
