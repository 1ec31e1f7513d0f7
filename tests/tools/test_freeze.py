"""Freeze as a user runs it: the file, what predict.py makes of it, and each error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework.graph_pb2 import GraphDef

from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.data.idx_files import write_mnist
from tests.prediction import stock
from tests.test_thirdparty import THIRD_PARTY, _by_stock, _entries, _feeds
from tests.tools.conftest import Tool
from tests.tools.freezing import models

v1 = tf.compat.v1


def _report(meta: Path | str, *inputs: Path | str, **config: Any) -> dict[str, Any]:
    """What predict.py prints, but for the names of the model's files."""
    asked = PredictConfig(str(meta), input=[*map(str, inputs)], format="json", **config)
    document: dict[str, Any] = json.loads(predict(asked))
    return {key: value for key, value in document.items() if key not in ("meta", "checkpoint")}


def _graph(file: Path) -> GraphDef:
    return GraphDef.FromString(file.read_bytes())


def _assert_same(first: Any, second: Any) -> None:
    """Compares reports; the last bits may differ, as TensorFlow itself folds constants further."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            _assert_same(first[key], second[key])
    elif isinstance(first, list) and first and isinstance(first[0], dict | list | str):
        assert len(first) == len(second)
        for one, two in zip(first, second, strict=True):
            _assert_same(one, two)
    elif isinstance(first, str) or first is None:
        assert first == second
    else:
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images of other sizes than the model takes."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        pixels = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    return tmp_path / "images"


def test_predict_takes_a_frozen_cnn_as_it_takes_the_checkpoint(
    tool: Tool, cnn_run: Path, images: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.pb"
    ended = tool("freeze", cnn_run, f"--output={file}")
    assert ended.code == 0, ended.err
    assert "off     keep_prob:0    1.0" in ended.out
    assert ended.out.endswith("largest difference from the original: 0\n")
    _assert_same(_report(file, images), _report(cnn_run, images))
    _assert_same(_report(file), _report(cnn_run))  # The demo images of the ramp.
    asked = [PredictConfig(str(meta), input=[str(images)]) for meta in (file, cnn_run)]
    assert predict(asked[0]) == predict(asked[1])


def test_a_trained_classifier_keeps_its_class_names_and_scaling(
    tool: Tool, cnn_config: Callable[..., Any], images: Path, tmp_path: Path
) -> None:
    from train_cnn import train

    data, run, file = tmp_path / "data", tmp_path / "run", tmp_path / "m.pb"
    for name in ("ship", "cat"):
        shutil.copytree(images, data / name)
    train(cnn_config(run, data=str(data), train_steps=2, batch_size=2))
    assert tool("freeze", run, f"--output={file}").code == 0
    report = _report(file, images)
    _assert_same(report, _report(run, images))
    assert {row["class"] for row in report["predictions"]} <= {"ship", "cat"}


def test_the_perceptron(tool: Tool, mlp_config: Callable[..., Any], tmp_path: Path) -> None:
    from train_mlp import train

    file, run = tmp_path / "mlp.pb", tmp_path / "run"
    data = str(write_mnist(tmp_path / "digits", 40, 10))
    train(mlp_config(run, data_dir=data, batch_size=20, train_steps=4))
    ended = tool("freeze", run, f"--output={file}", "--format=json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["off"] == {"p_keep_input:0": 1.0, "p_keep_hidden:0": 1.0}
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((3, 28, 28)).astype(np.float32))
    _assert_same(_report(file, tmp_path / "rows.npy"), _report(run, tmp_path / "rows.npy"))
    assert not any("Random" in op for op in models.ops(_graph(file)))


@pytest.mark.parametrize("entry", _entries(), ids=lambda e: e.get("kind", "absent"))
def test_the_models_of_others(tool: Tool, entry: dict[str, Any], tmp_path: Path) -> None:
    if not THIRD_PARTY.is_dir():
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")
    meta, output, file = THIRD_PARTY / entry["meta"], entry["suggested_output"], tmp_path / "m.pb"
    feeds = _feeds(entry)
    arguments = [f"--outputs={output}", f"--output={file}", "--format=json"]
    if "ParseExample/ParseExample:0" in feeds:
        arguments.append("--inputs=ParseExample/ParseExample")
    ended = tool("freeze", meta, *arguments)
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert record["largest_difference"] == 0
    taken = {tensor["name"] for tensor in record["inputs"].values()}
    given: dict[str, Any] = {name: feeds[name] for name in taken}
    expected = _by_stock(entry, {**feeds, **record["off"]}, tmp_path)
    (value,) = models.run(_graph(file), [output], given)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    np.savez(tmp_path / "feeds.npz", **given)
    report = _report(file, feed=[f"{tmp_path}/feeds.npz"])
    np.testing.assert_allclose(report["outputs"][output], expected, rtol=1e-4, atol=1e-5)
    if "/half_plus_two/" in entry["meta"]:  # It is cut behind the parser of examples by itself.
        ended = tool("freeze", meta, f"--output={tmp_path}/whole.pb")
        assert "input   ParseExample/ParseExample" in ended.out


def test_an_inner_input_is_fed_under_its_name(tool: Tool, cnn_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "top.pb"
    arguments = ("--outputs=fc1/add,logits", "--inputs=conv2/MaxPool2d", "--format=json")
    record = json.loads(tool("freeze", cnn_run, f"--output={file}", *arguments).out)
    assert record["outputs"]["logits"]["name"] == "fc2/add:0"
    graph = _graph(file)
    assert "Conv2D" not in models.ops(graph)
    feeds = {"conv2/MaxPool2d:0": np.random.default_rng(0).random((2, 4, 4, 64)).astype("f4")}
    (expected,) = stock.run(cnn_run / "my-model-200.meta", ["fc2/add:0"], feeds)
    np.testing.assert_allclose(models.run(graph, ["fc2/add:0"], feeds)[0], expected, rtol=1e-4)


def test_another_checkpoints_variables(tool: Tool, linear_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "old.pb"
    old = linear_run / "my-model-270"
    assert tool("freeze", linear_run, f"--ckpt={old}", f"--output={file}").code == 0
    fetched = {"fetch": ["w:0"]}
    _assert_same(_report(file, **fetched), _report(f"{old}.meta", **fetched))


def test_a_frozen_graph_can_be_frozen_again(tool: Tool, cnn_run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.pb", tmp_path / "2.pb"
    tool("freeze", cnn_run, f"--output={first}")
    assert tool("freeze", first, f"--output={second}").code == 0
    assert second.read_bytes() == first.read_bytes()


def test_what_is_read_is_not_written_over(tool: Tool, linear_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "m.pb"  # Folders that are missing are made.
    assert tool("freeze", linear_run, f"--output={file}").code == 0
    frozen = file.read_bytes()
    ended = tool("freeze", file, f"--output={file}", "--overwrite")
    assert (ended.code, file.read_bytes()) == (1, frozen)
    assert "is read too" in ended.err


def _scoped_models(folder: Path) -> str:
    """A loop and a conditional of the old kind, a function, a table and a split."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", initializer=[1.0, 2.0, 3.0], use_resource=False)
        keys = tf.constant(["a", "b"])
        values = tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1.0, 2.0]))
        table = tf.lookup.StaticHashTable(values, 0.0)
        with v1.control_dependencies([tf.identity(x)]):
            looped = v1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v * w), [0, x])[1]
        chosen = v1.cond(tf.reduce_sum(x) > 0, lambda: looped + w, lambda: looped - w)
        first, second, third = tf.split(tf.function(lambda v: v + 1)(chosen), 3, axis=1)
        y = tf.concat([third, first, second], 1) + table.lookup(tf.constant("b"))
        v1.add_to_collection("predict", tf.identity(y, "y"))

    v1.disable_control_flow_v2()
    try:
        return models.save(folder, build)
    finally:
        v1.enable_control_flow_v2()


