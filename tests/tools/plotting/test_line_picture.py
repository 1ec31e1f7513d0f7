"""The points with their line, and the path over the loss."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D

from tools.plot_line import LineRun, draw_line, mean_squared_error
from tools.plot_runs import render

_RNG = np.random.default_rng(0)
_X = _RNG.random(30)
_Y = 0.5 * _X - 0.25 + 0.01 * _RNG.standard_normal(30)


def _run(path: list[tuple[float, float]]) -> LineRun:
    return LineRun("$m$", _X, _Y, np.arange(len(path)) * 10, np.array(path), logged=True)


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


def test_what_is_told() -> None:
    picture = draw_line(RUN)
    assert picture.summary.startswith("y = 0.5000 x - 0.2500 after 20 steps")
    loss = float(np.mean((0.5 * _X - 0.25 - _Y) ** 2))
    assert picture.record["loss"] == pytest.approx(loss)
    assert picture.record["path"][0] == {"step": 0, "w": 3.0, "b": -2.0}
    assert picture.figure is not None
    assert picture.figure.get_suptitle() == "$m$, step 20"
