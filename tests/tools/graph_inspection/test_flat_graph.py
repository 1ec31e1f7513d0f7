"""A graph with its calls written out has the static shapes that the calls have when they run."""

import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from errors import CheckpointError
from tests.tools.graph_inspection.graphs import meta_of, variable
from tools import flat_graph
from tools.flat_graph import FlatGraph, static_graph

v1 = tf.compat.v1


def _called() -> None:
    """Functions in functions, several results, a variable as an argument."""
    w = variable("w", [4, 2])

    @tf.function  # type: ignore[untyped-decorator]
    def inner(x: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return tf.matmul(x, w, name="product"), tf.split(x, 2, 1)

    @tf.function  # type: ignore[untyped-decorator]
    def outer(x: tf.Tensor) -> tf.Tensor:
        product, halves = inner(x)
        return tf.concat([product, halves[1]], 1)

    with v1.name_scope("scope"):
        tf.identity(outer(v1.placeholder(tf.float32, [3, 4])), name="y")


def _chosen() -> None:
    x = v1.placeholder(tf.float32, [3, 4], "x")
    y = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ tf.ones([4, 5]), lambda: tf.ones([3, 5]))
    tf.identity(y, name="y")


def test_shapes_come_through_calls() -> None:
    static = static_graph(meta_of(_called), ["scope/y:0"], None)
    assert static.problem == ""
    assert static.tensor("scope/y") == ("float32", [3, 4])
    (product,) = (n for n, o in static.flat.origins.items() if o.node == "product")
    assert static.tensor(product) == ("float32", [3, 2])
    origin = static.flat.origins[product]
    assert origin.root == "scope/StatefulPartitionedCall"
    assert origin.path == "scope/product"
    assert "inner" in origin.function


def test_both_branches_are_there() -> None:
    static = static_graph(meta_of(_chosen), ["y:0"], None)
    assert static.tensor("y") == ("float32", [3, 5])
    functions = {origin.function for origin in static.flat.origins.values()} - {""}
    assert len(functions) == 2


def test_every_node_of_the_graph_and_its_functions_is_there() -> None:
    meta = meta_of(_called)
    origins = static_graph(meta, [], None).flat.origins.values()
    assert {origin.node for origin in origins if not origin.function} == set(meta.nodes)
    bodies = [node for f in meta.proto.graph_def.library.function for node in f.node_def]
    assert {node.name for node in bodies} == {o.node for o in origins if o.function}


@pytest.mark.parametrize("calls", [1, 2])
def test_functions_without_end_are_refused(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_graph, "MAX_NODES", 10_000)
    graph_def = GraphDef()
    function = graph_def.library.function.add()
    function.signature.name = "f"
    for number in range(calls):
        node = function.node_def.add(name=f"again{number}", op="PartitionedCall")
        node.attr["f"].func.name = "f"
    graph_def.node.add(name="call", op="PartitionedCall").attr["f"].func.name = "f"
    with pytest.raises(CheckpointError, match="unfold to more than 10000 nodes, or go more than"):
        FlatGraph(graph_def)


def test_a_call_that_does_not_fit_is_refused() -> None:
    graph_def = GraphDef()
    function = graph_def.library.function.add()
    function.signature.name = "f"
    function.signature.input_arg.add(name="x", type=1)
    graph_def.node.add(name="call", op="PartitionedCall").attr["f"].func.name = "f"
    with pytest.raises(CheckpointError, match="call calls the function f with 0 arguments, which"):
        FlatGraph(graph_def)


def test_a_function_that_cannot_be_written_out_stays_a_call() -> None:
    meta = meta_of(_called)
    for function in meta.proto.graph_def.library.function:
        if "inner" in function.signature.name:
            del function.signature.input_arg[:]
    static = static_graph(meta, ["scope/y:0"], None)
    assert "arguments, which takes 0" in static.problem
    assert "scope/StatefulPartitionedCall" in static.flat.origins
