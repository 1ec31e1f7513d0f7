"""A graph is looked at without a run, and what could do harm cannot run afterwards either."""

from pathlib import Path

import pytest
import tensorflow as tf

from errors import CheckpointError
from metagraph.importing import disarmed_graph
from metagraph.meta import MetaGraphFile

v1 = tf.compat.v1


def _meta(target: Path) -> MetaGraphFile:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        tf.matmul(x, tf.ones([3, 2]), name="y")
        tf.raw_ops.DebugIdentityV2(
            input=tf.constant(1.0), debug_urls=[f"file://{target}"], name="writes"
        )
        return MetaGraphFile("m.meta", "m", v1.train.export_meta_graph(graph=graph))


def test_it_has_the_static_shapes(tmp_path: Path) -> None:
    graph = disarmed_graph(_meta(tmp_path), ["y:0"])
    assert graph.get_tensor_by_name("y:0").shape.as_list() == [None, 2]
    assert [op.name for op in graph.get_operations()] == ["x", "ones", "y"]


def test_what_is_refused_cannot_run(tmp_path: Path) -> None:
    graph = disarmed_graph(_meta(tmp_path), ["writes:0"])
    with v1.Session(graph=graph) as session, pytest.raises(tf.errors.InvalidArgumentError):
        session.run("writes:0")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    meta = _meta(tmp_path)
    meta.nodes["y"].op = "NoSuchOperation"
    with pytest.raises(CheckpointError, match=r"m\.meta cannot be imported: .*NoSuchOperation"):
        disarmed_graph(meta, ["y:0"])
