"""What a run of the linear model has left."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf

from errors import ToolError
from tests.prediction import stock
from tools.plot_line import mean_squared_error, read_line_run

if TYPE_CHECKING:
    from train_linear import LinearConfig

v1 = tf.compat.v1


@pytest.fixture
def run(linear_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(linear_run, tmp_path / "model"))


def _lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "logs/metrics.jsonl").read_text().splitlines()]


def test_the_path_is_that_of_the_log(run: Path) -> None:
    found = read_line_run(str(run))
    lines = _lines(run)
    assert found.logged
    assert found.steps.tolist() == [line["step"] for line in lines] == [*range(0, 301, 10)]
    np.testing.assert_array_equal(found.path, [(line["w"], line["b"]) for line in lines])


def test_the_points_are_those_of_the_training(
    linear_config: "Callable[..., LinearConfig]", tmp_path: Path
) -> None:
    """The loss that was logged for the first step is that of the values before it."""
    from train_linear import train

    train(linear_config(tmp_path / "run", seed=7, train_steps=3, log_every_steps=1))
    found = read_line_run(str(tmp_path / "run"))
    losses = mean_squared_error(found, *found.path.T)
    logged = [line["loss"] for line in _lines(tmp_path / "run")[1:]]
    np.testing.assert_allclose(losses[:-1], logged, rtol=1e-5)


def test_the_error_is_the_mean_of_the_squares(run: Path) -> None:
    found = read_line_run(str(run))
    w, b = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    expected = [[np.mean((k * found.x + c - found.y) ** 2) for k, c in ((1, 3), (2, 4))]]
    np.testing.assert_allclose(mean_squared_error(found, w, b), expected)


def test_without_a_log_the_path_is_that_of_the_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "logs")
    found = read_line_run(str(run))
    assert not found.logged
    assert found.steps.tolist() == [270, 280, 290, 300]
    saved = [tf.train.load_checkpoint(f"{run}/my-model-{step}") for step in found.steps]
    expected = [(s.get_tensor("w").item(), s.get_tensor("b").item()) for s in saved]
    np.testing.assert_array_equal(found.path, expected)


def test_a_log_of_an_older_version_has_no_path(run: Path) -> None:
    lines = [{"step": line["step"], "loss": 1.0} for line in _lines(run)]
    (run / "logs/metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert not read_line_run(str(run)).logged


def test_the_path_ends_at_the_newest_checkpoint(run: Path) -> None:
    """Of a process that was killed, the log may be ahead."""
    for path in run.glob("my-model-300.*"):
        path.unlink()
    found = read_line_run(str(run))
    assert found.steps[-1] == 290
    assert found.steps.tolist() == [*range(0, 291, 10)]


def test_a_damaged_older_checkpoint_is_left_out(run: Path) -> None:
    shutil.rmtree(run / "logs")
    (run / "my-model-280.data-00000-of-00001").write_bytes(b"")
    assert read_line_run(str(run)).steps.tolist() == [270, 290, 300]


def test_a_run_of_another_model_is_one_line(cnn_run: Path) -> None:
    with pytest.raises(ToolError, match="found the model 'cnn'"):
        read_line_run(str(cnn_run))


def test_a_strangers_line_has_no_points(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "my-model-3"):
        v1.get_variable("w", initializer=np.array([2], np.float32), use_resource=False)
        v1.get_variable("b", initializer=np.array([1], np.float32), use_resource=False)
    with pytest.raises(ToolError, match=r"has no \.manifest: the points follow from the seed"):
        read_line_run(str(tmp_path))


def test_a_folder_without_checkpoints_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="found no checkpoint my-model-<step>"):
        read_line_run(str(tmp_path))