def test_a_scope_is_what_an_import_under_a_name_gives(tool: Tool, tmp_path: Path) -> None:
    meta = _scoped_models(tmp_path)
    graphs: list[GraphDef] = []
    for scope in ("", "some/model"):
        file = tmp_path / f"m{len(graphs)}.pb"
        ended = tool("freeze", meta, f"--output={file}", f"--scope={scope}")
        assert ended.code == 0, ended.err
        graphs.append(_graph(file))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graphs[0], name="some/model")
        imported = graph.as_graph_def()
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graphs[1], name="")
        ours = graph.as_graph_def()
    assert {node.name: node for node in ours.node} == {node.name: node for node in imported.node}
    rows = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]], np.float32)
    report = _report(tmp_path / "m1.pb", feed=[f"x={rows.tolist()}"])
    plain = _report(tmp_path / "m0.pb", feed=[f"x={rows.tolist()}"])
    assert [*report["outputs"]] == ["some/model/y:0"]
    assert [*report["outputs"].values()] == [*plain["outputs"].values()]


def test_whoever_imports_it_under_a_name_keeps_what_it_says(
    tool: Tool, cnn_run: Path, images: Path, tmp_path: Path
) -> None:
    plain, scoped, by_hand = (tmp_path / f"{name}.pb" for name in ("plain", "scoped", "by_hand"))
    tool("freeze", cnn_run, f"--output={plain}")
    tool("freeze", cnn_run, f"--output={scoped}", "--scope=imported")
    found = _report(scoped, images)
    assert found["predictions"] == _report(plain, images)["predictions"]
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(_graph(plain), name="imported")
        by_hand.write_bytes(graph.as_graph_def().SerializeToString())
    assert _report(by_hand, images) == found


