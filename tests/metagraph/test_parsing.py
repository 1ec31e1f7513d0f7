"""Reading a `.meta` file, and what is found in it, against TensorFlow's own view."""

import os
import pickle
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError
from metagraph.meta import MetaGraphFile, read_meta_graph
from tests.prediction import stock

v1 = tf.compat.v1


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A checkpoint with a few placeholders."""
    path = tmp_path / "m.v1 -- x-7"  # Dots, dashes and spaces are all part of real names.
    with stock.checkpoint(path):
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        rate = v1.placeholder_with_default(0.5, [], name="drop/rate")
        w = v1.get_variable("w", [3, 1], use_resource=False)
        y = tf.matmul(x * rate, w, name="net/y")
        v1.add_to_collection("predict", y)
    return path


@pytest.fixture
def meta(prefix: Path) -> MetaGraphFile:
    return read_meta_graph(f"{prefix}.meta")


def test_the_prefix_is_that_of_the_file(meta: MetaGraphFile, prefix: Path) -> None:
    assert meta.prefix == str(prefix)
    assert meta.path == f"{prefix}.meta"


def test_nodes_are_those_of_the_graph(meta: MetaGraphFile) -> None:
    with tf.Graph().as_default() as graph:
        v1.train.import_meta_graph(meta.path)
    assert list(meta.nodes) == [operation.name for operation in graph.get_operations()]


def test_an_operation_means_its_first_output(meta: MetaGraphFile) -> None:
    assert meta.tensor_name("net/y") == "net/y:0"
    assert meta.tensor_name("net/y:0") == "net/y:0"
    assert meta.find_tensor("net/z") is None


def test_an_unknown_name_gives_the_nearest(meta: MetaGraphFile) -> None:
    with pytest.raises(CheckpointError, match=r"no tensor 'nett/y:0'; the nearest are net/y:0"):
        meta.tensor_name("nett/y:0")
    with pytest.raises(CheckpointError, match="--list"):
        meta.tensor_name("qqqqqqqqqqqqqqqqqqqqqqqqqq")


@pytest.mark.parametrize("text", ["x:", "x:a", "^x", "a:0:0", "", ":0"])
def test_what_is_no_tensor_name_is_refused(meta: MetaGraphFile, text: str) -> None:
    with pytest.raises(CheckpointError, match="has no tensor"):
        meta.tensor_name(text)


def test_absent_collections_are_empty(meta: MetaGraphFile) -> None:
    assert list(meta.collection("predict").node_list.value) == ["net/y:0"]
    assert not meta.collection("nothing").ListFields()
    assert "nothing" not in meta.proto.collection_def  # Looking adds no entry.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(22) + b"\x05\0\0\0X.npy", "a .npz of NumPy arrays"),
        (pickle.dumps({"w": 1}), "a Python pickle"),
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
    with pytest.raises(CheckpointError, match=f"m.meta is no meta graph: .*{message}") as caught:
        read_meta_graph(str(path))
    assert "\n" not in str(caught.value)


def test_a_weights_file_is_no_meta_graph(prefix: Path, tmp_path: Path) -> None:
    data = Path(f"{prefix}.data-00000-of-00001").read_bytes()
    (tmp_path / "d.meta").write_bytes(data)
    with pytest.raises(CheckpointError, match="no meta graph"):
        read_meta_graph(f"{tmp_path}/d.meta")


def test_a_missing_file_or_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*/m\.meta"):
        read_meta_graph(f"{tmp_path}/m.meta")
    (tmp_path / "f.meta").mkdir()
    with pytest.raises(CheckpointError, match=r"f\.meta cannot be read: it is no regular file"):
        read_meta_graph(f"{tmp_path}/f.meta")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.meta")
    with pytest.raises(CheckpointError, match="no regular file"):
        read_meta_graph(f"{tmp_path}/m.meta")


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "m.meta").open("wb") as file:
        file.truncate(1 << 40)  # A hole: it takes no room.
    with pytest.raises(
        CheckpointError, match=r"1,048,576\.0 MiB.*limit of 512\.0 MiB; --max_meta_mb"
    ):
        read_meta_graph(f"{tmp_path}/m.meta")


def test_the_limit_is_on_the_bytes(prefix: Path) -> None:
    size = os.path.getsize(f"{prefix}.meta")
    assert read_meta_graph(f"{prefix}.meta", size).nodes
    with pytest.raises(CheckpointError, match="more than the limit"):
        read_meta_graph(f"{prefix}.meta", size - 1)


def test_text_is_read_as_well(prefix: Path, meta: MetaGraphFile) -> None:
    Path(f"{prefix}.meta").write_text(text_format.MessageToString(meta.proto))
    assert read_meta_graph(f"{prefix}.meta").proto == meta.proto


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_another_file_of_the_checkpoint_is_told_apart(suffix: str) -> None:
    with pytest.raises(CheckpointError, match=r"expected one such as model/m-3\.meta$"):
        read_meta_graph(f"model/m-3{suffix}")


def test_two_nodes_of_one_name_are_damage(prefix: Path) -> None:
    path = Path(f"{prefix}.meta")
    stock.edit_meta(path, lambda proto: proto.graph_def.node.append(proto.graph_def.node[0]))
    with pytest.raises(CheckpointError, match="damaged"):
        read_meta_graph(str(path)).tensor_name("x")


@pytest.mark.parametrize("name", ["", "a:0", "^a", "a b", "a\n"])
def test_a_name_that_no_node_can_have_is_damage(prefix: Path, name: str) -> None:
    path = Path(f"{prefix}.meta")
    stock.edit_meta(path, lambda proto: proto.graph_def.node.add(name=name, op="NoOp"))
    with pytest.raises(CheckpointError, match=r"is damaged: .* is no name of a node") as caught:
        read_meta_graph(str(path)).tensor_name("x")
    assert "\n" not in str(caught.value)


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
    for depth in (50, 5000):
        path.write_bytes(_nested_functions(depth))
        with pytest.raises(CheckpointError, match="nested more than 100 deep"):
            read_meta_graph(str(path))


@pytest.mark.parametrize("depth", [60, 5000])
def test_absurd_nesting_in_a_text_is_refused(tmp_path: Path, depth: int) -> None:
    attribute = "attr { key: 'f' value { func { " * depth + "} } } " * depth
    text = f"graph_def {{ node {{ name: 'n' op: 'NoOp' {attribute} }} }}"
    (tmp_path / "m.meta").write_text(text)
    with pytest.raises(CheckpointError, match="nested"):
        read_meta_graph(f"{tmp_path}/m.meta")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    node = _bytes_field(1, b"\xff\xfe") + _bytes_field(2, b"NoOp")
    (tmp_path / "m.meta").write_bytes(_bytes_field(2, _bytes_field(1, node)))
    with pytest.raises(CheckpointError, match="a name in it is no UTF-8"):
        read_meta_graph(f"{tmp_path}/m.meta")
