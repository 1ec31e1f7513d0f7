"""Predictions of ONNX models, without TensorFlow."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from errors import PredictionError, UserError
from prediction.evaluation import predict
from prediction.onnx_file import find_onnx
from prediction.request import PredictConfig
from tests.conftest import PROJECT, run_python
from tests.prediction.conftest import document, outputs, write_npz
from tools.export import ExportConfig
from tools.exporting import export

_value = helper.make_tensor_value_info
_FLOATS = ("x", TensorProto.FLOAT, ["rows", 3])


def _model(path: Path, *nodes: Any, given: Any = _FLOATS, made: Any = None, **told: Any) -> str:
    made = made or ("y", given[1], given[2])
    graph = helper.make_graph([*nodes], "g", [_value(*given)], [_value(*made)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in told.items()})
    onnx.save(model, str(path))
    return str(path)


def _twice(path: Path, **told: Any) -> str:
    """`y = x + x`."""
    return _model(path, helper.make_node("Add", ["x", "x"], ["y"]), **told)


@pytest.fixture(scope="session")
def exported(cnn_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The default CNN of the ramp as ONNX."""
    path = tmp_path_factory.mktemp("onnx") / "cnn.onnx"
    export(ExportConfig(str(cnn_run), to="onnx", output=str(path)))
    return str(path)


@pytest.fixture
def images(tmp_path: Path) -> Callable[[str], str]:
    """Rows of each kind."""

    def rows(kind: str) -> str:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (300, 32, 32, 3), np.uint8)
        if kind == "folder":
            (tmp_path / "folder").mkdir()
            for number, image in enumerate(pixels[:3]):
                Image.fromarray(image).resize((50, 41)).save(tmp_path / "folder" / f"{number}.png")
            return str(tmp_path / "folder")
        if kind == "npz":
            return write_npz(tmp_path / "rows.npz", X=pixels, Y=np.arange(300) % 4)
        np.save(tmp_path / "rows.npy", pixels[:3] / np.float32(255))
        return str(tmp_path / "rows.npy")

    return rows


@pytest.mark.parametrize("kind", ["folder", "npz", "npy"])
def test_the_same_as_the_checkpoint(
    exported: str, cnn_run: Path, images: Callable[[str], str], tmp_path: Path, kind: str
) -> None:
    given: dict[str, Any] = {"input": [images(kind)]}
    one, other = (document(meta, **given) for meta in (exported, str(cnn_run)))
    assert (one["meta"], one["checkpoint"]) == (exported, None)
    assert one.keys() == other.keys()
    for found, expected in zip(one["predictions"], other["predictions"], strict=True):
        assert found.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-5)
        assert found == expected
    assert one.get("accuracy_per_class") == other.get("accuracy_per_class")
    fetch = ("fc2/add", "probabilities", "classes")
    for ours, theirs in zip(
        outputs(tmp_path, exported, *fetch, **given),
        outputs(tmp_path, str(cnn_run), *fetch, **given),
        strict=True,
    ):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    texts = [predict(PredictConfig(meta, **given)) for meta in (exported, str(cnn_run))]
    number = re.compile(r"\b[01]\.\d{4}")
    assert len({number.sub("P", text) for text in texts}) == 1
    ours, theirs = ([*map(float, number.findall(text))] for text in texts)
    assert ours == pytest.approx(theirs, abs=1.1e-4)  # The last digit may be rounded otherwise.


def test_the_built_in_rows_and_keys_of_the_signature(exported: str, cnn_run: Path) -> None:
    assert predict(PredictConfig(exported)) == predict(PredictConfig(str(cnn_run)))
    x = json.dumps(np.zeros((1, 32, 32, 3)).tolist())
    found = document(exported, fetch=["logits"], feed=[f"x={x}"])
    assert [*found["outputs"]] == ["fc2/add:0"]
    content = document(exported, list=True)
    assert content["signature"] == document(str(cnn_run), list=True)["signature"]


def test_tensorflow_is_never_imported(
    exported: str, images: Callable[[str], str], tmp_path: Path
) -> None:
    """Nor need it be installed: here, to import it is an error."""
    (tmp_path / "tensorflow.py").write_text("raise SystemError('TensorFlow')")
    shutil.copy(exported, tmp_path / "m.onnx")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    folder = images("folder")
    for asked in ([str(tmp_path / "m.onnx")], [str(Path(exported).parent), "--output=o.npz"]):
        ended = run_python(
            PROJECT / "predict.py", *asked, f"--input={folder}", env=environment, cwd=tmp_path
        )
        assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 3), ended.stderr
    with np.load(tmp_path / "o.npz") as found:
        assert found["fc2/add:0"].shape == (3, 4)