def _spoil(graph: GraphDef, *_: object) -> None:
    (relu,) = (node for node in graph.node if node.name == "Relu")
    relu.op = "Elu"


@pytest.mark.parametrize(
    ("where", "instead", "line"),
    [
        ("frozen_graph.fold", _spoil, "the frozen graph gives another fc2/add:0 than the original"),
        (
            "frozen_variables._MOST_BYTES",
            600_000,
            "and a file of one graph holds at most 600000: give --fetch fewer",
        ),
    ],
    ids=["difference", "size"],
)
def test_what_cannot_be_leaves_no_file(
    tool: Tool,
    cnn_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    instead: object,
    line: str,
) -> None:
    monkeypatch.setattr(f"tools.{where}", instead)
    ended = tool("freeze", cnn_run, f"--output={tmp_path}/m.pb")
    assert ended.code == 1
    assert line in ended.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--output={}/m.pb", "--asset=words=w.txt"], 1, "it takes no file"),
        (["--output={}/m.pb", "--asset=w=a", "--asset=w=b"], 1, "--asset w is given twice: a, b"),
        (["--output={}/m.pb", "--ckpt={}/nothing"], 1, "nothing"),
        (["--output={}/m.pb", "--scope=_a"], 2, "must be a name that TensorFlow takes"),
        (["--output={}/m.pb", "--scope=a/"], 2, "must be a name that TensorFlow takes"),
    ],
)
def test_each_mistake_is_one_line(
    tool: Tool, cnn_run: Path, tmp_path: Path, arguments: list[str], code: int, line: str
) -> None:
    given = [argument.format(tmp_path) for argument in arguments]
    ended = tool("freeze", cnn_run, *given)
    assert ended.code == code
    assert line in ended.err
    assert "\n" not in ended.err
    assert not list(tmp_path.iterdir())


def test_no_output_is_the_models_own(tool: Tool, cnn_run: Path, tmp_path: Path) -> None:
    ended = tool("freeze", cnn_run, f"--output={tmp_path}/m.pb", "--outputs=")
    assert ended.code == 0
    assert "output  logits         fc2/add:0" in ended.out
    meta = models.save(tmp_path, lambda: v1.get_variable("w", initializer=1.0, use_resource=False))
    ended = tool("freeze", meta, f"--output={tmp_path}/none.pb")
    assert ended.code == 1
    assert "name what to keep with --fetch" in ended.err


class _Module(tf.Module):  # type: ignore[misc]
    """A model of TensorFlow 2, all in functions, with a switch that its caller gives."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.eye(3, dtype=np.float32) * 2)

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec([None, 3], tf.float32, "rows")]
    )
    def serve(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        steps = tf.while_loop(
            lambda i, _: i < 2, lambda i, y: (i + 1, tf.matmul(y, self.w)), [0, rows]
        )
        return {"scores": steps[1], "first": tf.gather(self.w, [0])}


def test_a_saved_model(tool: Tool, tmp_path: Path) -> None:
    module = _Module()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    file = tmp_path / "m.pb"
    ended = tool("freeze", tmp_path / "saved", f"--output={file}", "--format=json")
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert sorted(record["outputs"]) == ["first", "scores"]
    graph = _graph(file)
    assert not models.ops(graph) & {"VarHandleOp", "ReadVariableOp", "ResourceGather"}
    report = _report(file, feed=["rows=[[1, 2, 3]]"], fetch=["scores"])
    assert [*report["outputs"].values()] == [[[4.0, 8.0, 12.0]]]


def test_what_may_do_more_than_compute_is_refused(tool: Tool, tmp_path: Path) -> None:
    def build() -> None:
        w = v1.get_variable("w", initializer=1.0, use_resource=False)
        tf.identity(w, name="y")
        with tf.control_dependencies([tf.io.write_file(f"{tmp_path}/written", "x")]):
            tf.identity(w, name="z")

    meta = models.save(tmp_path, build)
    ended = tool("freeze", meta, "--outputs=z", f"--output={tmp_path}/m.pb")
    assert ended.code == 1
    assert "WriteFile" in ended.err
    assert not (tmp_path / "written").exists()
    assert tool("freeze", meta, "--outputs=y", f"--output={tmp_path}/m.pb").code == 0
