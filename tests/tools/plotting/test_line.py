"""What a run of the linear model has left, and its picture."""

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
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D

from tools.plot_line import LineRun, draw_line
from tools.plot_runs import render

v1 = tf.compat.v1


@pytest.fixture
def run(linear_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(linear_run, tmp_path / "model"))


def _log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "logs/metrics.jsonl").read_text().splitlines()]


def test_the_path_is_that_of_the_log(run: Path) -> None:
    found = read_line_run(str(run))
    lines = _log(run)
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
    logged = [line["loss"] for line in _log(tmp_path / "run")[1:]]
    np.testing.assert_allclose(losses[:-1], logged, rtol=1e-5)


def test_the_path_ends_at_the_newest_checkpoint(run: Path) -> None:
    """Of a process that was killed, the log may be ahead."""
    for path in run.glob("my-model-300.*"):
        path.unlink()
    found = read_line_run(str(run))
    assert found.steps[-1] == 290
    assert found.steps.tolist() == [*range(0, 291, 10)]


def test_without_a_log_is_one_line(run: Path) -> None:
    shutil.rmtree(run / "logs")
    with pytest.raises(ToolError, match=r"there is no .*metrics\.jsonl; expected the folder of"):
        read_line_run(str(run))


def test_a_strangers_line_has_no_points(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "my-model-3"):
        v1.get_variable("w", initializer=np.array([2], np.float32), use_resource=False)
        v1.get_variable("b", initializer=np.array([1], np.float32), use_resource=False)
    with pytest.raises(ToolError, match=r"has no \.manifest: the points follow from the seed"):
        read_line_run(str(tmp_path))


def test_a_folder_without_checkpoints_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="found no checkpoint my-model-<step>"):
        read_line_run(str(tmp_path))


_RNG = np.random.default_rng(0)


_X = _RNG.random(30)


_Y = 0.5 * _X - 0.25 + 0.01 * _RNG.standard_normal(30)


def _run(path: list[tuple[float, float]]) -> LineRun:
    return LineRun("$m$", _X, _Y, np.arange(len(path)) * 10, np.array(path))


RUN = _run([(3.0, -2.0), (1.0, 0.0), (0.5, -0.25)])


def _panels(run: LineRun) -> tuple[Axes, Axes]:
    picture = draw_line(run)
    assert picture.figure is not None
    render(picture.figure, "p.png")
    left, right, _ = picture.figure.axes
    return left, right


def _line(axes: Axes, label: str) -> Line2D:
    return next(line for line in axes.lines if label in str(line.get_label()))


def test_the_points_and_their_line() -> None:
    left, _ = _panels(RUN)
    np.testing.assert_array_equal(_line(left, "points").get_xydata(), np.stack([_X, _Y], axis=1))
    ends = np.array([_X.min(), _X.max()])
    line = _line(left, "y = 0.5000 x - 0.2500")
    np.testing.assert_allclose(
        np.asarray(line.get_xydata()), np.stack([ends, 0.5 * ends - 0.25], axis=1)
    )


def test_the_path_is_that_of_the_run() -> None:
    _, right = _panels(RUN)
    np.testing.assert_array_equal(_line(right, "path").get_xydata(), RUN.path)
    np.testing.assert_array_equal(_line(right, "step 0").get_xydata(), RUN.path[:1])
    np.testing.assert_array_equal(_line(right, "step 20").get_xydata(), RUN.path[-1:])


def test_the_least_squares_are_those_of_numpy() -> None:
    _, right = _panels(RUN)
    found = np.asarray(_line(right, "least squares").get_xydata())
    np.testing.assert_allclose(found[0], np.polyfit(_X, _Y, 1))


@pytest.mark.parametrize("path", [RUN.path.tolist(), [(0.5, -0.25)]])
def test_contours_lie_where_the_loss_is_theirs(path: list[tuple[float, float]]) -> None:
    """The path and the best values are within; a path that has not moved lies in a valley."""
    run = _run(path)
    _, right = _panels(run)
    (contours,) = (c for c in right.collections if isinstance(c, QuadContourSet))
    levels, outlines = np.asarray(contours.levels), contours.get_paths()
    assert len(outlines) == len(levels) - 1
    for index in range(len(outlines) // 2, len(outlines)):  # Below, the grid is coarse.
        loss = mean_squared_error(run, *np.asarray(outlines[index].vertices).T)
        assert levels[index] * 0.98 <= loss.min() <= loss.max() <= levels[index + 1] * 1.02
    (w_low, w_high), (b_low, b_high) = right.get_xlim(), right.get_ylim()
    assert w_low < min(w for w, _ in path) <= max(w for w, _ in path) < w_high
    assert b_low < min(b for _, b in path) <= max(b for _, b in path) < b_high
    assert min(w_high - w_low, b_high - b_low) >= 2 * (1 - 1e-9)
