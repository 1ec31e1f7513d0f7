"""Whatever a person points at, against what it stands for; and what is said where it is nothing."""

import gzip
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpoints.folder import find_variables
from metagraph.meta import read_signatures
from metagraph.opening import find_model, open_model
from tests.metagraph.made import refused, run
from tests.prediction import stock

v1 = tf.compat.v1

X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
INDEX, DATA = ".index", ".data-00000-of-00001"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"


def _build() -> None:
    x = v1.placeholder(tf.float32, [None, 2], name="x")
    w = v1.get_variable("w", initializer=np.array([[2], [3]], np.float32), use_resource=False)
    tf.matmul(x, w, name="y")


def _save(prefix: Path, **options: Any) -> Path:
    with stock.checkpoint(prefix, **options):
        _build()
    return prefix


def _predicted(path: object) -> Any:
    return run(open_model(str(path)), ["y:0"], {"x:0": X})[0].tolist()


EXPECTED = [[8.0], [18.0], [28.0]]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("model") / "my-model-190")


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GraphDef whose variable is a constant, in binary."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        tf.matmul(x, tf.constant([[2.0], [3.0]]), name="y")
    path = tmp_path_factory.mktemp("frozen") / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As TF1 writes them."""
    path = tmp_path_factory.mktemp("tf1") / "saved"
    with tf.Graph().as_default() as graph, v1.Session() as session:
        _build()
        session.run(v1.global_variables_initializer())
        tensors = [{name: graph.get_tensor_by_name(f"{name}:0")} for name in "xy"]
        signature = v1.saved_model.predict_signature_def(*tensors)
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["train"])
        builder.add_meta_graph(["serve"], signature_def_map={"serving_default": signature})
        builder.save()
    return path


@pytest.mark.parametrize("suffix", ["", ".meta", INDEX, DATA])
def test_each_file_of_a_checkpoint_stands_for_it(prefix: Path, suffix: str) -> None:
    meta = open_model(f"{prefix}{suffix}")
    assert (meta.path, meta.prefix) == (f"{prefix}.meta", str(prefix))
    assert _predicted(f"{prefix}{suffix}") == EXPECTED


@pytest.mark.parametrize("base", ["", "model.ckpt", "a b", "x--1.v2", "checkpoint"])
def test_a_strangers_folder_with_one_checkpoint(tmp_path: Path, base: str) -> None:
    _save(tmp_path / "m")
    for path in list(tmp_path.glob("m.*")):
        path.rename(tmp_path / path.name.replace("m", base, 1))
    assert open_model(str(tmp_path)).path == f"{tmp_path}/{base}.meta"
    assert _predicted(tmp_path) == EXPECTED
    assert _predicted(tmp_path / f"{base}.index") == EXPECTED


def test_v1_files_stand_for_their_checkpoint(tmp_path: Path) -> None:
    _touch(tmp_path, "export", "export.meta")
    for name in ("export", "export-00000-of-00001"):
        assert find_model(f"{tmp_path}/{name}") == f"{tmp_path}/export.meta"


@pytest.mark.parametrize(
    "state", ['model_checkpoint_path: "/other/machine/a-3"', "", "\0", None], ids=repr
)
def test_the_state_file_chooses_among_what_is_there(tmp_path: Path, state: str | None) -> None:
    _touch(tmp_path, "a-1.meta", "a-2.meta", "b.meta")
    (tmp_path / "checkpoint").write_text(r'model_checkpoint_path: "D:\\run\\a-2"')
    assert find_model(str(tmp_path)) == f"{tmp_path}/a-2.meta"
    (tmp_path / "checkpoint").unlink()
    if state is None:
        (tmp_path / "checkpoint").mkdir()
    else:
        (tmp_path / "checkpoint").write_text(state)
    with refused(r"holds several graphs; name one: a-2\.meta, b\.meta$"):
        find_model(str(tmp_path))


def test_newer_variables_without_a_graph_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a saver leaves them that writes its graph only once."""
    caplog.set_level("WARNING", logger="absl")
    _touch(tmp_path, "ckpt-7.meta", "ckpt-7.index")
    find_model(str(tmp_path))
    assert not caplog.text
    _touch(tmp_path, "ckpt-1000.index")
    assert find_model(str(tmp_path)) == f"{tmp_path}/ckpt-7.meta"
    assert "ckpt-7.meta is read; of ckpt-1000 there is no .meta" in caplog.text
    assert f"--ckpt={tmp_path}/ckpt-1000 reads" in caplog.text
    caplog.clear()
    find_model(str(tmp_path), warn=False)
    assert not caplog.text


def test_a_frozen_graph(frozen: Path) -> None:
    assert _predicted(frozen) == EXPECTED
    assert _predicted(frozen.parent) == EXPECTED
    assert not read_signatures(open_model(str(frozen)))


def test_a_meta_graph_called_pb(prefix: Path, tmp_path: Path) -> None:
    content = Path(f"{prefix}.meta").read_bytes()
    (tmp_path / "graph.pb").write_bytes(content)
    assert open_model(f"{tmp_path}/graph.pb").proto == MetaGraphDef.FromString(content)


