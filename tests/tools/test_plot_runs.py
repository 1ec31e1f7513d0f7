"""The log of a run and its curves, the line of the linear model, and what all pictures share."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from errors import ToolError, UserError
from tests.conftest import Make
from tools.plotting import (
    LineRun,
    Picture,
    RunMetrics,
    as_label,
    draw_line,
    draw_metrics,
    mean_squared_error,
    new_figure,
    read_line_run,
    read_run,
    render,
    style,
)
from training.metrics import Metrics, MetricsLog

pytestmark = pytest.mark.usefixtures("styled")


def _write(folder: Path, content: bytes) -> str:
    (folder / "logs").mkdir()
    (folder / "logs/metrics.jsonl").write_bytes(content)
    return str(folder)


def test_it_reads_what_the_trainer_writes(tmp_path: Path) -> None:
    with MetricsLog(str(tmp_path), tf.Graph(), 0) as log:
        log.write(Metrics(0, variables={"w": 2.0}))
        log.write(Metrics(10, loss=0.5, accuracy=0.25))
        log.write(Metrics(20, loss=0.25, accuracy=0.75, test_accuracy=0.5))
    run = read_run(str(tmp_path))
    assert {name: series.tolist() for name, series in run.series.items()} == {
        "w": [[0], [2.0]],
        "loss": [[10, 20], [0.5, 0.25]],
        "accuracy": [[10, 20], [0.25, 0.75]],
        "test_accuracy": [[20], [0.5]],
    }
    assert run.last_step == 20


def test_damaged_lines_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps rise, and of two lines of one the later counts."""
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    good = b'{"step": 20, "loss": 3}\n{"step": 10, "loss": 1}\n'
    damaged = [b"\xff\x00\n", b"[1]\n", b'{"step": -4}\n', b'{"step": 1e999, "loss": 1}\n']
    tail = b'{"step": 20, "loss": 2}\n{"step": 30, "lo'
    run = read_run(_write(tmp_path, good + b"".join(damaged) + tail))
    assert run.series["loss"].tolist() == [[10, 20], [1, 2]]
    (line,) = said
    assert line.endswith("damaged: 6")


def test_what_is_no_finite_number_is_a_gap_or_nothing(tmp_path: Path) -> None:
    values = ["NaN", "Infinity", "1" + "0" * 400, "-4e38", '"text"', "true", "null", "[1]"]
    content = "".join(f'{{"step": {i}, "loss": {v}}}\n' for i, v in enumerate(values)).encode()
    steps, found = read_run(_write(tmp_path, content)).series["loss"]
    assert steps.tolist() == [0, 1, 2, 3]
    assert all(map(math.isnan, found))


@pytest.mark.parametrize("content", [b"", b'{"step": 10}\n', b'{"step": 10, "loss": 1}'])
def test_a_log_without_a_number_is_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ToolError, match="holds no number"):
        read_run(_write(tmp_path, content))


_STEPS = [10.0, 20.0, 30.0]


def _run(folder: str, series: Mapping[str, Sequence[float]]) -> RunMetrics:
    return RunMetrics(folder, {k: np.array([_STEPS[: len(v)], v]) for k, v in series.items()})


ONE = _run("a/$one$", {"loss": [4.0, 1e-3, math.nan], "w": [1.0, 2.0, 3.0]})
ACCURACIES = {"accuracy": [0.25, 0.5], "test_accuracy": [0.5, 0.75]}
TWO = _run("b/two", {"loss": [3.0, 2.0], **ACCURACIES, "learning_rate": [1e-3, 2e-3]})


def _drawn(picture: Picture) -> Figure:
    assert picture.figure is not None
    return picture.figure


def _lines(figure: Figure) -> dict[tuple[str, str], Line2D]:
    return {(a.get_ylabel(), str(line.get_label())): line for a in figure.axes for line in a.lines}


def _legend(figure: Figure) -> dict[str, Line2D]:
    """The one legend of a figure: text -> line."""
    (legend,) = figure.legends
    assert not any(axes.get_legend() for axes in figure.axes)
    texts = [text.get_text() for text in legend.get_texts()]
    return dict(zip(texts, legend.get_lines(), strict=True))


