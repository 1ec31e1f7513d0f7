"""What a graph says of its model, in a file that any client reads as a graph."""

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.opening import open_model
from metagraph.parsing import NODE, add_description, take_description


def _described() -> MetaGraphDef:
    meta = MetaGraphDef()
    meta.graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    meta.signature_def["serving_default"].inputs["x"].name = "x:0"
    meta.collection_def["class_names"].bytes_list.value.extend([b"cat", b"\xff"])
    return meta


def test_it_is_read_as_it_was_and_its_node_is_gone(tmp_path: Path) -> None:
    meta = _described()
    add_description(meta)
    (tmp_path / "m.pb").write_bytes(meta.graph_def.SerializeToString())
    assert open_model(f"{tmp_path}/m.pb").proto == _described()


def test_a_stock_client_reads_the_file_as_a_graph() -> None:
    meta = _described()
    add_description(meta)
    graph_def = tf.compat.v1.GraphDef.FromString(meta.graph_def.SerializeToString())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="in")
        assert [op.name for op in graph.get_operations()] == ["in/x", f"in/{NODE}"]
        exported = graph.as_graph_def()
    exported.node[1].name = NODE
    assert take_description(exported).signature_def == _described().signature_def


def test_another_one_takes_its_place() -> None:
    meta = _described()
    add_description(meta)
    meta.collection_def.clear()
    add_description(meta)
    assert len(meta.graph_def.node) == 2
    assert not take_description(meta.graph_def).collection_def


def test_a_graph_may_have_a_node_of_its_name() -> None:
    meta = _described()
    meta.graph_def.node.add(name=NODE, op="NoOp")
    add_description(meta)
    assert [node.name for node in meta.graph_def.node] == ["x", NODE, f"{NODE}_"]
    assert take_description(meta.graph_def).signature_def == meta.signature_def
    assert [node.name for node in meta.graph_def.node] == ["x", NODE]


@pytest.mark.parametrize("content", [b"", b"no message", b"\x0a\xff\xff"])
def test_what_only_looks_like_one_stays(content: bytes) -> None:
    graph = GraphDef()
    node = graph.node.add(name=NODE, op="Const")
    if content:
        node.attr["value"].tensor.string_val.append(content)
    assert take_description(graph) == MetaGraphDef()
    assert [node.name for node in graph.node] == [NODE]


def test_no_graph_comes_in_by_it() -> None:
    """What is checked and run is the file's graph alone."""
    hostile = _described()
    hostile.saver_def.restore_op_name = "evil"
    hostile.meta_info_def.stripped_op_list.op.add(name="Evil")
    graph = GraphDef()
    node = graph.node.add(name=NODE, op="Const")
    node.attr["value"].tensor.string_val.append(hostile.SerializeToString())
    found = take_description(graph)
    assert {field.name for field, _ in found.ListFields()} == {"signature_def", "collection_def"}


def _two_nodes(scopes: tuple[str, str]) -> GraphDef:
    """A described graph, imported under a name; and a node of another scope."""
    meta = _described()
    meta.collection_def["predict"].node_list.value.append("x:0")
    add_description(meta)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(meta.graph_def, name=scopes[0])
        tf.constant(1.0, name=f"{scopes[1]}/other")
        return graph.as_graph_def()


def test_its_names_are_those_of_a_graph_that_was_imported_under_a_name() -> None:
    graph = _two_nodes(("a/b", "a/b"))
    found = take_description(graph)
    assert found.signature_def["serving_default"].inputs["x"].name == "a/b/x:0"
    assert [*found.collection_def["predict"].node_list.value] == ["a/b/x:0"]
    assert found.collection_def["class_names"] == _described().collection_def["class_names"]
    assert [node.name for node in graph.node] == ["a/b/x", "a/b/other"]


def test_that_of_a_part_is_not_that_of_the_graph() -> None:
    graph = _two_nodes(("a/b", "a/c"))
    assert take_description(graph) == MetaGraphDef()
    assert len(graph.node) == 3
