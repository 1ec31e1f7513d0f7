"""`python -m tools.plot`, as a user calls it."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from prediction.evaluation import classify
from prediction.request import PredictConfig
from tests.conftest import Make, Patch
from tests.prediction.conftest import document
from tests.tools.conftest import Tool, refused


@pytest.fixture(scope="session")
def colours_run(
    cnn_config: Make,
    three_classes: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run that tells three classes apart."""
    from train_cnn import train

    folder = tmp_path_factory.mktemp("colours") / "run"
    assert train(cnn_config(folder, data=three_classes, train_steps=6)).exit_code == 0
    return folder


@pytest.fixture(scope="session")
def mislabelled(
    colours_run: Path, three_classes: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The images of that run, with labels that it takes for wrong in three rows."""
    labels = classify(PredictConfig(str(colours_run), input=[three_classes])).result.classes.copy()
    labels[[2, 11, 17]] = (labels[[2, 11, 17]] + 1) % 3
    path = tmp_path_factory.mktemp("mislabelled") / "rows.npz"
    with np.load(three_classes) as arrays:
        np.savez(path, X=arrays["X"], Y=labels)
    return path


def test_confusion_and_mistakes_are_what_predict_says(
    tool: Tool, colours_run: Path, mislabelled: Path, tmp_path: Path
) -> None:
    given = (f"--meta={colours_run}", f"--input={mislabelled}", "--format=json")
    said = document(str(colours_run), input=[str(mislabelled)])
    counts = np.zeros((3, 3), int)
    for row in said["predictions"]:
        counts[int(row["label"]), int(row["class"])] += 1
    found = json.loads(tool("plot", "confusion", *given, f"--output={tmp_path}/c.png").out)
    assert found["counts"] == counts.tolist()
    assert found["accuracy"] == said["accuracy"] == 21 / 24
    assert (found["rows"], found["classes"]) == (24, ["0", "1", "2"])
    worst = json.loads(
        tool("plot", "mistakes", *given, "--most=2", f"--output={tmp_path}/w.png").out
    )
    rows = [said["predictions"][row] for row in (2, 11, 17)]
    assert worst["mistakes"] == sorted(rows, key=lambda row: -row["probability"])[:2]
    assert worst["wrong"] == 3
    with Image.open(tmp_path / "w.png") as image:
        image.load()


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("what", ["metrics", "line", "filters", "confusion", "mistakes"])
def test_two_calls_give_equal_bytes(
    tool: Tool,
    what: str,
    suffix: str,
    linear_run: Path,
    colours_run: Path,
    mislabelled: Path,
    tmp_path: Path,
) -> None:
    rows = (f"--input={mislabelled}",) if what in ("confusion", "mistakes") else ()
    run = (str(linear_run),) if what in ("metrics", "line") else (f"--meta={colours_run}",)
    given = (*run, *rows, f"--output={tmp_path}/p.{suffix}")
    path, contents = tmp_path / f"p.{suffix}", []
    for overwrite in ([], ["--overwrite"]):
        assert tool("plot", what, *given, *overwrite).code == 0
        contents.append(path.read_bytes())
        assert "is there already; --overwrite replaces it" in tool("plot", what, *given).err
    assert contents[0] == contents[1]
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("command", "package", "said"),
    [
        (("plot", "line", "--run={}"), "matplotlib", "`plot`: pip install matplotlib"),
        (("report", "--run={}"), "matplotlib", "`plot`: pip install matplotlib"),
        (
            ("export", "{}", "--to=onnx", "--output=m.onnx"),
            "tf2onnx",
            "`onnx`: pip install tf2onnx",
        ),
    ],
)
def test_without_a_package_a_line_names_it(
    tool: Tool, command: list[str], package: str, said: str, linear_run: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(tool, *(text.format(linear_run) for text in command))
    assert f"needs the packages of the extra {said}" in line


@pytest.mark.parametrize("command", [("plot", "line"), ("report",)])
def test_a_setting_that_matplotlib_refuses_is_one_line(
    tool: Tool, linear_run: Path, monkeypatch: Patch, command: tuple[str, ...]
) -> None:
    said = "Key backend: 'nonsense' is not a valid value"
    refusing = SimpleNamespace(import_module=Mock(side_effect=ValueError(said)))
    monkeypatch.setattr("tools.command.importlib", refusing)
    ended = tool(*command, f"--run={linear_run}")
    assert (ended.code, ended.err) == (1, f"matplotlib cannot be imported: {said}")