def test_a_tf1_saved_model(saved_model: Path) -> None:
    for path in (saved_model, saved_model / "saved_model.pb"):
        assert _predicted(path) == EXPECTED
    meta = open_model(str(saved_model))
    assert meta.prefix == f"{saved_model}/variables/variables"
    assert read_signatures(meta)["serving_default"].outputs == {"y": "y:0"}


@pytest.mark.parametrize(
    ("held", "asked", "found"),
    [
        ("train;serve", None, "serve"),
        ("train;", None, ""),
        ("train;test", None, "test"),
        ("train,gpu;train;eval,gpu", None, "eval,gpu"),
        ("serve;serve,gpu;serve,tpu", None, "serve"),
        ("serve,tpu;serve,gpu", None, "serve,gpu"),
        ("train", None, "train"),
        ("serve;train", "train", "train"),
        ("serve;", "", ""),
        ("serve,tpu;train", "tpu,serve", "serve,tpu"),
        ("train;train,tpu", None, "for prediction alone: it has --tags=train, --tags=train,tpu$"),
        ("a;b", None, "for prediction alone: it has --tags=a, --tags=b$"),
        ("serve;", "train", "with --tags=train alone: it has --tags=serve, --tags=$"),
    ],
)
def test_a_graph_is_told_by_its_tags(
    held: str, asked: str | None, found: str, tmp_path: Path
) -> None:
    """Each graph has a node of the name of its tags; what is none of them is the error."""
    proto = SavedModel()
    for tags in held.split(";"):
        meta = proto.meta_graphs.add()
        meta.meta_info_def.tags.extend(filter(None, tags.split(",")))
        meta.graph_def.node.add(name=f"n{tags.replace(',', '_')}", op="NoOp")
    (tmp_path / "saved_model.pb").write_bytes(proto.SerializeToString())
    if found in held.split(";"):
        assert [*open_model(str(tmp_path), tags=asked).nodes] == [f"n{found.replace(',', '_')}"]
        return
    with refused(found):
        open_model(str(tmp_path), tags=asked)


def test_tags_of_what_has_one_graph_are_refused(prefix: Path, frozen: Path) -> None:
    for path in (prefix, frozen):
        with refused("--tags=serve: .* is no SavedModel, and has one graph$"):
            open_model(str(path), tags="serve")


def test_a_saved_model_without_a_graph(tmp_path: Path) -> None:
    content = SavedModel(saved_model_schema_version=1).SerializeToString()
    (tmp_path / "saved_model.pb").write_bytes(content)
    with refused("it holds no graph"):
        open_model(str(tmp_path))


@pytest.mark.parametrize("suffix", [".meta", INDEX, DATA])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>\n<html><title>404</title>", "it is a web page"),
        (gzip.compress(bytes(100)), "with gzip; unpack it first"),
    ],
    ids=["empty", "a web page", "compressed"],
)
def test_a_part_that_is_something_else(
    tmp_path: Path, suffix: str, content: bytes, what: str
) -> None:
    _save(tmp_path / "m")
    (tmp_path / f"m{suffix}").write_bytes(content)
    with refused(rf"m{re.escape(suffix)} .*{what}"):
        _predicted(tmp_path / "m")


