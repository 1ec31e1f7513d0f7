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
from errors import CheckpointError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.model import read_model
from metagraph.session import load_inference_graph
from prediction import evaluation
from prediction.chosen_model import Record, listing, listing_text
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.prediction import stock
from tests.prediction.conftest import document

v1 = tf.compat.v1


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def copy(linear_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(linear_run, tmp_path / "model"))


@pytest.mark.parametrize("suffix", [".meta", ".index", ".data-00000-of-00001", ".manifest"])
def test_a_damaged_checkpoint_is_named(copy: Path, suffix: str) -> None:
    """One flipped bit anywhere is found by the manifest, in the graph too."""
    _flip_a_bit(copy / f"my-model-300{suffix}")
    with pytest.raises(CheckpointError, match=rf"my-model-300\{suffix} is damaged"):
        predict(PredictConfig(f"{copy}/my-model-300.meta", fetch=["w:0"]))


def _delete_when_read(monkeypatch: pytest.MonkeyPatch, steps: list[int]) -> None:
    """A trainer's retention takes these checkpoints away just as each is opened."""

    def read_then_gone(meta: MetaGraphFile, *arguments: Any, **options: Any) -> Any:
        step = int(meta.prefix.rsplit("-", 1)[1])
        if step in steps:
            folder.delete_checkpoint(str(Path(meta.path).parent), step)
        return load_inference_graph(meta, *arguments, **options)

    monkeypatch.setattr(evaluation, "load_inference_graph", read_then_gone)


def test_what_is_deleted_while_it_is_read_is_read_anew(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _delete_when_read(monkeypatch, [300, 290])
    found = document(str(copy), fetch=["global_step:0"])
    assert found["outputs"]["global_step:0"] == 280


@pytest.mark.parametrize(
    ("meta", "checkpoint", "message"),
    [
        (290, None, r"deleted while .* newest is my-model-300\.meta"),
        (300, 280, r"\(--ckpt=.* always reads the newest\)"),
    ],
)
def test_what_was_asked_for_and_is_deleted_is_said(
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    meta: int,
    checkpoint: int | None,
    message: str,
) -> None:
    _delete_when_read(monkeypatch, [checkpoint or meta])
    variables = f"{copy}/my-model-{checkpoint}" if checkpoint else None
    config = PredictConfig(f"{copy}/my-model-{meta}.meta", fetch=["w:0"], checkpoint=variables)
    with pytest.raises(CheckpointError, match=message):
        predict(config)


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
    found = document(f"{folder}/ckpt-1.meta", fetch=["w"], checkpoint=f"{folder}/ckpt-2")
    assert found["outputs"] == {"w:0": 2.0}
    assert (found["meta"], found["checkpoint"]) == (f"{folder}/ckpt-1.meta", f"{folder}/ckpt-2")
    with pytest.raises(
        CheckpointError, match=rf"--meta={folder}/ckpt-1\.meta --ckpt={folder}/ckpt-2$"
    ):
        predict(PredictConfig(f"{folder}/ckpt-2", fetch=["w"]))


def test_the_manifest_of_another_checkpoint_is_verified(copy: Path) -> None:
    """Of the graph's own, only the graph is."""
    config = PredictConfig(
        f"{copy}/my-model-290.meta", fetch=["global_step"], checkpoint=f"{copy}/my-model-300"
    )
    for lost in ("my-model-290.index", "my-model-290.data-00000-of-00001", "my-model-300.meta"):
        (copy / lost).unlink()
    assert predict(config).endswith("\n300")
    _flip_a_bit(copy / "my-model-300.data-00000-of-00001")
    with pytest.raises(CheckpointError, match=r"my-model-300\.data-\S+ is damaged"):
        predict(config)
    path = copy / "my-model-290.meta"
    path.write_bytes(path.read_bytes().replace(b"global_step", b"global_stop"))
    for options in ({"list": True}, {"fetch": ["w"], "checkpoint": f"{copy}/my-model-300"}):
        with pytest.raises(CheckpointError, match=r"my-model-290\.meta is damaged"):
            predict(PredictConfig(str(path), **options))


def test_a_model_without_variables_has_no_checkpoint(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        tf.constant(1.0, name="y")
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    assert document(str(path), fetch=["y"])["checkpoint"] is None
    shown = document(str(path), list=True)
    assert (shown["checkpoint"], shown["problems"]) == (None, [])
    assert "checkpoint" not in predict(PredictConfig(str(path), list=True))


@pytest.mark.parametrize("name", ["a[b]", "a*?", "a\\b"])
def test_folders_that_tensorflow_takes_for_patterns(copy: Path, name: str) -> None:
    folder = copy.rename(copy.with_name(name))
    for path in (str(folder), f"{folder}/my-model-300"):
        assert document(path, fetch=["global_step"])["outputs"] == {"global_step:0": 300}
    assert document(str(folder), list=True)["problems"] == []


def _say_accuracies(copy: Path, accuracies: dict[int, float]) -> None:
    """Makes manifests of the run say these test accuracies."""
    for step, accuracy in accuracies.items():
        found = manifest.read(str(copy), step)
        assert found is not None
        content = manifest.encode(found._replace(test_accuracy=accuracy))
        (copy / f"my-model-{step}.manifest").write_bytes(content)


def test_the_best_of_a_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own graph, or with the one that is named; a trainer may find a better one."""
    _say_accuracies(copy, {270: 0.1, 280: 0.9, 290: 0.9, 300: 0.5})
    best = f"{copy}/my-model-280"
    for meta, graph in ((f"{copy}", best), (f"{copy}/my-model-300.meta", f"{copy}/my-model-300")):
        found = document(meta, checkpoint="best", fetch=["global_step"])
        assert found["outputs"] == {"global_step:0": 280}
        assert (found["meta"], found["checkpoint"]) == (f"{graph}.meta", best)
    _delete_when_read(monkeypatch, [280])
    found = document(f"{copy}", checkpoint="best", fetch=["global_step"])
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


def test_signatures_to_choose_from(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [None], name="x")
        tf.add(x, v1.get_variable("v", initializer=2.0, use_resource=False), name="y")

    signature = ({"x": "x:0"}, {"sum": "y:0"})
    stock.sign(tmp_path / "m.meta", b=signature, a=signature)
    content = _listing(f"{tmp_path}/m.meta")
    assert (content["signatures"], content["signature"]["name"]) == (["a", "b"], "")
    text = listing_text(content)
    assert "signature\nsignatures, to choose from with --signature\n  a\n  b\n" in text
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    chosen = listing(meta, read_model(meta, "b"))
    expected = {"name": "b", "inputs": {"x": "x:0"}, "outputs": {"sum": "y:0"}}
    assert chosen["signature"] == expected
    lines = listing_text(chosen).splitlines()
    assert lines[lines.index("signature b") :][:5] == [
        "signature b",
        "  input x = x:0",
        "  output sum = y:0",
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
    assert len(content["inputs"]) == 3
