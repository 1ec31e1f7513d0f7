"""Freeze as a user runs it: the file, what predict.py makes of it, and each error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework.graph_pb2 import GraphDef

from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.metagraph.made import saved
from tests.test_thirdparty import _by_stock, _feeds, every_entry
from tests.tools.conftest import Tool, document, refused
from tests.tools.test_freezing import ops_of, run_alone

v1 = tf.compat.v1


def _text(meta: Path | str, *inputs: Path | str, **config: Any) -> str:
    """What predict.py prints; the last bits may differ, as TensorFlow folds constants further."""
    return predict(PredictConfig(str(meta), input=[*map(str, inputs)], **config))


def _graph(file: Path) -> GraphDef:
    return GraphDef.FromString(file.read_bytes())


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
    tool: Tool, cnn_run: Path, named: Path, images: Path, tmp_path: Path
) -> None:
    for model in (cnn_run, named):  # The one was trained on the ramp, the other has class names.
        file = tmp_path / f"{model.name}.pb"
        ended = tool("freeze", model, f"--output={file}")
        assert ended.code == 0, ended.err
        assert "off     keep_prob:0    1.0" in ended.out
        assert ended.out.endswith("largest difference from the original: 0\n")
        assert _text(file, images) == _text(model, images)
    assert any(name in _text(file, images) for name in ("plane", "car", "bird", "cat"))
    assert _text(tmp_path / f"{cnn_run.name}.pb") == _text(cnn_run)  # The demo images.


@every_entry
def test_the_models_of_others(
    tool: Tool, entry: dict[str, Any], third_party: Path, tmp_path: Path
) -> None:
    meta, output, file = third_party / entry["meta"], entry["suggested_output"], tmp_path / "m.pb"
    feeds = _feeds(entry)  # Behind a parser of examples it is cut by itself.
    record = document(tool, "freeze", meta, f"--outputs={output}", f"--output={file}")
    assert record["largest_difference"] == 0
    taken = {tensor["name"] for tensor in record["inputs"].values()}
    given: dict[str, Any] = {name: feeds[name] for name in taken}
    expected = _by_stock(entry, {**feeds, **record["off"]}, tmp_path)
    (value,) = run_alone(_graph(file), [output], given)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    np.savez(tmp_path / "feeds.npz", **given)
    predicted = json.loads(_text(file, feed=[f"{tmp_path}/feeds.npz"], format="json"))
    np.testing.assert_allclose(predicted["outputs"][output], expected, rtol=1e-4, atol=1e-5)


def test_another_checkpoints_variables(tool: Tool, linear_run: Path, tmp_path: Path) -> None:
    file, old = tmp_path / "old.pb", linear_run / "my-model-270"
    assert tool("freeze", linear_run, f"--ckpt={old}", f"--output={file}").code == 0
    assert _text(file, fetch=["w:0"]) == _text(f"{old}.meta", fetch=["w:0"])


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
        return saved(folder, build).path
    finally:
        v1.enable_control_flow_v2()


def test_a_scope_is_what_an_import_under_a_name_gives(tool: Tool, tmp_path: Path) -> None:
    meta, nodes, values = _scoped_models(tmp_path), list[dict[str, Any]](), list[object]()
    for scope, name in (("", "some/model"), ("some/model", "")):
        file = tmp_path / f"m{len(nodes)}.pb"
        ended = tool("freeze", meta, f"--output={file}", f"--scope={scope}")
        assert ended.code == 0, ended.err
        nodes.append({node.name: node for node in _imported(file, name).node})
        predicted = json.loads(_text(file, feed=["x=[[1, 2, 3], [0.5, -1, 4]]"], format="json"))
        values.append([*predicted["outputs"].values()])
    assert [*predicted["outputs"]] == ["some/model/y:0"]
    assert values[0] == values[1]
    assert nodes[0] == nodes[1]


def _imported(file: Path, name: str) -> GraphDef:
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(_graph(file), name=name)
        return graph.as_graph_def()


def test_whoever_imports_it_under_a_name_keeps_what_it_says(
    tool: Tool, cnn_run: Path, images: Path, tmp_path: Path
) -> None:
    plain, scoped, by_hand = (tmp_path / f"{name}.pb" for name in ("plain", "scoped", "by_hand"))
    tool("freeze", cnn_run, f"--output={plain}")
    tool("freeze", cnn_run, f"--output={scoped}", "--scope=imported")
    by_hand.write_bytes(_imported(plain, "imported").SerializeToString())
    assert _text(by_hand, images) == _text(scoped, images) == _text(plain, images)


def _spoil(graph: GraphDef, *_: object) -> None:
    (relu,) = (node for node in graph.node if node.name == "Relu")
    relu.op = "Elu"


def test_what_cannot_be_leaves_no_file(
    tool: Tool, cnn_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, instead, line in (
        ("frozen_graph.fold", _spoil, "the frozen graph gives another fc2/add:0 than the original"),
        ("folding._MOST_BYTES", 600_000, "holds at most 600000: give --fetch fewer"),
    ):
        monkeypatch.setattr(f"tools.{where}", instead)
        assert line in refused(tool, "freeze", cnn_run, f"--output={tmp_path}/m.pb")
        assert not list(tmp_path.iterdir())
        monkeypatch.undo()


def _with_table(folder: Path, words: Path | None) -> str:
    def build() -> None:
        index = tf.lookup.TextFileIndex
        kinds = (tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        if words:
            filled: Any = tf.lookup.TextFileInitializer(str(words), *kinds)
        else:
            numbers = tf.constant([3, 5], tf.int64)
            filled = tf.lookup.KeyValueTensorInitializer(["cat", "dog"], numbers)
        table = tf.lookup.StaticHashTable(filled, -1)
        v1.get_variable("w", initializer=1.0, use_resource=False)
        tf.identity(table.lookup(v1.placeholder(tf.string, [None], name="words")), name="ids")

    return saved(folder, build).path


@pytest.mark.parametrize("from_file", [False, True], ids=["constants", "vocabulary"])
def test_a_lookup_table_is_filled(tool: Tool, tmp_path: Path, from_file: bool) -> None:
    """A stock client has to run what the report names; predict.py does so by itself."""
    words, file = tmp_path / "words.txt", tmp_path / "m.pb"
    words.write_text("a\nb\nc\ncat\nd\ndog\n")
    meta = _with_table(tmp_path, words if from_file else None)
    arguments = ["--outputs=ids", f"--output={file}"]
    moved = words.rename(tmp_path / "moved.txt")
    if from_file:
        assert "--asset words.txt=<path>" in tool("freeze", meta, *arguments).err
        arguments.append(f"--asset=words.txt={moved}")
    ended = tool("freeze", meta, *arguments)
    assert ended.code == 0, ended.err
    moved.unlink()
    run_first = [line.split()[1] for line in ended.out.splitlines() if line.startswith("  table")]
    assert run_first
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(_graph(file), name="")
        session.run(run_first)
        asked = np.array(["dog", "cat", "?"], object)
        assert session.run("ids:0", {"words:0": asked}).tolist() == [5, 3, -1]
    text = predict(PredictConfig(str(file), feed=['words=["dog", "cat", "?"]'], format="json"))
    assert '"ids:0": [5, 3, -1]' in text


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
    module, file = _Module(), tmp_path / "m.pb"
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    record = document(tool, "freeze", tmp_path / "saved", f"--output={file}")
    assert sorted(record["outputs"]) == ["first", "scores"]
    assert not ops_of(_graph(file)) & {"VarHandleOp", "ReadVariableOp", "ResourceGather"}
    text = _text(file, feed=["rows=[[1, 2, 3]]"], fetch=["scores"], format="json")
    assert [*json.loads(text)["outputs"].values()] == [[[4.0, 8.0, 12.0]]]


def test_what_may_do_more_than_compute_is_refused(tool: Tool, tmp_path: Path) -> None:
    def build() -> None:
        w = v1.get_variable("w", initializer=1.0, use_resource=False)
        tf.identity(w, name="y")
        with tf.control_dependencies([tf.io.write_file(f"{tmp_path}/written", "x")]):
            tf.identity(w, name="z")

    meta, output = saved(tmp_path, build).path, f"--output={tmp_path}/m.pb"
    assert "WriteFile" in refused(tool, "freeze", meta, "--outputs=z", output)
    assert not (tmp_path / "written").exists()
    assert "name what to keep with --fetch" in refused(tool, "freeze", meta, "--outputs=", output)
    assert tool("freeze", meta, "--outputs=y", output).code == 0
