"""Looking back through a graph and its functions, hostile ones included."""

from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.graph import View, source, views
from metagraph.meta import MetaGraphFile


def _function(proto: MetaGraphDef, name: str, calls: list[str], wanted: bool = False) -> None:
    function = proto.graph_def.library.function.add()
    function.signature.name = name
    function.signature.input_arg.add(name="handle")
    for number, other in enumerate(calls):
        function.node_def.add(name=f"call{number}", op=other, input=["handle"])
    if wanted:
        function.node_def.add(name="copy", op="Identity", input=["handle"])
        function.node_def.add(name="found", op="Wanted", input=["copy:output:0"])


def _found(proto: MetaGraphDef) -> list[View]:
    return list(views(MetaGraphFile("m.meta", "m", proto), {"Wanted"}))


def test_arguments_are_seen_through_at_any_depth() -> None:
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="table", op="HashTableV2")
    proto.graph_def.node.add(name="init", op="outer", input=["table", "^table"])
    _function(proto, "outer", ["inner"])
    _function(proto, "inner", [], wanted=True)
    _function(proto, "other", [])
    graph, outer, inner = _found(proto)
    assert (graph.root, outer.root, inner.root) == (None, "init", "init")
    found = source(inner, inner.nodes["found"].input[0])
    assert found is not None
    assert (found.name, found.node.op, found.reshaped) == ("table:0", "HashTableV2", False)


def test_functions_without_what_is_wanted_are_left_out() -> None:
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="call", op="other", input=["call"])
    _function(proto, "other", [])
    assert len(_found(proto)) == 1


def test_calls_that_multiply_or_recur_end() -> None:
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="call", op="f0", input=["call"])
    for depth in range(40):
        _function(proto, f"f{depth}", [f"f{depth + 1}"] * 10)
    _function(proto, "f40", ["f40", "f0"], wanted=True)
    assert len(_found(proto)) <= 1000


def test_endless_chains_end() -> None:
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="a", op="Identity", input=["b"])
    proto.graph_def.node.add(name="b", op="Reshape", input=["a", "a"])
    proto.graph_def.node.add(name="c", op="Const")
    (graph,) = _found(proto)
    assert source(graph, "a") is None
    assert source(graph, "gone") is None
    assert source(graph, "c:x") is None
    assert source(graph, "c:999999999999") is None
