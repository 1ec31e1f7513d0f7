"""Exports of models as the runtimes of other programs run them."""

import json
import os
import re
import signal
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

import finetune
from cli.terminal import EXIT_FAILED, EXIT_USAGE
from errors import CheckpointError, ToolError
from finetuning import FinetuneConfig
from prediction.evaluation import predict
from prediction.request import PredictConfig, parse_shapes
from tests.data.conftest import encode
from tests.data.idx_files import write_mnist
from tests.metagraph.made import control_flow, saved
from tests.prediction import stock
from tests.test_thirdparty import every_entry
from tests.tools.conftest import NAMES, Tool, document, refused
from tools.export import FORMATS, SUFFIXES, ExportConfig
from tools.export_saved_model import labels_text, new_version, next_version
from tools.exporting import export
from tools.freezing import Reference, largest_difference
from train_mlp import MlpConfig
from train_mlp import train as train_mlp

v1 = tf.compat.v1
Array = npt.NDArray[Any]

TENSORS = {"logits": "fc2/add:0", "probabilities": "probabilities:0", "classes": "classes:0"}
# Placeholders of unknown rank in the models of others, and the shapes that are fed there.
OPEN_SHAPES: Mapping[str, Mapping[str, Sequence[int | None]]] = {
    "regression/checkpoint/model.meta": {"X": (None,)},
    "bad_half_plus_two/00000123/export.meta": {"Placeholder": (None, 1)},
}
IMAGES = np.random.default_rng(3).random((5, 32, 32, 3), np.float32)


def _output(folder: Path, to: str) -> str:
    return f"{folder}/m{SUFFIXES.get(to, '')}"


def _export(meta: object, folder: Path, to: str, **asked: Any) -> Any:
    """The record of an export, which is near enough to the session."""
    record = export(ExportConfig(str(meta), to=to, output=_output(folder, to), **asked))
    assert record["largest_difference"] <= 1e-5
    return record


