"""The log of a run and its curves, and what all pictures share."""

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
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from errors import ToolError
from tools.plotting import (
    Picture,
    RunMetrics,
    as_label,
    draw_metrics,
    new_figure,
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
