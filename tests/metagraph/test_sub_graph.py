"""Cutting a graph, told on small graphs whose parts are known."""

from collections.abc import Callable

import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError
from metagraph.graph import SubGraph, nodes_by_op, reachable, sub_graph
from metagraph.meta import MetaGraphFile

v1 = tf.compat.v1

Cut = Callable[..., SubGraph]


@pytest.fixture
def graph() -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, [None], name="x")
        left, right = tf.unstack(tf.stack([x, x], name="both"), name="halves")
        with tf.control_dependencies([left]):
            tf.add(right, 1.0, name="y")
        tf.negative(left, name="other")
    return graph


@pytest.fixture
def cut(graph: tf.Graph) -> Cut:
    """`sub_graph` of the graph as it is when it is called."""
    return lambda *arguments: sub_graph(_meta(graph), *arguments)


def _meta(graph: tf.Graph) -> MetaGraphFile:
    return MetaGraphFile("m.meta", "m", MetaGraphDef(graph_def=graph.as_graph_def()))


def _names(part: SubGraph) -> set[str]:
    return {node.name for node in part.graph_def.node}


def test_all_that_is_needed_stays_and_nothing_else(cut: Cut) -> None:
    part = cut(["y:0"])
    assert _names(part) == {"x", "both", "halves", "y/y", "y"}
    assert part.unfed == ("x:0",)
    assert part.feeds == frozenset()


def test_a_fed_tensor_ends_the_walk(cut: Cut) -> None:
    part = cut(["other:0"], ["both:0"])
    assert _names(part) == {"other", "halves"}
    assert part.feeds == {"both:0"}
    assert part.unfed == ()


def test_a_fed_node_is_not_waited_for(cut: Cut) -> None:
    part = cut(["y:0"], ["halves:0", "halves:1"])
    assert _names(part) == {"y/y", "y"}
    assert part.feeds == {"halves:1"}  # halves:0 was only waited for.
    (y,) = (node for node in part.graph_def.node if node.name == "y")
    assert list(y.input) == ["halves:1", "y/y"]


def test_a_node_that_is_fed_in_part_stays(cut: Cut) -> None:
    part = cut(["y:0", "other:0"], ["halves:1"])
    assert _names(part) == {"x", "both", "halves", "y/y", "y", "other"}
    assert part.feeds == {"halves:1"}


def test_a_fetch_that_is_fed_needs_nothing(cut: Cut) -> None:
    assert not cut(["x:0"], ["x:0"]).graph_def.node


def test_loops_end(cut: Cut, graph: tf.Graph) -> None:
    with graph.as_default():
        v1.disable_control_flow_v2()
        try:
            count = v1.while_loop(lambda i: i < 3, lambda i: i + 1, [tf.constant(0)], name="loop")
        finally:
            v1.enable_control_flow_v2()
    assert "loop/NextIteration" in _names(cut([count.name]))


def test_functions_that_are_called_come_along_through_other_functions() -> None:
    def inner(x: tf.Tensor) -> tf.Tensor:
        return x + 1.0

    def outer(x: tf.Tensor) -> tf.Tensor:
        return tf.function(inner)(x) * 2.0

    def unused(x: tf.Tensor) -> tf.Tensor:
        return x - 1.0

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        tf.identity(tf.function(outer)(x), name="y")
        tf.identity(tf.function(unused)(x), name="z")
    part = sub_graph(_meta(graph), ["y:0"])
    names = (function.signature.name for function in part.graph_def.library.function)
    assert sorted(name.removeprefix("__inference_")[:5] for name in names) == ["inner", "outer"]


def test_what_ties_a_node_to_its_origin_is_dropped(graph: tf.Graph) -> None:
    with graph.as_default(), tf.device("/job:ps/task:3"):
        x = graph.get_tensor_by_name("x:0")
        with v1.colocate_with(x):
            tf.negative(x, name="pinned")
    meta = _meta(graph)
    for node in meta.proto.graph_def.node:
        node.attr["_output_shapes"].list.shape.add()
    part = sub_graph(meta, ["pinned:0"])
    nodes = {node.name: node for node in part.graph_def.node}
    assert [node.device for node in nodes.values()] == ["", ""]
    assert not {"_class", "_output_shapes"} & set(nodes["pinned"].attr)
    assert "_output_shapes" in nodes["x"].attr  # An old placeholder's shape is only there.


def test_an_input_that_does_not_exist_is_damage(graph: tf.Graph) -> None:
    meta = _meta(graph)
    meta.nodes["other"].input[0] = "gone:0"
    with pytest.raises(CheckpointError, match=r"m\.meta is damaged: other has an unknown input"):
        sub_graph(meta, ["other:0"])


def test_the_file_is_not_changed(graph: tf.Graph) -> None:
    meta = _meta(graph)
    before = meta.proto.SerializeToString(deterministic=True)
    sub_graph(meta, ["y:0"], ["halves:0"])
    assert meta.proto.SerializeToString(deterministic=True) == before


def _chain(length: int, first_input: str) -> MetaGraphFile:
    proto = MetaGraphDef()
    for number in range(length):
        text = f"n{number - 1}" if number else first_input
        proto.graph_def.node.add(name=f"n{number}", op="Identity", input=[text])
    return MetaGraphFile("m.meta", "m", proto)


@pytest.mark.parametrize("first_input", ["n49999", "n0", "^n7", "n25000:3"])
def test_long_cycles_that_no_tensorflow_has_made_end(first_input: str) -> None:
    meta = _chain(50_000, first_input)
    part = sub_graph(meta, ["n49999:0"], ["n10:1"])
    assert len(part.names) == len(part.graph_def.node) == 50_000
    assert reachable(meta, ["n49999"]) == part.names


def test_what_is_reachable_leaves_out_what_does_not_exist() -> None:
    assert reachable(_chain(3, "gone"), ["n1", "neither"]) == {"n0", "n1"}


def test_recursive_functions_end() -> None:
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="y", op="f")
    for name, other in (("f", "g"), ("g", "f")):
        function = proto.graph_def.library.function.add()
        function.signature.name = name
        function.node_def.add(name="call", op=other)
    part = sub_graph(MetaGraphFile("m.meta", "m", proto), ["y:0"])
    assert {f.signature.name for f in part.graph_def.library.function} == {"f", "g"}


def test_nodes_are_found_by_their_operation_in_functions_too() -> None:
    graph_def = GraphDef()
    graph_def.node.add(name="a", op="RandomUniform")
    graph_def.node.add(name="b", op="Add")
    function = graph_def.library.function.add()
    function.signature.name = "f"
    function.node_def.add(name="c", op="RandomUniform")
    assert nodes_by_op(graph_def) == {"RandomUniform": ["a", "f/c"], "Add": ["b"]}