def test_each_line_is_what_the_log_says() -> None:
    """A run has one colour and one marker everywhere, and the test split is dashed and wider."""
    picture = draw_metrics([ONE, TWO], log_loss=False)
    figure = _drawn(picture)
    expected = {
        ("loss", "a/$one$: training batch"): ONE.series["loss"],
        ("loss", "b/two: training batch"): TWO.series["loss"],
        ("accuracy", "b/two: training batch"): TWO.series["accuracy"],
        ("accuracy", "b/two: test split"): TWO.series["test_accuracy"],
        ("learning rate", "b/two: learning rate"): TWO.series["learning_rate"],
    }
    found = _lines(figure)
    assert found.keys() == expected.keys()
    for key, series in expected.items():
        np.testing.assert_array_equal(found[key].get_xydata(), series.T)
    legend = _legend(figure)
    kinds = ("training batch", "test split", "learning rate")
    assert {*legend} == {"a/$one$: training batch", *(f"b/two: {kind}" for kind in kinds)}
    looks = {run: set[Any]() for run in ("a/$one$", "b/two")}
    for (_, label), line in found.items():
        looks[label.partition(":")[0]].add((line.get_color(), line.get_marker()))
        is_test = label.endswith("test split")
        assert line.get_linestyle() == ("--" if is_test else "-")
        assert (line.get_linewidth() > 2) == is_test
        assert legend[label].get_linestyle() == line.get_linestyle()
    assert [*map(len, looks.values())] == [1, 1]
    assert looks["a/$one$"] != looks["b/two"]
    assert figure.get_suptitle() == "Loss, accuracy, learning rate of 2 runs"
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "step (updates done)"]
    assert picture.summary == (
        "loss, accuracy, learning rate of a/$one$ to step 30, b/two to step 20; "
        "a/$one$ left out of accuracy, learning rate: its log has none"
    )


def test_of_one_run_the_title_has_its_name_and_the_legend_the_kinds() -> None:
    picture = draw_metrics([TWO], log_loss=False)
    legend = _legend(_drawn(picture))
    assert [*legend] == ["training batch", "test split", "learning rate"]
    assert len({line.get_color() for line in legend.values()}) == 3
    assert _drawn(picture).get_suptitle() == "Loss, accuracy, learning rate of b/two"
    assert picture.summary == "loss, accuracy, learning rate of b/two to step 20"
    assert [*_legend(_drawn(draw_metrics([ONE], log_loss=False)))] == ["training batch"]


def test_many_runs_are_told_apart() -> None:
    runs = [_run(f"r{i}", {"loss": [1.0]}) for i in range(20)]
    (axes,) = _drawn(draw_metrics(runs, log_loss=False)).axes
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 20


@pytest.mark.parametrize("values", [[4.0, 1e-3, 0.0], [0.5, 0.6, 0.7]])
def test_the_loss_can_be_logarithmic(values: list[float]) -> None:
    """Its numbers are no formulas; what is not above 0 has no place on it."""
    figure = _drawn(draw_metrics([_run("one", {"loss": values})], log_loss=True))
    render(figure, "p.png")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    labels = [*axes.get_yticklabels(), *axes.get_yticklabels(minor=True)]
    assert not any("$" in label.get_text() for label in labels)


@pytest.mark.parametrize("log_loss", [False, True])
@pytest.mark.parametrize(
    "values", [[3.4e38, -3.4e38, 0.0], [5e-324, 5e-324], [math.nan, math.nan], [1.0]]
)
def test_any_numbers_can_be_drawn(values: list[float], log_loss: bool) -> None:
    figure = _drawn(draw_metrics([_run("one", {"loss": values})], log_loss=log_loss))
    for suffix in ("png", "svg"):
        render(figure, f"p.{suffix}")


def _figure(title: str = "a title") -> Figure:
    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.plot([0, 1, 2], [1, 3, 2], label="a line")
    axes.fill_between([0, 1], [0, 1], hatch="/")  # Of an SVG, hatches and clips have ids.
    axes.set_title(title)
    axes.legend()
    return figure


