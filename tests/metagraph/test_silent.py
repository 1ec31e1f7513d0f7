"""What a graph prints reaches nobody; what it computes stays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.graph import silence, silent_inputs
from metagraph.meta import read_meta_graph
from metagraph.session import load_inference_graph
from tests.prediction import stock

v1 = tf.compat.v1
raw = tf.raw_ops

LOUD = "\x1b[31mFORGED"


def _printed(x: tf.Tensor) -> tf.Tensor:
    """Twice x, by way of both operations, which print before it comes."""
    x = raw.Print(input=x, data=[tf.constant(LOUD), x], message=LOUD, first_n=9)
    with tf.control_dependencies([raw.PrintV2(input=LOUD, output_stream="stdout")]):
        return tf.add(x, x)


def _in_a_dataset(x: tf.Tensor) -> tf.Tensor:
    data = tf.data.Dataset.range(1).map(lambda i: _printed(tf.cast(i + 2, tf.float32)))
    return tf.add(v1.data.make_one_shot_iterator(data).get_next(), x - x)


@pytest.mark.parametrize(
    "build",
    [_printed, tf.function(_printed), _in_a_dataset],
    ids=["graph", "function", "dataset"],
)
def test_nothing_is_printed_and_the_values_stay(
    build: Callable[[tf.Tensor], tf.Tensor], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [], name="x")
        scale = v1.get_variable("scale", initializer=3.0, use_resource=False)
        tf.multiply(build(x), scale, name="y")
    capfd.readouterr()
    two = np.asarray(2, np.float32)
    assert stock.run(tmp_path / "m.meta", ["y:0"], {"x:0": two})[0] == 12
    loud = capfd.readouterr()
    assert "FORGED" in loud.out  # A stock client prints.
    assert "FORGED" in loud.err
    with load_inference_graph(read_meta_graph(str(tmp_path / "m.meta")), ["y:0"], ["x:0"]) as graph:
        assert graph.run(two)[0] == 12
    assert capfd.readouterr() == ("", "")


def test_what_is_only_printed_needs_no_value(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        weight = v1.get_variable("weight", initializer=3.0, use_resource=False)
        told = v1.placeholder(tf.float32, [], name="told")
        raw.Print(input=weight, data=[told], name="y")
    meta = read_meta_graph(str(tmp_path / "m.meta"))
    for feeds in ([], ["told:0"]):
        with load_inference_graph(meta, ["y:0"], feeds) as graph:
            assert graph.run(*(np.asarray(1, np.float32) for _ in feeds))[0] == 3


def _node(op: str, *inputs: str) -> NodeDef:
    return NodeDef(name="n", op=op, input=inputs)


def test_only_control_inputs_and_the_value_that_is_passed_on_stay() -> None:
    passing, ending = _node("Print", "a:1", "b", "^c"), _node("PrintV2", "b", "^c")
    for name in ("T", "message", "_grappler:x"):
        passing.attr[name].s = b""
        ending.attr[name].s = b""
    inputs = [list(silent_inputs(node)) for node in (passing, ending)]
    silence(passing)
    silence(ending)
    assert (passing.op, list(passing.input), sorted(passing.attr)) == (
        "Identity",
        ["a:1", "^c"],
        ["T", "_grappler:x"],
    )
    assert (ending.op, list(ending.input), sorted(ending.attr)) == ("NoOp", ["^c"], ["_grappler:x"])
    assert inputs == [["a:1", "^c"], ["^c"]]


def test_what_prints_into_a_file_and_what_prints_nothing_stay() -> None:
    into_file = _node("PrintV2", "a")
    into_file.attr["output_stream"].s = b"file:///a"
    for node in (into_file, _node("Add", "a", "b")):
        before = NodeDef.FromString(node.SerializeToString())
        assert list(silent_inputs(node)) == list(node.input)
        silence(node)
        assert node == before
