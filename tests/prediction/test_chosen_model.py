"""The model that is asked for, found and whole, and what --list says of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints import folder, manifest
from errors import CheckpointError, PredictionError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.model import read_model
from metagraph.session import load_inference_graph
from prediction import evaluation
from prediction.chosen_model import Record, listing, listing_text
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.prediction import stock

v1 = tf.compat.v1


def _json(meta: str, **options: Any) -> Any:
    return json.loads(predict(PredictConfig(meta, format="json", **options)))


@pytest.mark.parametrize("suffix", [".meta", ".index", ".data-00000-of-00001", ".manifest"])
def test_a_damaged_checkpoint_is_named(linear_run: Path, tmp_path: Path, suffix: str) -> None:
    """One flipped bit anywhere is found by the manifest, in the graph too."""
    folder = Path(shutil.copytree(linear_run, tmp_path / "model"))
    path = folder / f"my-model-300{suffix}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"my-model-300\{suffix} is damaged"):
        predict(PredictConfig(str(folder / "my-model-300.meta"), fetch=["w:0"]))


def _delete_when_read(monkeypatch: pytest.MonkeyPatch, steps: list[int]) -> None:
    """A trainer's retention takes these checkpoints away just as each is opened."""

    def read_then_gone(meta: MetaGraphFile, *arguments: Any, **options: Any) -> Any:
        step = int(meta.prefix.rsplit("-", 1)[1])
        if step in steps:
            folder.delete_checkpoint(str(Path(meta.path).parent), step)
        return load_inference_graph(meta, *arguments, **options)

    monkeypatch.setattr(evaluation, "load_inference_graph", read_then_gone)


def test_what_is_deleted_while_it_is_read_is_read_anew(
    linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(linear_run, tmp_path / "model")
    _delete_when_read(monkeypatch, [300, 290])
    found = _json(str(path), fetch=["global_step:0"])
    assert found["outputs"]["global_step:0"] == 280


@pytest.mark.parametrize(
    ("meta", "checkpoint", "message"),
    [
        (290, None, r"deleted while .* newest is my-model-300\.meta"),
        (300, 280, r"\(--ckpt=.* always reads the newest\)"),
    ],
)
def test_what_was_asked_for_and_is_deleted_is_said(
    linear_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meta: int,
    checkpoint: int | None,
    message: str,
) -> None:
    path = f"{shutil.copytree(linear_run, tmp_path / 'model')}/my-model-"
    _delete_when_read(monkeypatch, [checkpoint or meta])
    variables = f"{path}{checkpoint}" if checkpoint else None
    with pytest.raises(CheckpointError, match=message):
        predict(PredictConfig(f"{path}{meta}.meta", fetch=["w:0"], checkpoint=variables))


def _trained(folder: Path) -> Path:
    """A graph saved once, at step 1, and its variables at step 2 also; `w` is the step."""
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=np.float32(1), use_resource=False)
        session.run(w.initializer)
        v1.train.Saver().save(session, f"{folder}/ckpt", 1)
        session.run(w.assign(2))
        v1.train.Saver().save(session, f"{folder}/ckpt", 2, write_meta_graph=False)
    return folder


def test_variables_of_another_checkpoint(tmp_path: Path) -> None:
    folder = _trained(tmp_path)
    found = _json(f"{folder}/ckpt-1.meta", fetch=["w"], checkpoint=f"{folder}/ckpt-2")
    assert found["outputs"] == {"w:0": 2.0}
    assert (found["meta"], found["checkpoint"]) == (f"{folder}/ckpt-1.meta", f"{folder}/ckpt-2")
    with pytest.raises(
        CheckpointError, match=rf"--meta={folder}/ckpt-1\.meta --ckpt={folder}/ckpt-2$"
    ):
        predict(PredictConfig(f"{folder}/ckpt-2", fetch=["w"]))


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_the_manifest_of_another_checkpoint_is_verified(
    linear_run: Path, tmp_path: Path, suffix: str
) -> None:
    """Of the graph's own, only the graph is."""
    folder = Path(shutil.copytree(linear_run, tmp_path / "model"))
    config = PredictConfig(
        f"{folder}/my-model-290.meta", fetch=["global_step"], checkpoint=f"{folder}/my-model-300"
    )
    for lost in ("my-model-290.index", "my-model-290.data-00000-of-00001", "my-model-300.meta"):
        (folder / lost).unlink()
    assert predict(config).endswith("\n300")
    path = folder / f"my-model-300{suffix}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"my-model-300\{suffix} is damaged"):
        predict(config)


