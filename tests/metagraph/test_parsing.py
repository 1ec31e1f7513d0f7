"""Reading a `.meta` file, and what is found in it, against TensorFlow's own view."""

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import NODE, MetaGraphFile, add_description, read_meta_graph, take_description
from metagraph.opening import open_model
from tests.metagraph.made import refused
from tests.prediction import stock

v1 = tf.compat.v1


@pytest.fixture
def meta(tmp_path: Path) -> MetaGraphFile:
    """Of a checkpoint with a placeholder."""
    path = tmp_path / "m.v1 -- x-7"  # Dots, dashes and spaces are all part of real names.
    with stock.checkpoint(path):
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", [3, 1], use_resource=False)
        tf.matmul(x, w, name="net/y")
    return read_meta_graph(f"{path}.meta")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nett/y:0", "no tensor 'nett/y:0'; the nearest are net/y:0"),
        ("qqqqqqqqqqqqqqqqqqqqqqqqqq", "--list"),
        *((text, "has no tensor") for text in ("x:", "x:a", "^x", "a:0:0", "", ":0")),
    ],
)
def test_what_is_no_tensor_is_refused(meta: MetaGraphFile, text: str, message: str) -> None:
    assert meta.tensor_name("net/y") == meta.tensor_name("net/y:0") == "net/y:0"
    with refused(message):
        meta.tensor_name(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(22) + b"\x05\0\0\0X.npy", "a .npz of NumPy arrays"),
        (b"graph_def { node { name: 'a' op: 'NoOp' }", "bytes hold no graph: .*Expected"),
        (b"graph_def { nodes { } }", "no field named"),
        (b"just some text, and a good deal of it\n", "no graph"),
        (bytes(range(256)) * 9, "no graph"),
        (MetaGraphDef().SerializeToString() + b"\x0a\x00", "no graph"),
    ],
)
def test_what_is_no_meta_graph_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.meta"
    path.write_bytes(content)
    with refused(f"m.meta is no meta graph: .*{message}"):
        read_meta_graph(str(path))


@pytest.mark.parametrize("name", ["x", "", "a:0", "^a", "a b", "a\n"])
def test_a_name_that_is_taken_or_that_no_node_can_have_is_damage(
    meta: MetaGraphFile, name: str
) -> None:
    meta.proto.graph_def.node.add(name=name, op="NoOp")
    with refused(r"is damaged: (two of its nodes have the same|.* is no) name"):
        meta.tensor_name("x")


def _bytes_field(number: int, content: bytes) -> bytes:
    size, encoded = len(content), b""
    while size >= 0x80:
        encoded += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([size]) + content


def _nested_functions(depth: int) -> bytes:
    """A meta graph whose one node has an attribute that names a function with an attribute..."""
    attribute = b""
    for _ in range(depth):
        entry = _bytes_field(1, b"f") + _bytes_field(2, _bytes_field(10, attribute))
        attribute = _bytes_field(2, entry)
    node = _bytes_field(1, b"n") + _bytes_field(2, b"NoOp")
    node += _bytes_field(5, _bytes_field(1, b"f") + _bytes_field(2, _bytes_field(10, attribute)))
    return _bytes_field(2, _bytes_field(1, node))


def test_absurd_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    path.write_bytes(_nested_functions(20))
    assert read_meta_graph(str(path)).nodes["n"].attr["f"].func.attr["f"].WhichOneof("value")
    for depth in (50, 60, 5000):
        attribute = "attr { key: 'f' value { func { " * depth + "} } } " * depth
        text = f"graph_def {{ node {{ name: 'n' op: 'NoOp' {attribute} }} }}"
        path.write_bytes(_nested_functions(depth))
        with refused("nested more than 100 deep"):
            read_meta_graph(str(path))
        path.write_text(text)
        with refused("nested"):
            read_meta_graph(str(path))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    node = _bytes_field(1, b"\xff\xfe") + _bytes_field(2, b"NoOp")
    (tmp_path / "m.meta").write_bytes(_bytes_field(2, _bytes_field(1, node)))
    with refused("a name in it is no UTF-8"):
        read_meta_graph(f"{tmp_path}/m.meta")


# What a graph says of its model, in a file that any client reads as a graph.


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


def test_a_graph_may_have_a_node_of_its_name() -> None:
    meta = _described()
    meta.graph_def.node.add(name=NODE, op="NoOp")
    add_description(meta)
    assert [node.name for node in meta.graph_def.node] == ["x", NODE, f"{NODE}_"]
    assert take_description(meta.graph_def).signature_def == meta.signature_def
    assert [node.name for node in meta.graph_def.node] == ["x", NODE]


def _const(*contents: bytes) -> GraphDef:
    graph = GraphDef()
    node = graph.node.add(name=NODE, op="Const")
    node.attr["value"].tensor.string_val.extend(contents)
    return graph


@pytest.mark.parametrize("contents", [[], [b"no message"], [b"\x0a\xff\xff"]])
def test_what_only_looks_like_one_stays(contents: list[bytes]) -> None:
    graph = _const(*contents)
    assert take_description(graph) == MetaGraphDef()
    assert [node.name for node in graph.node] == [NODE]


def test_no_graph_comes_in_by_it() -> None:
    """What is checked and run is the file's graph alone."""
    hostile = _described()
    hostile.saver_def.restore_op_name = "evil"
    hostile.meta_info_def.stripped_op_list.op.add(name="Evil")
    found = take_description(_const(hostile.SerializeToString()))
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
    of_a_part = _two_nodes(("a/b", "a/c"))  # Its description is not that of the graph.
    assert take_description(of_a_part) == MetaGraphDef()
    assert len(of_a_part.node) == 3