def test_any_text_is_drawn_as_it_stands() -> None:
    """As one printable line: neither a formula, nor XML, nor with a warning of missing glyphs."""
    label = as_label("$x_{1}$ <&>\n\u732b\t\ufffe \x1b[31m \udc80")
    assert label == "$x_{1}$ <&> \u732b \ufffd \ufffd[31m \ufffd"
    with style():
        render(_figure(label), "p.png")
        content = render(_figure(label), "p.svg")
    ET.fromstring(content)
    assert "$x_{1}$" in content.decode()


def test_the_users_own_style_changes_nothing_and_is_kept() -> None:
    plain = render(_figure(), "p.png")
    with mpl.rc_context({"font.size": 20, "text.usetex": True}):
        with style():
            assert render(_figure(), "p.png") == plain
        assert mpl.rcParams["font.size"] == 20


def _log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "logs/metrics.jsonl").read_text().splitlines()]


def test_the_path_is_that_of_the_log(run: Path) -> None:
    found = read_line_run(str(run))
    lines = _log(run)
    assert found.steps.tolist() == [line["step"] for line in lines] == [*range(0, 301, 10)]
    np.testing.assert_array_equal(found.path, [(line["w"], line["b"]) for line in lines])


def test_the_points_are_those_of_the_training(linear_config: Make, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("logs/metrics.jsonl", r"there is no .*metrics\.jsonl; expected the folder of"),
        ("my-model-*", "found no checkpoint my-model-<step>"),
        ("my-model-*.manifest", r"has no \.manifest: the points follow from"),
    ],
)
def test_what_is_missing_is_one_line(run: Path, gone: str, said: str) -> None:
    for path in run.glob(gone):
        path.unlink()
    with pytest.raises(UserError, match=said):
        read_line_run(str(run))


def test_a_log_without_w_and_b_is_one_line(run: Path) -> None:
    (run / "logs/metrics.jsonl").write_text('{"step": 10, "loss": 1, "w": 1}\n')
    with pytest.raises(ToolError, match="expected w and b in its log"):
        read_line_run(str(run))


_RNG = np.random.default_rng(0)
_X = _RNG.random(30)
_Y = 0.5 * _X - 0.25 + 0.01 * _RNG.standard_normal(30)


def _line_run(path: list[tuple[float, float]]) -> LineRun:
    return LineRun("$m$", _X, _Y, np.arange(len(path)) * 10, np.array(path))


RUN = _line_run([(3.0, -2.0), (1.0, 0.0), (0.5, -0.25)])


def _panels(run: LineRun) -> tuple[Axes, Axes]:
    picture = draw_line(run)
    assert picture.figure is not None
    render(picture.figure, "p.png")
    left, right, _ = picture.figure.axes
    return left, right


def _line(axes: Axes, label: str) -> Line2D:
    return next(line for line in axes.lines if label in str(line.get_label()))


def test_what_is_drawn_of_a_line() -> None:
    left, right = _panels(RUN)
    np.testing.assert_array_equal(_line(left, "points").get_xydata(), np.stack([_X, _Y], axis=1))
    ends = np.array([_X.min(), _X.max()])
    line = np.asarray(_line(left, "y = 0.5000 x - 0.2500").get_xydata())
    np.testing.assert_allclose(line, np.stack([ends, 0.5 * ends - 0.25], axis=1))
    for label, path in (("path", RUN.path), ("step 0", RUN.path[:1]), ("step 20", RUN.path[-1:])):
        np.testing.assert_array_equal(_line(right, label).get_xydata(), path)
    found = np.asarray(_line(right, "least squares").get_xydata())
    np.testing.assert_allclose(found[0], np.polyfit(_X, _Y, 1))


@pytest.mark.parametrize("path", [RUN.path.tolist(), [(0.5, -0.25)]])
def test_contours_lie_where_the_loss_is_theirs(path: list[tuple[float, float]]) -> None:
    """The path and the best values are within; a path that has not moved lies in a valley."""
    run = _line_run(path)
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