def test_a_graph_is_verified_when_its_variables_are_not(linear_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(linear_run, tmp_path / "model"))
    path = folder / "my-model-290.meta"
    path.write_bytes(path.read_bytes().replace(b"global_step", b"global_stop"))
    for options in ({"list": True}, {"fetch": ["w"], "checkpoint": f"{folder}/my-model-300"}):
        with pytest.raises(CheckpointError, match=r"my-model-290\.meta is damaged"):
            predict(PredictConfig(str(path), **options))


@pytest.mark.parametrize("list_only", [False, True])
def test_what_is_read_is_said(linear_run: Path, said: list[str], list_only: bool) -> None:
    with pytest.raises(PredictionError):
        predict(PredictConfig(str(linear_run)))
    assert not said  # A mistake is one line.
    predict(PredictConfig(str(linear_run), fetch=["w"], list=list_only))
    prefix = f"{linear_run}/my-model-300"
    assert said == [f"graph {prefix}.meta, variables {prefix}"]
    document = _json(str(linear_run), fetch=["w"], list=list_only)
    assert (document["meta"], document["checkpoint"]) == (f"{prefix}.meta", prefix)


def test_a_model_without_variables_has_no_checkpoint(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        tf.constant(1.0, name="y")
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    assert _json(str(path), fetch=["y"])["checkpoint"] is None
    document = _json(str(path), list=True)
    assert (document["checkpoint"], document["problems"]) == (None, [])
    assert "checkpoint" not in predict(PredictConfig(str(path), list=True))


@pytest.mark.parametrize("name", ["a[b]", "a*?", "a\\b"])
def test_folders_that_tensorflow_takes_for_patterns(
    linear_run: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(linear_run, tmp_path / name)
    for path in (str(folder), f"{folder}/my-model-300"):
        with pytest.raises(CheckpointError, match="for a pattern; give it a path without them"):
            _json(path, fetch=["global_step"])


def _measured(linear_run: Path, path: Path, accuracies: dict[int, float]) -> Path:
    """A copy of the run whose manifests say these test accuracies."""
    copy = Path(shutil.copytree(linear_run, path))
    for step, accuracy in accuracies.items():
        found = manifest.read(str(copy), step)
        assert found is not None
        content = manifest.encode(found._replace(test_accuracy=accuracy))
        (copy / f"my-model-{step}.manifest").write_bytes(content)
    return copy


def test_the_best_of_a_folder(linear_run: Path, tmp_path: Path) -> None:
    """With its own graph, or with the one that is named."""
    path = _measured(linear_run, tmp_path / "m", {270: 0.1, 280: 0.9, 290: 0.9, 300: 0.5})
    found = _json(str(path), checkpoint="best", fetch=["global_step"])
    assert found["outputs"] == {"global_step:0": 280}
    best = f"{path}/my-model-280"
    assert (found["meta"], found["checkpoint"]) == (f"{best}.meta", best)
    named = _json(f"{path}/my-model-300.meta", checkpoint="best", fetch=["global_step"])
    assert named["outputs"] == {"global_step:0": 280}
    assert (named["meta"], named["checkpoint"]) == (f"{path}/my-model-300.meta", best)


def test_where_no_accuracy_was_measured_there_is_no_best(linear_run: Path) -> None:
    expected = r"^--ckpt=best: .* test accuracy.*named best is --ckpt=\./best$"
    with pytest.raises(CheckpointError, match=expected):
        predict(PredictConfig(str(linear_run), checkpoint="best", fetch=["w:0"]))


def test_the_best_that_is_deleted_while_it_is_read(
    linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a trainer does that has found a better one."""
    path = _measured(linear_run, tmp_path / "model", {280: 0.9, 290: 0.8})
    _delete_when_read(monkeypatch, [280])
    found = _json(str(path), checkpoint="best", fetch=["global_step"])
    assert found["outputs"] == {"global_step:0": 290}


# What --list says.


def _listing(path: str) -> Record:
    meta = read_meta_graph(path)
    return listing(meta, read_model(meta))


def test_a_graph_without_placeholders_lists_what_stands_for_its_pipeline(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        data = v1.data.Dataset.from_tensor_slices((np.ones((8, 3), np.float32), np.zeros(8)))
        x, _ = v1.data.make_initializable_iterator(data.batch(2)).get_next()
        w = v1.get_variable("w", [3, 2], use_resource=False)
        tf.nn.softmax(tf.matmul(x, w), name="probabilities")
    content = _listing(f"{tmp_path}/m.meta")
    assert listing_text(content).splitlines()[:8] == [
        "inputs",
        "  (none)",
        "to feed in place of the input pipeline",
        "  IteratorGetNext:0  float32 [?, 3]",
        "outputs",
        "  (none)",
        "possible outputs",
        "  probabilities:0  float32 [?, 2]",
    ]


def test_damage_is_listed_around(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.placeholder_with_default([1.0, 2.0], [2], name="x")
        v1.placeholder_with_default([1.0], [1], name="z")
        v1.get_variable("v", [2], use_resource=False)

    def damage(proto: MetaGraphDef) -> None:
        nodes = {node.name: node for node in proto.graph_def.node}
        nodes["v"].attr["dtype"].type = 999
        nodes["v"].attr["shape"].shape.dim[0].size = -7
        tensor = nodes["x/input"].attr["value"].tensor
        tensor.tensor_shape.dim[0].size = -(10**12)
        nodes["z/input"].attr["value"].tensor.dtype = 999
        proto.collection_def["trainops"].node_list.value.extend(["Adam", "", "^"])
        proto.collection_def["predict"].node_list.value.extend(["nowhere:0", "x:7", "odd:0"])
        proto.collection_def["empty"].SetInParent()
        proto.signature_def["serving_default"].outputs["y"].name = "^v"
        proto.graph_def.node.add(name="odd", op="FromAnotherWorld")
        proto.graph_def.node.add(name="p", op="Placeholder").attr["dtype"].type = 999
        huge = proto.graph_def.node.add(name="q", op="Placeholder")
        huge.attr["dtype"].type = tf.float32.as_datatype_enum
        for _ in range(2):
            huge.attr["shape"].shape.dim.add(size=1 << 62)

    stock.edit_meta(tmp_path / "m.meta", damage)
    content = _listing(f"{tmp_path}/m.meta")
    assert content["variables"] == [{"name": "v:0", "dtype": None, "shape": [None]}]
    assert [record["name"] for record in content["inputs"]] == ["p:0", "q:0", "x:0", "z:0"]
    assert content["inputs"][1] == {"name": "q:0", "dtype": None, "shape": None}
    assert not any("default" in record for record in content["inputs"])
    assert content["outputs"] == [
        {"name": name, "dtype": None, "shape": None} for name in ("x:7", "odd:0")
    ]
    assert content["collections"]["trainops"] == ["Adam", "", "^"]
    assert "  odd:0  unknown here" in listing_text(content)
    json.loads(json.dumps(content))


def _signed(tmp_path: Path, *names: str) -> str:
    """x -> y, z with signatures of these names, whose keys are `x` and `y`: y is the tensor z."""
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [None], name="x")
        v = v1.get_variable("v", initializer=2.0, use_resource=False)
        tf.multiply(x, v, name="y")
        tf.add(x, v, name="z")

    def sign(proto: MetaGraphDef) -> None:
        for name in names:
            proto.signature_def[name].inputs["x"].name = "x:0"
            for key in ("y", "sum"):
                proto.signature_def[name].outputs[key].name = "z:0"

    stock.edit_meta(tmp_path / "m.meta", sign)
    return f"{tmp_path}/m.meta"


def test_signatures_to_choose_from(tmp_path: Path) -> None:
    path = _signed(tmp_path, "b", "a")
    content = _listing(path)
    assert content["signatures"] == ["a", "b"]
    assert content["signature"]["name"] == ""
    text = listing_text(content)
    assert "signature\nsignatures, to choose from with --signature\n  a\n  b\n" in text
    meta = read_meta_graph(path)
    chosen = listing(meta, read_model(meta, "b"))
    assert chosen["signature"] == {
        "name": "b",
        "inputs": {"x": "x:0"},
        "outputs": {"sum": "z:0", "y": "z:0"},
        "not_names": ["y"],
    }
    lines = listing_text(chosen).splitlines()
    assert lines[lines.index("signature b") :][:6] == [
        "signature b",
        "  input x = x:0",
        "  output sum = z:0",
        "  output y = z:0  (--fetch=y is the node of that name)",
        "other signatures, for --signature",
        "  a",
    ]


def test_a_part_of_many_lines_is_shortened_as_text(
    classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prediction.chosen_model._MAX_SHOWN_LINES", 2)
    content = _listing(classifier)
    lines = listing_text(content).splitlines()
    assert lines[lines.index("inputs") :][1:5] == [
        "  x:0  float32 [?, 4, 4, 3]",
        "  y_:0  int64 [?]",
        "  ... and 1 more (--format=json has all)",
        "outputs",
    ]
    more = len(content["collections"]) - 2
    assert lines[-1] == f"  ... and {more} more (--format=json has all)"
    assert lines[lines.index("variables") :][1:3] == [
        "  fc/w:0  float32 [48, 3]",
        "signature " + content["signature"]["name"],
    ]
    assert len(json.loads(json.dumps(content))["inputs"]) == 3