@pytest.mark.parametrize("name", ["graph.pb", "graph.pbtxt", "saved_model.pb", "m.meta"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LFS, "Git LFS pointer; .*lfs pull`"),
        (b"", "it is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5"),
        (pickle.dumps({"w": [1.0]}), "pickle"),
        (b"\xff" * 99, "99 bytes"),
        (b"words", "5 bytes"),
        (b"<html></html>", "a web page"),
    ],
)
def test_something_else(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with refused(what):
        open_model(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    "name", ["model.h5", "model.keras", "weights.npz", "model", "model.tflite"]
)
def test_a_model_of_another_kind(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "x.npz", w=X)
    (tmp_path / "x.npz").rename(tmp_path / name)
    with refused(rf"{name} is no model: it is a \.npz"):
        open_model(f"{tmp_path}/{name}")
    if name != "weights.npz":
        with refused("holds no model"):
            open_model(str(tmp_path))


@pytest.mark.parametrize("name", ["frozen.pb", "saved_model.pb", "m.meta"])
def test_the_limit_is_for_all_kinds(frozen: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(frozen.read_bytes())
    with refused("more than the limit"):
        open_model(f"{tmp_path}/{name}", frozen.stat().st_size - 1)


# The variables of another checkpoint than the graph's own.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph saved once, and variables saved twice, in both formats; `w` is the step."""
    folder = tmp_path_factory.mktemp("trained")
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=np.float32(1), use_resource=False)
        savers = v1.train.Saver(), v1.train.Saver(write_version=v1.train.SaverDef.V1)
        session.run(w.initializer)
        savers[0].save(session, f"{folder}/ckpt", 1)
        session.run(w.assign(2))
        savers[0].save(session, f"{folder}/ckpt", 2, write_meta_graph=False)
        session.run(w.assign(3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(v1.logging, "warning", lambda *_: None)
            savers[1].save(session, f"{folder}/old", write_meta_graph=False)
    return folder


def _w(meta: Path, checkpoint: Path | str) -> Any:
    return run(open_model(str(meta), checkpoints=[str(checkpoint)]), ["w:0"])[0].tolist()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ckpt-1", 1),
        ("ckpt-2", 2),
        ("ckpt-2.index", 2),
        ("ckpt-2.data-00000-of-00001", 2),
        ("old", 3),
    ],
)
def test_a_graph_with_any_variables(trained: Path, tmp_path: Path, name: str, value: int) -> None:
    assert _w(trained / "ckpt-1.meta", trained / name) == value
    (tmp_path / "graph.meta").write_bytes((trained / "ckpt-1.meta").read_bytes())
    assert _w(tmp_path / "graph.meta", trained / name) == value


NAMELESS = ["e/.index", "e/.data-00000-of-00001"]
SHARDS = ["m-00000-of-00002", "m-00001-of-00002"]  # Of the format V1.


@pytest.mark.parametrize(
    ("files", "path", "expected"),
    [
        (["one/m.index"], "one", "one/m"),
        (["my-model-9.index", "my-model-10.index"], "", "my-model-10"),
        (["saved/saved_model.pb", "saved/x.index"], "saved", "saved/variables/variables"),
        (["m/x", "m.index"], "m", "m"),  # A folder called as a checkpoint is.
        *((NAMELESS, path, "e/") for path in (*NAMELESS, "e/", "e")),
        *((SHARDS, path, "m") for path in ("m", SHARDS[1])),
        (["a-9.index", "a-10.index"], "", "a-10"),
        (["a-1.index", "a-2.index", "b-3.index", "checkpoint"], "", "a-2"),
    ],
)
def test_the_variables_of_a_path(
    tmp_path: Path, files: list[str], path: str, expected: str
) -> None:
    _touch(tmp_path, *files)
    if "checkpoint" in files:
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/a-2"')
    assert find_variables(f"{tmp_path}/{path}") == f"{tmp_path}/{expected}"


ABSENT = r"^--ckpt=.*/c-20: there is no .*/c-20\.index; .* is c-200\.index, c-100\.index$"


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        (["c-100.index", "c-200.index"], "c-20", ABSENT),
        (["empty/x"], "empty", "empty: it holds no checkpoint"),
        ([], "emtpy/m", r"there is no folder .*/emtpy$"),
        (["a-1.index", "b-2.index"], "", "it holds several checkpoints; name one: a-1, b-2"),
    ],
)
def test_variables_that_are_not_there(
    tmp_path: Path, files: list[str], path: str, message: str
) -> None:
    _touch(tmp_path, *files)
    with refused(message):
        find_variables(str(tmp_path / path))


# What is said of a path that stands for no model.


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


UNNAMED = "--meta=<the .meta of its graph>"
ONLY = "variables without a graph: .*"
NEAR = ["alpha.meta", "model-19.meta", "model-20.meta", "notes.txt", "modle/x"]
NEWER = ["my-model-10.index", "my-model-10.meta", "my-model-20.index"]
BESIDE = "beside it there is "


@pytest.mark.parametrize(
    ("files", "path", "end"),
    [
        (["m.index", "graph.meta"], "m", ONLY + "--meta={0}/graph.meta --ckpt={0}/m"),
        (["m.index", "graph.meta"], "m.meta", ONLY + "--meta={0}/graph.meta --ckpt={0}/m"),
        (["m.index", "graph.meta"], "m.index", ONLY + "--meta={0}/graph.meta --ckpt={0}/m"),
        (["m.index", "a.meta", "b.meta"], "m", ONLY + UNNAMED + " --ckpt={0}/m"),
        (["m.index"], "", ONLY + "/m.index is there, {0}/m.meta is missing; .* --ckpt={0}/m"),
        (NEWER, "", "--meta={0}/my-model-10.meta --ckpt={0}/my-model-20"),
        (["saved_model.pb", "v/m.index"], "v", "part of a SavedModel: name its folder {0}"),
        (NEAR, "model-2.meta", BESIDE + "model-20.meta, model-19.meta, alpha.meta"),
        (NEAR, "model", "alpha.meta, modle"),
        (NEAR, "frozen.pb", "frozen.pb; " + BESIDE + ".*"),
        ([], "m", "there is no file {0}/m, nor {0}/m.meta"),
        ([], "modl1/a/m.meta", ": there is no folder {0}/modl1/a"),
        (["notes.txt", "checkpoint/m.meta"], "", "holds no model: no .meta, .*"),
        (["checkpoint/x"], "checkpoint", "holds no model: no .meta, .*"),
    ],
)
def test_a_path_that_stands_for_no_model(
    tmp_path: Path, files: list[str], path: str, end: str
) -> None:
    _touch(tmp_path, *files)
    with refused(end.format(tmp_path) + "$"):
        find_model(str(tmp_path / path))


def test_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with refused("^there is no file zzz/m.pb: there is no folder zzz$"):
        find_model("zzz/m.pb")
