"""Reading a `.meta` file, and what is found in it, against TensorFlow's own view."""

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.errors import CheckpointError
from checkpoints.meta_graph_file import MetaGraphFile, read_meta_graph
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


def test_placeholders_are_the_models_and_not_the_savers(meta: MetaGraphFile) -> None:
    assert "save/filename" in meta.nodes
    assert meta.placeholders() == ("x:0", "drop/rate:0")


def test_placeholders_beside_a_saver_of_another_name(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m", name="outer/saver"):
        v1.placeholder(tf.float32, name="x")
        v1.get_variable("w", [1], use_resource=False)
    assert read_meta_graph(f"{tmp_path}/m.meta").placeholders() == ("x:0",)


def test_absent_collections_and_signatures_are_empty(meta: MetaGraphFile) -> None:
    assert list(meta.collection("predict").node_list.value) == ["net/y:0"]
    assert not meta.collection("nothing").ListFields()
    assert not meta.signature.ListFields()
    assert "nothing" not in meta.proto.collection_def  # Looking adds no entry.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
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
    with pytest.raises(CheckpointError, match=r"f\.meta cannot be read"):
        read_meta_graph(f"{tmp_path}/f.meta")


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_another_file_of_the_checkpoint_is_told_apart(suffix: str) -> None:
    with pytest.raises(CheckpointError, match=r"expected one such as model/m-3\.meta$"):
        read_meta_graph(f"model/m-3{suffix}")


def test_two_nodes_of_one_name_are_damage(prefix: Path) -> None:
    path = Path(f"{prefix}.meta")
    stock.edit_meta(path, lambda proto: proto.graph_def.node.append(proto.graph_def.node[0]))
    with pytest.raises(CheckpointError, match="damaged"):
        read_meta_graph(str(path)).tensor_name("x")
