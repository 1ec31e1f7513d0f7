"""The first two commands, as somebody new types them: they learn, and show what was learnt."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

import predict
import train_cnn
from cli.fields import parse
from data import named
from prediction.request import PredictConfig
from tests import runs
from tests.prediction.conftest import document


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> train_cnn.CnnConfig:
    """A run with no flag but its folder's."""
    folder = tmp_path_factory.mktemp("first") / "model1"
    config = parse(train_cnn.CnnConfig, ["train_cnn.py", f"--ckpt_dir={folder}"])
    assert train_cnn.train(config).exit_code == 0
    return config


def test_the_default_run_learns_as_the_readme_says(default_run: train_cnn.CnnConfig) -> None:
    names = sorted(Path(default_run.run.ckpt_dir).glob("*.manifest"))
    assert [path.stem for path in names] == [f"my-model-{step}" for step in (170, 180, 190, 200)]
    last = runs.lines(default_run.run)[-1]
    assert last["step"] == 200
    assert last["test_accuracy"] >= 0.97


def test_its_last_line_is_the_command_that_shows_eight_test_images(
    default_run: train_cnn.CnnConfig,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    with caplog.at_level("INFO"):
        train_cnn.train(default_run)  # It is finished, and says so again.
    said = caplog.messages[-1]
    assert said.startswith("predict with: python ")
    script, *given = shlex.split(said)[3:]
    assert Path(script).resolve() == Path(predict.__file__).resolve()
    predict.main(parse(PredictConfig, ["predict.py", *given, "--format=json"]))
    found = json.loads(capsys.readouterr().out)
    labels = [row["label"] for row in found["predictions"]]
    assert labels == [*named.SHAPE_NAMES] * 2
    right = [row["class"] == row["label"] for row in found["predictions"]]
    assert found["accuracy"] == sum(right) / 8
    # The same images as files, at the same probabilities.
    images, _ = named.shape_examples(named.TEST_SHAPES[:8])
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    of_files = document(default_run.run.ckpt_dir, input=[str(tmp_path)])["predictions"]
    expected = [row["probability"] for row in found["predictions"]]
    assert [row["probability"] for row in of_files] == pytest.approx(expected, abs=1e-6)


def test_shapes_are_resized_to_the_model(tmp_path: Path) -> None:
    folder = f"--ckpt_dir={tmp_path}/run"
    given = ("--image_size=16", "--train_steps=3", "--batch_size=8", "--classes=cross,circle")
    train_cnn.train(parse(train_cnn.CnnConfig, ["train_cnn.py", folder, *given]))
    rows = document(f"{tmp_path}/run")["predictions"]
    assert [row["label"] for row in rows] == ["circle", "cross"] * 4


def test_the_ramp_says_that_nothing_can_be_learnt_and_nothing_of_its_range(
    cnn_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert document(str(cnn_run))["accuracy"] == 0
        assert "from which nothing can be learnt" in caplog.text
        given = [f"--ckpt_dir={cnn_run}", "--data=ramp", "--batch_size=10"]
        train_cnn.train(parse(train_cnn.CnnConfig, ["train_cnn.py", *given]))
        assert "no more than the classes' shares, 0.3 at best" in caplog.text
        document(str(cnn_run), input=[f"{cnn_run}/data10_4.npz"])
    assert "expected [0, 1]" not in caplog.text