@pytest.fixture(scope="session")
def exported(named: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same model in each format: the paths."""
    folder = tmp_path_factory.mktemp("exported")
    return {to: _export(named, folder, to)["path"] for to in FORMATS}


@pytest.fixture(scope="session")
def expected(named: Path) -> dict[str, Array]:
    """What a stock client computes with the checkpoint, by the signature's keys."""
    values = stock.run(named, [*TENSORS.values()], {"x:0": IMAGES})
    return dict(zip(TENSORS, values, strict=True))


def _assert_same(found: Mapping[str, Any], expected: Mapping[str, Array]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        ours = np.asarray(found[key])
        assert ours.dtype == value.dtype
        np.testing.assert_allclose(ours, value, rtol=1e-5, atol=1e-5, err_msg=key)


def test_plain_tensorflow_loads_the_saved_model(
    exported: dict[str, str], expected: dict[str, Array]
) -> None:
    folder = exported["saved_model"]
    loaded = tf.saved_model.load(folder).signatures["serving_default"](x=tf.constant(IMAGES))
    _assert_same({key: value.numpy() for key, value in loaded.items()}, expected)
    with tf.Graph().as_default(), v1.Session() as session:  # As TensorFlow 1 does, by name.
        meta = v1.saved_model.load(session, ["serve"], folder)
        _assert_same(session.run(TENSORS, {"x:0": IMAGES}), expected)
        (asset,) = meta.asset_file_def
        assert session.run(asset.tensor_info.name) == asset.filename.encode() == b"labels.txt"
    assert Path(folder, "assets", "labels.txt").read_text().splitlines() == NAMES


def test_image_files_are_classified_as_predict_does(
    named: Path, exported: dict[str, str], tmp_path: Path
) -> None:
    folder, saved = tmp_path / "images", exported["saved_model"]
    folder.mkdir()
    rng, output = np.random.default_rng(0), str(tmp_path / "out.npz")
    for name, shape in {"a.png": (50, 41, 3), "b.jpg": (33, 70, 3), "c.png": (32, 32)}.items():
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
    files, fetch = [str(folder)], [*TENSORS.values()]
    predict(PredictConfig(str(named), fetch=fetch, input=files, output=output))
    with np.load(output) as arrays:
        ours = {key: arrays[name] for key, name in TENSORS.items()}
    signature = tf.saved_model.load(saved).signatures["serving_bytes"]
    contents = tf.constant([path.read_bytes() for path in sorted(folder.iterdir())])
    _assert_same({k: v.numpy() for k, v in signature(image_bytes=contents).items()}, ours)
    text = predict(PredictConfig(str(named), input=files))
    assert any(name in text for name in NAMES)
    assert predict(PredictConfig(saved, input=files)) == text
    assert predict(PredictConfig(saved, input=files, signature="serving_bytes")) == text


def test_onnxruntime_runs_the_onnx_model(
    exported: dict[str, str], expected: dict[str, Array]
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported["onnx"], providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["x:0"]
    assert {value.name for value in session.get_outputs()} == set(TENSORS.values())
    results = session.run([*TENSORS.values()], {"x:0": IMAGES})
    _assert_same(dict(zip(TENSORS, results, strict=True)), expected)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["class_names"]) == NAMES
    assert json.loads(properties["input_scale"]) == pytest.approx(1 / 255)
    assert json.loads(properties["outputs"]) == TENSORS


@pytest.mark.filterwarnings(  # TensorFlow's own, of its interpreter, which is to become a package.
    "ignore:.*tf.lite.Interpreter is deprecated:UserWarning"
)
def test_the_interpreter_runs_the_tflite_model(
    exported: dict[str, str], expected: dict[str, Array]
) -> None:
    interpreter = tf.lite.Interpreter(model_path=exported["tflite"])
    assert [value["name"] for value in interpreter.get_input_details()] == ["x:0"]
    found = {value["name"] for value in interpreter.get_output_details()}
    assert found == set(TENSORS.values())
    _assert_same(interpreter.get_signature_runner("serving_default")(x=IMAGES), expected)
    with zipfile.ZipFile(exported["tflite"]) as archive:
        assert archive.read("labels.txt").decode().splitlines() == NAMES


def test_equal_models_are_equal_bytes_and_nothing_is_said(
    linear_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for to in FORMATS:
        contents = set()
        for name in ("a", "b"):  # Folders that are missing are made.
            path = Path(_export(linear_run, tmp_path / to / name, to)["path"])
            contents.add((path / "saved_model.pb" if path.is_dir() else path).read_bytes())
        # tf2onnx numbers what it adds by a count of the process.
        assert len(contents) == 1 or to == "onnx", to
    assert capfd.readouterr() == ("", "")


def test_a_fine_tuned_model(
    cnn_run: Path, finetune_config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    prefix = finetune.train(finetune_config(cnn_run, "Relu:0", train_steps=4)).prefix
    for to in FORMATS:
        record = _export(f"{prefix}.meta", tmp_path, to)
        assert record["signatures"]["serving_default"]["inputs"]["x"]["name"] == "x:0"


@every_entry
def test_the_models_of_others(entry: dict[str, Any], third_party: Path, tmp_path: Path) -> None:
    meta, outputs = third_party / entry["meta"], (entry["suggested_output"],)
    shapes = next((s for name, s in OPEN_SHAPES.items() if entry["meta"].endswith(name)), {})
    inputs = tuple(tensor["name"] for tensor in entry["inputs"] if not shapes)
    for to in FORMATS:
        if shapes and to != "saved_model":
            with pytest.raises(ToolError, match="may have any shape"):
                _export(meta, tmp_path, to, outputs=outputs)
        record = _export(meta, tmp_path, to, outputs=outputs, inputs=inputs, shapes=shapes)
        (output,) = record["signatures"]["serving_default"]["outputs"].values()
        assert output["name"] == entry["suggested_output"]


def test_a_model_of_flat_images(mlp_config: Callable[..., MlpConfig], tmp_path: Path) -> None:
    data = write_mnist(tmp_path / "MNIST_data", 60, 10)
    config = mlp_config(tmp_path / "run", data_dir=str(data), batch_size=20, train_steps=3)
    prefix = train_mlp(config).prefix
    for to in FORMATS:
        record = _export(f"{prefix}.meta", tmp_path, to)
    assert record["switched_off"] == {"p_keep_input:0": 1.0, "p_keep_hidden:0": 1.0}
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    loaded = tf.saved_model.load(f"{tmp_path}/m/1")
    found = loaded.signatures["serving_bytes"](image_bytes=tf.constant([encode(pixels)]))
    rows = pixels.reshape(1, 784) * np.float32(1 / 255)
    (expected,) = stock.run(f"{prefix}.meta", ["logits:0"], {"X:0": rows})
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-6)


def _bias() -> tf.Variable:
    return v1.get_variable("bias", initializer=np.float32(0.5), use_resource=False)


def _table() -> None:
    """`y` [3], of images and a factor, by a table; names are taken that a SavedModel has too."""
    x = tf.identity(v1.placeholder(tf.float32, [3, 8, 8, 3], name="x"), name="image_bytes")
    levels = tf.cast(tf.reduce_mean(x, axis=[1, 2, 3], name="serving_bytes/mean") / 64.0, tf.int64)
    keys, values = tf.range(4, dtype=tf.int64), tf.constant([3.0, 1.0, 4.0, 1.5])
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, table._init_op)
    factor = v1.placeholder(tf.float32, [], name="factor")
    tf.multiply(table.lookup(levels) + _bias(), factor, name="y")


def test_both_signatures_compute_what_the_graph_does(tmp_path: Path) -> None:
    record = _export(saved(tmp_path, _table).path, tmp_path, "saved_model", outputs=("y",))
    signatures = tf.saved_model.load(record["path"]).signatures
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    levels = pixels.mean((1, 2, 3)).astype(int) // 64
    files = tf.constant([encode(image) for image in pixels])
    expected = (np.array([3.0, 1.0, 4.0, 1.5])[levels] + 0.5) * 2.5
    given = {"default": {"x": tf.constant(pixels, tf.float32)}, "bytes": {"image_bytes": files}}
    for name, values in given.items():
        found = signatures[f"serving_{name}"](**values, factor=tf.constant(2.5))
        np.testing.assert_allclose(found["y"], expected, rtol=1e-6)
    described = record["signatures"]["serving_bytes"]["inputs"]["image_bytes"]
    assert described == {"name": "image_bytes_1:0", "dtype": "string", "shape": (3,)}


def _open_rank() -> None:
    """`y`, of whatever shape `x` is fed."""
    tf.multiply(v1.placeholder(tf.float32, name="x"), _bias(), name="y")


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_shape_that_is_open_is_asked_for(tool: Tool, tmp_path: Path, to: str) -> None:
    meta = saved(tmp_path, _open_rank).path
    arguments = ("export", meta, f"--to={to}", f"--output={tmp_path}/m.{to}", "--outputs=y")
    assert "say it, as in --shape=x=?" in refused(tool, *arguments)
    record = document(tool, *arguments, "--shape=x=?,3")
    assert record["signatures"]["serving_default"]["outputs"]["y"]["shape"] == [None, 3]


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_an_old_producer_s_shape_is_handed_on(tmp_path: Path, to: str) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [1, 8, None, 1], name="x")
        tf.nn.conv2d(x, np.ones([5, 5, 1, 2], np.float32), 1, "SAME", name="y")

    def make_older(proto: MetaGraphDef) -> None:
        proto.graph_def.versions.producer = 21
        for node in proto.graph_def.node:
            for key in ("explicit_paddings", "dilations"):
                node.attr.pop(key, None)
            if node.op == "Placeholder":
                node.attr["shape"].shape.Clear()

    meta = saved(tmp_path, build).path
    stock.edit_meta(Path(meta), make_older)
    record = _export(meta, tmp_path, to, outputs=("y",))
    assert record["signatures"]["serving_default"]["outputs"]["y"]["shape"] == (1, 8, None, 2)


def test_shapes_are_parsed() -> None:
    found = parse_shapes(["x=?,3", "x:0=2", "y=", "a=b=?"])
    assert found == {"x": (None, 3), "x:0": (2,), "y": (), "a=b": (None,)}


def _gammas() -> None:
    """`y` [N], of a function that neither ONNX nor TFLite has."""
    x = v1.placeholder(tf.float32, [None], name="x")
    tf.add(tf.math.igamma(x, x + _bias()), 1.0, name="y")


def _chooses_a_text() -> None:
    x = v1.placeholder(tf.float32, [1], name="x")
    texts = [tf.constant(text) for text in ("low", "high")]
    tf.identity(tf.cond(tf.reduce_sum(x) > 0, lambda: texts[0], lambda: texts[1]), name="y")


def _chooses_a_text_as_of_old() -> None:
    with control_flow(new=False):
        _chooses_a_text()


def _no_input() -> None:
    tf.identity(_bias(), name="y")


def _reads_a_file() -> None:
    x = v1.placeholder(tf.float32, [None], name="x")
    read = tf.strings.length(tf.io.read_file("/etc/hostname"))
    tf.add(x * tf.cast(read, tf.float32), _bias(), name="y")


@pytest.mark.parametrize(
    ("to", "build", "expected"),
    [
        ("tflite", _gammas, "TFLite has no counterpart of Igamma"),
        ("onnx", _gammas, "the ONNX model wants Igamma, which onnxruntime has not"),
        ("tflite", _chooses_a_text, "TFLite has no counterpart of StatelessIf of texts"),
        ("tflite", _chooses_a_text_as_of_old, "TFLite has no counterpart of Merge, Switch of text"),
        ("onnx", _no_input, "y:0 follow from no input.*: export to saved_model or tflite"),
        ("tflite", _reads_a_file, "ReadFile.*Cut it with --inputs at ReadFile:0 or.*--trust_graph"),
    ],
)
def test_operations_that_a_format_lacks_or_that_may_do_harm_are_named(
    tool: Tool, tmp_path: Path, to: str, build: Callable[[], object], expected: str
) -> None:
    meta, output = saved(tmp_path, build).path, tmp_path / f"m.{to}"
    given = (f"--to={to}", f"--output={output}", "--outputs=y")
    assert re.search(expected, refused(tool, "export", meta, *given))
    assert not output.exists()


@pytest.mark.parametrize("to", FORMATS)
def test_another_result_is_not_kept(
    tool: Tool, named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    def spoilt(reference: Reference, *others: Any) -> float:
        """As if the session gave other values."""
        results = {name: value + value.dtype.type(1) for name, value in reference.results.items()}
        return largest_difference(reference._replace(results=results), *others)

    for module in ("exporting", "export_saved_model"):
        monkeypatch.setattr(f"tools.{module}.largest_difference", spoilt)
    line = refused(tool, "export", named, f"--to={to}", f"--output={_output(tmp_path, to)}")
    assert "gives another fc2/add:0 than the original" in line
    assert "more than --tolerance=1e-05; nothing is kept" in line
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == []


def test_a_tolerance_is_taken(tool: Tool, named: Path, tmp_path: Path) -> None:
    """onnxruntime sums in another order than TensorFlow."""
    arguments = ("export", named, "--to=onnx", f"--output={tmp_path}/m.onnx")
    assert tool(*arguments, "--tolerance=-1").code == EXIT_USAGE
    assert tool(*arguments, "--tolerance=0").code == EXIT_FAILED
    assert tool(*arguments, "--tolerance=0.1", "--opset=13").code == 0


def test_a_class_name_stays_on_its_line_of_the_labels() -> None:
    names = ["Vögel", "bird\nof prey", "a\r\nb", "", "c"]
    assert labels_text(names) == "Vögel\nbird of prey\na b\n\nc\n".encode()


def test_the_next_version(tmp_path: Path) -> None:
    assert next_version(f"{tmp_path}/new") == 1
    for name, expected in {
        ".2": 1,
        "7.being-written": 1,
        "x1": 1,
        "0": 1,
        "3": 4,
        "10": 11,
    }.items():
        (tmp_path / name).mkdir()
        assert next_version(str(tmp_path)) == expected
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match="is a file"):
        next_version(f"{tmp_path}/file")


def _write(path: Path, text: str, error: Exception | None = None) -> None:
    with new_version(str(path)) as folder:
        (Path(folder) / "file").write_text(text)
        assert not path.exists()
        if error is not None:
            raise error


def test_nothing_is_left_of_one_that_failed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new"):
        with pytest.raises(ToolError, match="failed"):
            _write(folder / "1", "ours", ToolError("failed"))
    assert os.listdir(tmp_path) == ["there"]
    assert os.listdir(tmp_path / "there") == []


def test_of_two_at_once_the_first_goes_on(tmp_path: Path) -> None:
    with new_version(f"{tmp_path}/1") as folder:
        (Path(folder) / "file").write_text("first")
        with pytest.raises(CheckpointError, match=r"is in use by process .* another --output$"):
            _write(tmp_path / "2", "second")
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "file").read_text() == "first"


def test_what_a_killed_export_left_is_cleared_by_the_next(linear_run: Path, tmp_path: Path) -> None:
    """Also under names with a number, and nothing else."""
    child = os.fork()
    if child == 0:
        with new_version(f"{tmp_path}/m/1") as folder:
            (Path(folder) / "file").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert {*os.listdir(tmp_path / "m")} == {".lock", "1.being-written"}
    for name in ("1.07af.being-written", "mine.being-written"):
        (tmp_path / "m" / name).mkdir()
    assert _export(linear_run, tmp_path, "saved_model")["path"] == f"{tmp_path}/m/1"
    assert {*os.listdir(tmp_path / "m")} == {"1", "mine.being-written"}
