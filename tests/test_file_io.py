"""Reading up to a limit, and telling a file by its first bytes."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import file_io
from errors import CheckpointError, UserError
from file_io import check_fetched, kind_of, read_bounded, read_head


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "f").write_bytes(bytes(range(100)))
    return f"{tmp_path}/f"


def test_up_to_the_limit_it_is_read(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent file is an error, or has no head."""
    assert read_bounded(path, 100) == bytes(range(100))
    assert read_head(path, 3) == b"\0\1\2"
    assert read_head(path, 300) == bytes(range(100))
    with pytest.raises(CheckpointError, match="more than the limit"):
        read_bounded(path, 99)
    with pytest.raises(CheckpointError, match="there is no file"):
        read_bounded(f"{path}.absent", 9)
    assert read_head(f"{path}.absent", 9) == b""
    Path(f"{path}.empty").touch()
    assert read_bounded(f"{path}.empty", 9) == b""
    monkeypatch.setattr(tf.io.gfile, "stat", lambda _: SimpleNamespace(length=10))  # It grows.
    with pytest.raises(CheckpointError, match="more than the limit"):
        read_bounded(path, 50)


@pytest.mark.parametrize("link", ["/dev/zero", "/dev/stdin", "."])
def test_what_is_no_file_is_not_opened(tmp_path: Path, link: str) -> None:
    (tmp_path / "f").symlink_to(link)
    with pytest.raises(CheckpointError, match="no regular file"):
        read_bounded(f"{tmp_path}/f", 9)
    assert read_head(f"{tmp_path}/f", 9) == b""


def test_a_pointer_is_told_and_nothing_else(path: str) -> None:
    check_fetched(path + "nowhere")
    for content in (b"", b"\x80\x04", b"version https"):  # Values may begin in any way.
        Path(path).write_bytes(content)
        check_fetched(path)
    Path(path).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        check_fetched(path)


@pytest.mark.parametrize("scheme", ["s3", "hdfs", "https", "abfs"])
def test_a_file_system_that_is_not_there_is_named(scheme: str) -> None:
    """Whatever is asked first, with what copies its files; those that are there are used."""
    path = f"{scheme}://bucket/f"
    mend = rf"^{path}: TensorFlow has no file system {scheme}:// here; copy it to a disk first"
    for name in [
        "exists",
        "is_folder",
        "stat",
        "listed",
        "content_of",
        "names_in",
        "matching",
        "make_folder",
    ]:
        with pytest.raises(UserError, match=mend):
            getattr(file_io, name)(path)
    file_io.write_file("ram://bucket/f", b"x")
    assert file_io.matching("ram://bucket/?") == ["ram://bucket/f"]


def _written(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _zip(first: str) -> bytes:
    return _written(lambda file: zipfile.ZipFile(file, "w").writestr(first, "{}"))


def _tar(file: io.BytesIO) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model/m.meta"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b'model_checkpoint_path: "my-model-200"\n', "a state file; name the folder"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n" + bytes(8), "HDF5"),
        (b"\x1c\0\0\0TFL3" + bytes(8), "TensorFlow Lite"),
        (_written(lambda file: np.save(file, np.arange(3))), "NumPy array"),
        (_written(lambda file: np.savez(file, x=np.arange(3))), ".npz"),
        (_zip("archive/data.pkl"), "PyTorch"),
        (_zip("metadata.json"), ".keras"),
        (_zip("a.txt"), "zip archive; unpack it first"),
        (gzip.compress(b"x"), "gzip"),
        (bz2.compress(b"x"), "bzip2"),
        (lzma.compress(b"x"), "xz"),
        (_written(_tar), "tar archive; unpack it first"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(8), "7z archive; unpack it first"),
        (_written(lambda file: Image.new("RGB", (2, 2)).save(file, "PNG")), "image"),
        (_written(lambda file: Image.new("RGB", (2, 2)).save(file, "JPEG")), "image"),
        (json.dumps({"a": [1]}).encode(), "JSON"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        *((pickle.dumps({"w": [1]}, protocol), "pickle") for protocol in (2, 3, 4, 5)),
    ],
)
def test_known_kinds(content: bytes, kind: str) -> None:
    assert kind in (kind_of(content) or "")


def test_models_are_none_of_them() -> None:
    graph = GraphDef()
    graph.node.add(name="x", op="Placeholder")
    meta = MetaGraphDef(graph_def=graph)
    meta.meta_info_def.tags.append("serve")
    saved_model = SavedModel(saved_model_schema_version=1, meta_graphs=[meta])
    for message in (graph, meta, saved_model):
        assert kind_of(message.SerializeToString()) is None
        assert kind_of(str(message).encode()) is None
