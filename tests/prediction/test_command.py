"""Whole predictions, compared with plain TensorFlow on the same checkpoint."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints import folder, manifest
from data.named import demo_images
from errors import CheckpointError, DataError, PredictionError
from metagraph.meta import MetaGraphFile
from metagraph.session import load_inference_graph
from prediction import evaluation
from prediction.evaluation import classify, predict
from prediction.request import PredictConfig
from tests.prediction import stock
from tests.prediction.conftest import CLASS_NAMES, SCALE, SIZE, write_npz

v1 = tf.compat.v1

LABELS = np.array([0, 1, 2, 2, 1, 0, 0])


@pytest.fixture
def labelled(tmp_path: Path, images: Any) -> str:
    return write_npz(tmp_path / "images.npz", X=images, Y=LABELS)


def _json(meta: str, **options: Any) -> Any:
    return json.loads(predict(PredictConfig(meta, format="json", **options)))


def _written(tmp_path: Path, meta: str, **options: Any) -> dict[str, Any]:
    predict(PredictConfig(meta, output=f"{tmp_path}/out.npz", **options))
    with np.load(tmp_path / "out.npz") as found:
        return dict(found)


def _stock_classes(meta: str, images: Any) -> Any:
    return stock.run(meta, ["classes:0"], {"x:0": images * SCALE})[0]


def test_a_classifiers_rows_are_those_of_a_stock_client(
    classifier: str, labelled: str, images: Any, tmp_path: Path
) -> None:
    found = _written(tmp_path, classifier, input=[labelled])
    names = ["logits:0", "probabilities:0", "classes:0"]
    assert list(found) == names
    expected = stock.run(classifier, names, {"x:0": images * SCALE})
    for name, value in zip(names, expected, strict=True):
        assert found[name].tobytes() == value.tobytes()


def test_the_report_is_right(classifier: str, labelled: str, images: Any) -> None:
    classes = _stock_classes(classifier, images)
    document = _json(classifier, input=[labelled])
    predicted = [row["class"] for row in document["predictions"]]
    assert predicted == [CLASS_NAMES[index] for index in classes]
    assert [row["label"] for row in document["predictions"]] == [CLASS_NAMES[i] for i in LABELS]
    assert document["accuracy"] == np.mean(classes == LABELS)
    for label, name in enumerate(CLASS_NAMES):
        of_class = classes[label == LABELS] == label
        assert document["accuracy_per_class"][name] == np.mean(of_class)


def test_class_folders_are_reported_by_file(classifier: str, images: Any, tmp_path: Path) -> None:
    for row, label in enumerate(LABELS):
        (tmp_path / CLASS_NAMES[label]).mkdir(exist_ok=True)
        Image.fromarray(images[row]).save(tmp_path / CLASS_NAMES[label] / f"{row}.png")
    order = np.argsort(LABELS, kind="stable")
    classes = _stock_classes(classifier, images[order])
    lines = predict(PredictConfig(classifier, input=[str(tmp_path)])).splitlines()
    assert len(lines) == len(images) + 1 + len(CLASS_NAMES)
    for line, row, predicted in zip(lines, order, classes, strict=False):
        true = CLASS_NAMES[LABELS[row]]
        words = line.split()
        assert words[:2] == [f"{true}/{row}.png", CLASS_NAMES[predicted]]
        assert words[3:] == ["true:", true]
    right = int(np.sum(classes == LABELS[order]))
    assert lines[7] == f"accuracy {right / 7:.4f} ({right} of 7)"


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_changes_nothing(
    classifier: str, labelled: str, tmp_path: Path, batch_size: int
) -> None:
    whole = _written(tmp_path, classifier, input=[labelled])
    found = _written(tmp_path, classifier, input=[labelled], batch_size=batch_size)
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_what_is_classified_is_what_is_predicted(
    classifier: str, labelled: str, images: Any
) -> None:
    found = classify(PredictConfig(classifier, input=[labelled], fetch=["logits"]))
    np.testing.assert_array_equal(found.result.classes, _stock_classes(classifier, images))
    np.testing.assert_array_equal(found.result.labels, LABELS)
    assert (found.meta, found.checkpoint) == (classifier, classifier.removesuffix(".meta"))
    assert found.model.class_names == CLASS_NAMES
    np.testing.assert_array_equal(found.inputs.rows["x:0"].batch(0, 7), images * SCALE)


def test_only_a_classifier_classifies(line: str) -> None:
    with pytest.raises(PredictionError, match="does not say that it is a classifier"):
        classify(PredictConfig(line))


def test_classes_that_have_no_probability_make_no_classifier(tmp_path: Path) -> None:
    """A file may say of any two tensors that they belong together."""
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("step", initializer=0)
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        tf.nn.softmax(x, name="probabilities")
        tf.cast(tf.reduce_sum(x, axis=1), tf.int64, name="classes")

    def describe(proto: MetaGraphDef) -> None:
        signature = proto.signature_def["serving_default"]
        signature.inputs["x"].name = "x:0"
        for name in ("probabilities", "classes"):
            signature.outputs[name].name = f"{name}:0"

    stock.edit_meta(tmp_path / "m.meta", describe)
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    config = PredictConfig(f"{tmp_path}/m.meta", input=[f"{tmp_path}/x.npy"])
    assert "classes:0 int64 [2]" in predict(config)
    with pytest.raises(PredictionError, match="do not fit the rows, or each other"):
        classify(config)


@pytest.mark.parametrize("suffix", [".npz", ".json", ".csv"])
def test_two_runs_give_equal_bytes(
    classifier: str, labelled: str, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    runs = []
    for _ in range(2):
        text = predict(PredictConfig(classifier, input=[labelled], output=str(path)))
        runs.append((text, path.read_bytes()))
    assert runs[0] == runs[1]


def test_the_ramps_demonstration(ramp_classifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "info", lambda text, *values: said.append(text % values))
    (classes,) = stock.run(ramp_classifier, ["classes:0"], {"x:0": demo_images()})
    document = _json(ramp_classifier)
    assert "demo" in said[0]
    predicted = [row["class"] for row in document["predictions"]]
    assert predicted == [CLASS_NAMES[i] for i in classes]
    assert [row["label"] for row in document["predictions"]] == ["3", CLASS_NAMES[1]]


def test_tensors_that_need_no_feed_just_run(line: str, tmp_path: Path) -> None:
    found = _written(tmp_path, line, fetch=["w:0", "b"])
    assert {name: value.tolist() for name, value in found.items()} == {"w:0": [2], "b:0": [0.5]}
    assert predict(PredictConfig(line, fetch=["b"])) == "b:0 float32 [1]\n[0.5]"


def test_tensors_are_fed_by_name(line: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "feeds.npz", **{"x:0": np.array([1.0, 2.0]), "y_": np.array([0, 1])})  # type: ignore[arg-type]
    (expected,) = stock.run(line, ["loss:0"], {"x:0": [1, 2], "y_:0": [0, 1]})
    found = _json(line, fetch=["y", "loss"], feed=[f"{tmp_path}/feeds.npz"])
    assert found["outputs"] == {"y:0": [2.5, 4.5], "loss:0": expected}
    literal = _json(line, fetch=["y", "loss"], feed=["x=[1, 2]", "y_=[0, 1]"])
    assert literal == found
    np.save(tmp_path / "x.npy", np.array([1, 2]))
    assert _json(line, feed=[f"x={tmp_path}/x.npy"])["outputs"] == {"y:0": [2.5, 4.5]}


def test_a_variable_can_be_overridden(line: str) -> None:
    found = _json(line, feed=["x=[1, 2]", "w=[10]"])
    assert found["outputs"] == {"y:0": [10.5, 20.5]}


@pytest.mark.parametrize(
    ("name", "content"), [("x.csv", "1\n2\n3\n"), ("x.npy", None), ("x.npz", None)]
)
def test_numbers_as_input(line: str, tmp_path: Path, name: str, content: str | None) -> None:
    path, values = tmp_path / name, np.array([1, 2, 3])
    if content is not None:
        path.write_text(content)
    elif name.endswith(".npy"):
        np.save(path, values)
    else:
        np.savez(path, X=values, Y=np.array([0.1, 0.2, 0.3]))
    found = _json(line, input=[str(path)], batch_size=2)
    assert found["outputs"] == {"y:0": [2.5, 4.5, 6.5]}


def test_a_feed_with_as_many_rows_goes_along_with_them(line: str, tmp_path: Path) -> None:
    x, y = np.arange(5.0), np.arange(5.0) * 3
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    options = {"input": [f"{tmp_path}/x.npy"], "feed": [f"y_={tmp_path}/y.npy"]}
    found = _json(line, fetch=["sub"], batch_size=2, **options)
    (expected,) = stock.run(line, ["sub:0"], {"x:0": x, "y_:0": y})
    assert found["outputs"]["sub:0"] == expected.tolist()
    loss = _json(line, fetch=["loss"], **options)
    np.testing.assert_allclose(loss["outputs"]["loss:0"], np.mean((2 * x + 0.5 - y) ** 2))


def test_asked_for_tensors_of_labelled_rows_end_in_the_accuracy(
    classifier: str, labelled: str, images: Any
) -> None:
    document = _json(classifier, fetch=["logits"], input=[labelled])
    assert list(document["outputs"]) == ["logits:0"]
    assert "predictions" not in document
    assert document["accuracy"] == np.mean(_stock_classes(classifier, images) == LABELS)


def test_a_classifier_without_names_or_labels_shows_numbers(classifier: str) -> None:
    zeros = np.zeros((1, SIZE, SIZE, 3)).tolist()
    document = _json(classifier, feed=[f"x={zeros}"])
    assert [row["name"] for row in document["predictions"]] == ["0"]
    assert document["predictions"][0]["probability"] == pytest.approx(1 / 3)


def test_a_feed_that_nothing_needs_is_warned_of(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    assert _json(line, fetch=["w"], feed=["x=[1]"])["outputs"] == {"w:0": [2]}
    assert said == ["x:0 is fed, and none of w:0 needs it"]


def test_list_reads_no_variables(classifier: str, tmp_path: Path) -> None:
    (tmp_path / "m.meta").write_bytes(Path(classifier).read_bytes())
    text = predict(PredictConfig(f"{tmp_path}/m.meta", list=True))
    assert text.startswith("inputs\n  x:0  float32 [?, 4, 4, 3]\n")
    assert _json(f"{tmp_path}/m.meta", list=True)["variables"][0]["name"] == "fc/w:0"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, PredictionError, r"y:0 needs x:0 float32 \[\?\]: feed it with"),
        ({"fetch": ["lost"]}, CheckpointError, r"no tensor 'lost'; the nearest are loss:0"),
        ({"fetch": ["w:7"]}, CheckpointError, r"no tensor w:7 \(outputs of w: 1\)"),
        ({"feed": ["xx=1"]}, CheckpointError, r"no tensor 'xx'; the nearest are x:0"),
        ({"feed": ["x=1"]}, PredictionError, r"takes float32 \[\?\], found int64 \[\]"),
        ({"feed": ["x=[true]"]}, PredictionError, "takes float32, found bool"),
        ({"feed": ["x=[1]", "x:0=[2]"]}, PredictionError, "x:0 is fed twice"),
        ({"feed": ["x=absent.npy"]}, DataError, "absent.npy"),
        ({"input": ["absent.npz"]}, DataError, "absent.npz"),
        ({"input": ["absent"], "feed": ["x=[1]"]}, PredictionError, "nothing is left for --input"),
        ({"input": ["absent"], "fetch": ["loss"]}, PredictionError, "--input could be for any of"),
        ({"feed": ["x=[1]"], "output": "/dev/null/o.npz"}, PredictionError, "cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        predict(PredictConfig(line, **({"output": "out.npz"} | options)))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_loss_in_batches_is_refused(line: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(5.0))
    config = PredictConfig(
        line, fetch=["loss"], input=[f"{tmp_path}/x.npy"], feed=["y_=[1]"], batch_size=2
    )
    with pytest.raises(PredictionError, match="loss:0 is one value over all 5 rows"):
        predict(config)


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


def test_a_folder_is_its_newest_checkpoint(linear_run: Path) -> None:
    found = _json(str(linear_run), fetch=["global_step:0"])
    assert found["outputs"]["global_step:0"] == 300


def test_what_is_deleted_while_it_is_read_is_read_anew(
    linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(linear_run, tmp_path / "model")
    _delete_when_read(monkeypatch, [300, 290])
    found = _json(str(path), fetch=["global_step:0"])
    assert found["outputs"]["global_step:0"] == 280


def test_what_was_asked_for_and_is_deleted_is_said(
    linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(linear_run, tmp_path / "model")
    _delete_when_read(monkeypatch, [290])
    with pytest.raises(CheckpointError, match=r"deleted while .* newest is my-model-300\.meta"):
        predict(PredictConfig(f"{path}/my-model-290.meta", fetch=["w:0"]))


def test_a_graph_that_reads_files_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with stock.checkpoint(tmp_path / "m"):
        tf.compat.v1.get_variable("v", initializer=np.float32(3))
        tf.io.read_file(str(tmp_path / "secret.txt"), name="read")
    meta = str(tmp_path / "m.meta")
    with pytest.raises(CheckpointError, match=r"node read runs the operation ReadFile.*--trust"):
        predict(PredictConfig(meta, fetch=["read"]))
    assert "secret" in predict(PredictConfig(meta, fetch=["read"], trust_graph=True))


def test_a_vocabulary_file_is_named(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    with stock.checkpoint(tmp_path / "m"):
        tf.compat.v1.get_variable("v", initializer=np.float32(3))
        x = tf.compat.v1.placeholder(tf.string, [None], name="x")
        index = tf.lookup.TextFileIndex
        initializer = tf.lookup.TextFileInitializer(
            str(words), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
        )
        tf.identity(tf.lookup.StaticHashTable(initializer, -1).lookup(x), name="y")
    asked = PredictConfig(str(tmp_path / "m.meta"), fetch=["y"], feed=['x=["b"]'])
    with pytest.raises(CheckpointError, match=r"--asset words\.txt=<path>"):
        predict(asked)
    assert "[1]" in predict(dataclasses.replace(asked, asset=[f"words.txt={words}"]))


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_any_file_of_a_checkpoint_will_do(line: str, tmp_path: Path, suffix: str) -> None:
    path = line.removesuffix(".meta") + suffix
    found = _written(tmp_path, path, feed=["x=[1.0, 2.0]"])
    assert found["y:0"].tolist() == [2.5, 4.5]


def test_a_frozen_graph_predicts_what_is_asked_for(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        tf.multiply(tf.compat.v1.placeholder(tf.float32, [None], name="x"), 2.0, name="y")
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(PredictionError, match="such as --fetch=y:0"):
        predict(PredictConfig(str(path)))
    found = _written(tmp_path, str(path), fetch=["y"], feed=["x=[1.0, 2.0]"])
    assert found["y:0"].tolist() == [2.0, 4.0]


def test_a_file_over_the_limit_is_refused(line: str) -> None:
    with pytest.raises(CheckpointError, match="--max_meta_mb=1 reads it"):
        predict(PredictConfig(line, max_meta_bytes=100))


def test_a_signature_that_names_what_has_nothing_to_do_with_the_rows(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        x = stock.v1.placeholder("float32", [None, 2], name="x")
        v = stock.v1.get_variable("v", initializer=np.ones((2, 2), np.float32), use_resource=False)
        stock.v1.constant([1, 2, 0], "int64", name="c")
        stock.v1.add_to_collection("predict", stock.v1.multiply(x, v[0], name="y"))

    def lie(proto: Any) -> None:
        outputs = proto.signature_def["serving_default"].outputs
        outputs["probabilities"].name, outputs["classes"].name = "v:0", "c:0"

    stock.edit_meta(tmp_path / "m.meta", lie)
    document = _json(str(tmp_path / "m.meta"), feed=["x=[[1, 2]]"])
    assert document["outputs"]["y:0"] == [[1.0, 2.0]]
    assert "predictions" not in document


def _trained(folder: Path) -> Path:
    """A graph saved once, at step 1, and its variables at step 2 also; `w` is the step."""
    v1 = tf.compat.v1
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


def test_another_checkpoint_that_is_deleted(
    linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(linear_run, tmp_path / "model")
    _delete_when_read(monkeypatch, [280])
    config = PredictConfig(
        f"{path}/my-model-300.meta", fetch=["w:0"], checkpoint=f"{path}/my-model-280"
    )
    with pytest.raises(CheckpointError, match=rf"\(--ckpt={path} always reads the newest\)"):
        predict(config)


@pytest.mark.parametrize("list_only", [False, True])
def test_what_is_read_is_said(
    linear_run: Path, monkeypatch: pytest.MonkeyPatch, list_only: bool
) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "info", lambda text, *values: said.append(text % values))
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
        assert _json(path, fetch=["global_step"])["outputs"] == {"global_step:0": 300}
    assert _json(str(folder), list=True)["problems"] == []


def test_an_asset_is_named_once(line: str) -> None:
    config = PredictConfig(line, fetch=["w"], asset=["words.txt=a", "words.txt=b"])
    with pytest.raises(PredictionError, match=r"--asset words\.txt is given twice: a, b$"):
        predict(config)


@pytest.fixture
def signed(tmp_path: Path) -> str:
    """`a` [?] in, doubled and tripled, under keys of two signatures; `twice` is a node as well."""
    v1 = tf.compat.v1
    with stock.checkpoint(tmp_path / "m"):
        a = v1.placeholder(tf.float32, [None], name="a")
        v = v1.get_variable("v", initializer=np.float32(3), use_resource=False)
        double, triple = tf.multiply(a, 2.0, name="twice"), tf.multiply(a, v, name="mul")
        tf.add_n([double, triple], name="unsigned")

    def sign(proto: Any) -> None:
        for name, inputs, outputs in (
            ("serving_default", {"rows": "a:0"}, {"scores": "mul:0"}),
            ("other", {"numbers": "a:0"}, {"twice": "mul:0", "d": "twice:0"}),
        ):
            for key, tensor in inputs.items():
                proto.signature_def[name].inputs[key].name = tensor
            for key, tensor in outputs.items():
                proto.signature_def[name].outputs[key].name = tensor

    stock.edit_meta(tmp_path / "m.meta", sign)
    return str(tmp_path / "m.meta")


def test_keys_of_the_signature_are_names(signed: str, tmp_path: Path) -> None:
    found = _json(signed, fetch=["scores", "unsigned"], feed=["rows=[1, 2]"])
    assert found["outputs"] == {"mul:0": [3, 6], "unsigned:0": [5, 10]}
    np.save(tmp_path / "rows.npy", np.array([1.0, 2.0]))
    for options in (
        {"input": [f"{tmp_path}/rows.npy"]},
        {"input": [f"rows={tmp_path}/rows.npy"]},
        {"feed": [f"rows={tmp_path}/rows.npy"]},
    ):
        assert _json(signed, **options)["outputs"] == {"mul:0": [3, 6]}


def test_the_signature_is_chosen(signed: str) -> None:
    found = _json(signed, signature="other", feed=["numbers=[1]"])
    assert found["outputs"] == {"twice:0": [2], "mul:0": [3]}
    with pytest.raises(CheckpointError, match="no signature 'Other'; there is other"):
        _json(signed, signature="Other")
    with pytest.raises(CheckpointError, match="no tensor 'numbers'"):
        _json(signed, feed=["numbers=[1]"])


def test_a_nodes_name_goes_before_a_key(signed: str) -> None:
    found = _json(signed, signature="other", fetch=["twice"], feed=["numbers=[1]"])
    assert found["outputs"] == {"twice:0": [2]}


def test_a_key_is_offered_for_one_that_is_misspelt(signed: str) -> None:
    with pytest.raises(CheckpointError, match="no tensor 'Scores'; the nearest are scores"):
        _json(signed, fetch=["Scores"])
    with pytest.raises(CheckpointError, match="no tensor 'import/rows:0'; the nearest are rows"):
        _json(signed, feed=["import/rows:0=1"])


def test_signatures_are_offered_where_several_would_do(signed: str) -> None:
    def rename(proto: Any) -> None:
        proto.signature_def["main"].CopyFrom(proto.signature_def["serving_default"])
        del proto.signature_def["serving_default"]

    stock.edit_meta(Path(signed), rename)
    with pytest.raises(PredictionError, match=r"or a signature with --signature: main, other$"):
        _json(signed, feed=["a=[1]"])


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
    with pytest.raises(
        CheckpointError, match=r"^--ckpt=best: .* test accuracy.*named best is --ckpt=\./best$"
    ):
        predict(PredictConfig(str(linear_run), checkpoint="best", fetch=["w:0"]))


def test_the_best_that_is_deleted_while_it_is_read(
    linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a trainer does that has found a better one."""
    path = _measured(linear_run, tmp_path / "model", {280: 0.9, 290: 0.8})
    _delete_when_read(monkeypatch, [280])
    found = _json(str(path), checkpoint="best", fetch=["global_step"])
    assert found["outputs"] == {"global_step:0": 290}
