"""`python -m tools.plot`, as a user calls it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from prediction.evaluation import classify, predict
from prediction.request import PredictConfig
from tests.data.idx_files import write_mnist
from tests.tools.conftest import Tool, write_class_folders

if TYPE_CHECKING:
    from finetuning import FinetuneConfig
    from train_cnn import CnnConfig
    from train_mlp import MlpConfig


@pytest.fixture(scope="session")
def colours_run(
    cnn_config: "Callable[..., CnnConfig]",
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
    said = json.loads(
        predict(PredictConfig(str(colours_run), input=[str(mislabelled)], format="json"))
    )
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


def test_no_mistake_is_no_picture_and_no_failure(
    tool: Tool, colours_run: Path, three_classes: str, tmp_path: Path
) -> None:
    """The labels are what the model says."""
    said = classify(PredictConfig(str(colours_run), input=[three_classes])).result
    with np.load(three_classes) as arrays:
        np.savez(tmp_path / "right.npz", X=arrays["X"], Y=said.classes)
    given = (f"--meta={colours_run}", f"--input={tmp_path}/right.npz", f"--output={tmp_path}/w.png")
    ended = tool("plot", "mistakes", *given)
    assert ended.code == 0
    assert ended.out == "no mistake in 24 rows: no picture is written\n"
    assert json.loads(tool("plot", "mistakes", *given, "--format=json").out)["output"] is None
    assert not (tmp_path / "w.png").exists()


def test_a_folder_of_classes(
    tool: Tool, cnn_config: "Callable[..., CnnConfig]", tmp_path: Path
) -> None:
    """Names that would be formulas, and one that no font has."""
    from train_cnn import train

    write_class_folders(tmp_path / "images", ["$x$", "\u732b"], 4, "$.png")
    train(cnn_config(tmp_path / "$run", data=str(tmp_path / "images"), train_steps=1, batch_size=2))
    given = (f"--meta={tmp_path}/$run", f"--input={tmp_path}/images")
    for what in ("confusion", "mistakes"):
        ended = tool("plot", what, *given, f"--output={tmp_path}/{what}.svg", "--format=json")
        assert ended.code == 0, ended.err
    ended = tool("plot", "metrics", f"--run={tmp_path}/$run", f"--output={tmp_path}/m.svg")
    assert ended.code == 0, ended.err
    assert "$run" in (tmp_path / "m.svg").read_text()
    assert "$x$" in (tmp_path / "confusion.svg").read_text()


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
    run = (f"--run={linear_run}",) if what in ("metrics", "line") else (f"--meta={colours_run}",)
    given = (*run, *rows, f"--output={tmp_path}/p.{suffix}")
    path, contents = tmp_path / f"p.{suffix}", []
    for overwrite in ([], ["--overwrite"]):
        assert tool("plot", what, *given, *overwrite).code == 0
        contents.append(path.read_bytes())
        assert "is there already; --overwrite replaces it" in tool("plot", what, *given).err
    assert contents[0] == contents[1]
    assert [*tmp_path.iterdir()] == [path]


def test_an_error_is_one_line_and_leaves_no_file(
    tool: Tool, linear_run: Path, cnn_run: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for given, said in (
        ([f"--meta={linear_run}"], "does not say that it is a classifier"),
        ([f"--meta={cnn_run}", f"--input={tmp_path}/a.png"], "the true classes of the rows"),
    ):
        ended = tool("plot", "confusion", *given, f"--output={tmp_path}/c.png")
        assert ended.code == 1
        assert said in ended.err
        assert "\n" not in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("command", [("plot", "line"), ("report",)])
def test_without_matplotlib_a_line_names_it(
    tool: Tool, command: tuple[str, ...], linear_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = tool(*command, f"--run={linear_run}")
    assert ended.code == 1
    assert "needs the packages of the extra `plot`: pip install matplotlib" in ended.err
    assert "\n" not in ended.err


@pytest.mark.parametrize("command", [("plot", "line"), ("report",)])
def test_a_setting_that_matplotlib_refuses_is_one_line(
    tool: Tool, linear_run: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    said = "Key backend: 'nonsense' is not a valid value"
    refusing = SimpleNamespace(import_module=Mock(side_effect=ValueError(said)))
    monkeypatch.setattr("tools.command.importlib", refusing)
    ended = tool(*command, f"--run={linear_run}")
    assert (ended.code, ended.err) == (1, f"matplotlib cannot be imported: {said}")


def test_digits_of_the_perceptron(
    tool: Tool, mlp_config: "Callable[..., MlpConfig]", tmp_path: Path
) -> None:
    """Its rows are flat; the graph says what image they hold."""
    from train_mlp import train

    data = write_mnist(tmp_path / "MNIST_data", 40, 20)
    train(mlp_config(tmp_path / "run", data_dir=str(data), batch_size=20, train_steps=4))
    given = (f"--meta={tmp_path}/run", f"--input={data}/t10k-images-idx3-ubyte", "--format=json")
    matrix = json.loads(tool("plot", "confusion", *given, f"--output={tmp_path}/c.png").out)
    assert np.sum(matrix["counts"], axis=1).tolist() == [2] * 10
    assert matrix["classes"] == [*map(str, range(10))]
    worst = json.loads(tool("plot", "mistakes", *given, f"--output={tmp_path}/w.png").out)
    assert worst["wrong"] == 20 - np.trace(matrix["counts"])
    assert "stretched" not in worst["summary"]
    ended = tool("plot", "filters", f"--meta={tmp_path}/run", f"--output={tmp_path}/f.png")
    assert (ended.code, "found no convolution that its prediction needs" in ended.err) == (1, True)


def test_a_fine_tuned_model(
    tool: Tool,
    cnn_run: Path,
    finetune_config: "Callable[..., FinetuneConfig]",
    three_classes: str,
    tmp_path: Path,
) -> None:
    from finetune import train

    train(finetune_config(cnn_run, "conv2/MaxPool2d", ckpt_dir=tmp_path / "run", train_steps=2))
    for what, *given in (
        ("metrics", f"--run={tmp_path}/run"),
        ("filters", f"--meta={tmp_path}/run"),
        ("confusion", f"--meta={tmp_path}/run", f"--input={three_classes}"),
    ):
        ended = tool("plot", what, *given, f"--output={tmp_path}/{what}.png")
        assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["line", "--run="], "must not be empty"),
        (["line", "--run=a", "--run=b"], "line takes one --run"),
        (["filters"], "filters needs --meta"),
        (["--what=confusion"], "confusion needs --meta"),
        (["metrics", "--run=a", "--meta=b"], "--meta is not for metrics"),
        (["filters", "--meta=b", "--input=c"], "--input is not for filters"),
        (["confusion", "--meta=b", "--tensor=c"], "--tensor is not for confusion"),
        (["line", "--run=a", "--log_loss"], "--log_loss is not for line"),
        (["filters", "--meta=b", "--ignore_exif"], "--ignore_exif is not for filters"),
        (["mistakes", "--meta=a", "--most=0"], "--most=0"),
    ],
)
def test_usage(tool: Tool, arguments: list[str], said: str) -> None:
    ended = tool("plot", *arguments)
    assert ended.code == 2
    assert said in ended.err