def test_a_model_of_others_goes_by_its_own_names(tmp_path: Path) -> None:
    path = _twice(tmp_path / "m.onnx")
    assert document(path, feed=["x=[[1, 2, 3]]"])["outputs"] == {"y": [[2, 4, 6]]}
    rows = np.arange(900, dtype=np.float32).reshape(300, 3)
    np.save(tmp_path / "x.npy", rows)
    (found,) = [document(path, input=[f"{tmp_path}/x.npy"])["outputs"]["y"]]
    assert np.array_equal(found, 2 * rows)
    listed = document(path, list=True)
    assert listed["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 3]}]
    assert "output y = y" in predict(PredictConfig(path, list=True))


def test_texts_are_bytes_as_in_tensorflow(tmp_path: Path) -> None:
    given = ("x", TensorProto.STRING, ["rows"])
    path = _model(tmp_path / "m.onnx", helper.make_node("Identity", ["x"], ["y"]), given=given)
    (tmp_path / "x.txt").write_text("ä\nb\n")
    assert document(path, input=[f"{tmp_path}/x.txt"])["outputs"] == {"y": ["ä", "b"]}
    assert document(path, feed=['x=["c"]'])["outputs"] == {"y": ["c"]}


def test_the_one_model_in_a_folder(tmp_path: Path) -> None:
    assert find_onnx(str(tmp_path)) is None
    path = _twice(tmp_path / "a.ONNX")
    assert find_onnx(str(tmp_path)) == path
    _twice(tmp_path / "b.onnx")
    with pytest.raises(PredictionError, match=r"holds 2 models; name one: a\.ONNX, b\.onnx"):
        find_onnx(str(tmp_path))
    (tmp_path / "model.meta").touch()
    assert find_onnx(str(tmp_path)) is None


_FED = ["x=[[1, 2, 3]]"]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({}, r"y needs x float32 \[\?, 3\]: feed it with --feed x=\.\.\."),
        ({"feed": ["z=1"]}, r"has no input or output 'z'; the nearest are x, y"),
        ({"feed": ["y=[[1, 2, 3]]"]}, "y needs x|y cannot be fed"),
        ({"feed": _FED, "fetch": ["x"]}, "x cannot be fetched: of an ONNX model only its outputs"),
        ({"feed": ["x=[[1, 2]]"]}, r"x takes float32 \[\?, 3\], found"),
        ({"feed": _FED, "checkpoint": "c"}, "--ckpt=c: .* is an ONNX model, which has none"),
        ({"feed": _FED, "weights": "ema"}, "--weights=ema: .* which has none"),
        ({"feed": _FED, "signature": "other"}, "--signature=other: .* which has none"),
        ({"feed": _FED, "asset": ["a=b"]}, "--asset=a=b: .* which has none"),
        ({"feed": _FED, "max_meta_bytes": 9}, r"holds \d+ bytes; --max_meta_mb allows more"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, asked: dict[str, Any], line: str) -> None:
    path = _twice(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=line) as raised:
        predict(PredictConfig(path, **asked))
    assert "\n" not in str(raised.value)


def _write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _of_others(path: Path) -> str:
    return _model(path, helper.make_node("Strange", ["x"], ["y"], domain="mine"))


def _cut(path: Path) -> None:
    content = Path(_twice(path)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _fails(path: Path) -> str:
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [-1])
    nodes = [
        helper.make_node("Constant", [], ["s"], value=shape),
        helper.make_node("Reshape", ["x", "s"], ["flat"]),
        helper.make_node("MatMul", ["x", "flat"], ["y"]),
    ]
    return _model(path, *nodes, made=("y", TensorProto.FLOAT, None))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (_write(b""), "is no ONNX model that can be run"),
        (_write(b"not a model" * 100), "is no ONNX model that can be run"),
        (_write(b"\x08" + b"\xff" * 50), "is no ONNX model that can be run"),
        (_cut, "is no ONNX model that can be run"),
        (_of_others, r"wants mine[.:]Strange.*, which onnxruntime has not"),
        (lambda path: _twice(path, input_scale="much"), "its metadata has no input_scale that can"),
        (lambda path: _twice(path, class_names={"a": 1}), "no class_names that can be"),
        (lambda path: _twice(path, inputs=["x"]), "no inputs that can be"),
        (lambda path: _twice(path, image_shape=[1, -1, 3]), "no image_shape that can be"),
        (_fails, "the model fails: "),
        (lambda path: path.with_suffix(".none"), "No such file"),
    ],
    ids=range(11),
)
def test_a_file_that_is_none_is_one_line(
    tmp_path: Path, make: Callable[[Path], object], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=line) as raised:
        predict(PredictConfig(f"{tmp_path}/m.onnx", feed=["x=[[1, 2, 3], [4, 5, 6]]"]))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_without_onnxruntime_a_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PredictionError, match="pip install onnxruntime"):
        predict(PredictConfig(_twice(tmp_path / "m.onnx")))
