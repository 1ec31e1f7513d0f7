"""The log of a run, its curves, and what all pictures share."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from errors import ToolError
from tools.plot_runs import (
    Picture,
    RunMetrics,
    Series,
    as_label,
    draw_metrics,
    new_figure,
    read_run,
    render,
    run_names,
    style,
)
from training.metrics import Metrics, MetricsLog


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
    assert {name: (s.steps.tolist(), s.values.tolist()) for name, s in run.series.items()} == {
        "w": ([0], [2.0]),
        "loss": ([10, 20], [0.5, 0.25]),
        "accuracy": ([10, 20], [0.25, 0.75]),
        "test_accuracy": ([20], [0.5]),
    }
    assert run.last_step == 20


def test_damaged_lines_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    good = b'{"step": 10, "loss": 1}\n'
    damaged = [b"\xff\x00\n", b"[1]\n", b'{"step": -4}\n', b'{"step": 1e999, "loss": 1}\n']
    tail = b'{"step": 20, "loss": 2}\n{"step": 30, "lo'
    run = read_run(_write(tmp_path, good + b"".join(damaged) + tail))
    assert run.series["loss"].steps.tolist() == [10, 20]
    assert len(said) == 1
    assert said[0].endswith("damaged: 5")


def test_steps_rise_and_the_later_of_two_lines_counts(tmp_path: Path) -> None:
    lines = [(20, 2.0), (10, 1.0), (20, 3.0)]
    content = b"".join(json.dumps({"step": s, "loss": v}).encode() + b"\n" for s, v in lines)
    found = read_run(_write(tmp_path, content)).series["loss"]
    assert (found.steps.tolist(), found.values.tolist()) == ([10, 20], [1.0, 3.0])


def test_what_is_no_finite_number_is_a_gap_or_nothing(tmp_path: Path) -> None:
    values = ["NaN", "Infinity", "1" + "0" * 400, "-4e38", '"text"', "true", "null", "[1]"]
    content = "".join(f'{{"step": {i}, "loss": {v}}}\n' for i, v in enumerate(values)).encode()
    found = read_run(_write(tmp_path, content)).series["loss"]
    assert found.steps.tolist() == [0, 1, 2, 3]
    assert all(map(math.isnan, found.values))
    assert found.values.dtype == np.float64


@pytest.mark.parametrize("content", [b"", b'{"step": 10}\n', b'{"step": 10, "loss": 1}'])
def test_a_log_without_a_number_is_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ToolError, match="holds no number"):
        read_run(_write(tmp_path, content))


_STEPS = [10.0, 20.0, 30.0]


def _run(folder: str, series: Mapping[str, Sequence[float]]) -> RunMetrics:
    steps = np.array(_STEPS)
    return RunMetrics(
        folder, {name: Series(steps[: len(v)], np.array(v)) for name, v in series.items()}
    )


ONE = _run("runs/one", {"loss": [4.0, 1e-3, math.nan], "w": [1.0, 2.0, 3.0]})


TWO = _run(
    "runs/two",
    {
        "loss": [3.0, 2.0],
        "accuracy": [0.25, 0.5],
        "test_accuracy": [0.5, 0.75],
        "learning_rate": [1e-3, 2e-3],
    },
)


def _drawn(picture: Picture) -> Figure:
    assert picture.figure is not None
    return picture.figure


def _lines(figure: Figure) -> dict[str, dict[str, Line2D]]:
    """Panel -> label -> line."""
    return {
        axes.get_ylabel(): {str(line.get_label()): line for line in axes.lines}
        for axes in figure.axes
    }


def test_each_line_is_what_the_log_says() -> None:
    found = _lines(_drawn(draw_metrics([ONE, TWO], log_loss=False)))
    expected = {
        "loss": {
            "one: training batch": ONE.series["loss"],
            "two: training batch": TWO.series["loss"],
        },
        "accuracy": {
            "two: training batch": TWO.series["accuracy"],
            "two: test split": TWO.series["test_accuracy"],
        },
        "learning rate": {"two: learning rate": TWO.series["learning_rate"]},
    }
    assert {panel: {*lines} for panel, lines in found.items()} == {
        panel: {*lines} for panel, lines in expected.items()
    }
    for panel, lines in expected.items():
        for label, series in lines.items():
            np.testing.assert_array_equal(
                found[panel][label].get_xydata(), np.stack(series, axis=1)
            )


def test_a_run_has_one_colour_and_its_name_in_the_legend() -> None:
    figure = _drawn(draw_metrics([ONE, TWO], log_loss=False))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]
    colours = [line.get_color() for line in legend.get_lines()]
    assert len({*colours}) == 2
    of_two = [
        line for panel in _lines(figure).values() for label, line in panel.items() if "two" in label
    ]
    assert {line.get_color() for line in of_two} == {colours[1]}


def test_many_runs_are_told_apart() -> None:
    figure = _drawn(
        draw_metrics([_run(f"r{i}", {"loss": [1.0]}) for i in range(20)], log_loss=False)
    )
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == 20


@pytest.mark.parametrize("values", [[4.0, 1e-3, 0.0], [0.5, 0.6, 0.7]])
def test_the_loss_can_be_logarithmic(values: list[float]) -> None:
    """Its numbers are no formulas; what is not above 0 has no place on it."""
    figure = _drawn(draw_metrics([_run("one", {"loss": values})], log_loss=True))
    render(figure, "p.png")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    labels = [*axes.get_yticklabels(), *axes.get_yticklabels(minor=True)]
    assert not any("$" in label.get_text() for label in labels)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/a/model", "/b/model"], ["a/model", "b/model"]),
        (["/a/model/", "/a/other"], ["model", "other"]),
        (["/a/$x$"], ["$x$"]),
        (["/a/m", "/a/m"], ["m", "m"]),
    ],
)
def test_names_tell_folders_apart(folders: list[str], names: list[str]) -> None:
    assert run_names(folders) == names


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("log_loss", [False, True])
@pytest.mark.parametrize(
    "values", [[3.4e38, -3.4e38, 0.0], [5e-324, 5e-324], [math.nan, math.nan], [1.0]]
)
def test_any_numbers_can_be_drawn(values: list[float], log_loss: bool, suffix: str) -> None:
    picture = draw_metrics([_run("one", {"loss": values})], log_loss=log_loss)
    render(_drawn(picture), f"p.{suffix}")


ODD = "$x_{1}$ <&> \u732b \ufffe \x1b[31m \udc80"


def _figure(title: str = "a title") -> Figure:
    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.plot([0, 1, 2], [1, 3, 2], label="a line")
    axes.fill_between([0, 1], [0, 1], hatch="/")  # Of an SVG, hatches and clips have ids.
    axes.set_title(title)
    axes.legend()
    return figure


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_any_text_is_drawn_as_it_stands(suffix: str) -> None:
    """Neither as a formula, nor with a warning of missing glyphs, nor as XML."""
    label = as_label(ODD)
    with style():
        content = render(_figure(label), f"p.{suffix}")
    if suffix == "svg":
        ET.fromstring(content)
        assert "$x_{1}$" in content.decode()


@pytest.mark.parametrize(
    ("text", "label"),
    [("a b", "a b"), ("a\nb\tc", "a b c"), ("\x1b[0m", "\ufffd[0m"), ("\udc80", "\ufffd")],
)
def test_labels_are_one_printable_line(text: str, label: str) -> None:
    assert as_label(text) == label


def test_the_users_own_style_changes_nothing_and_is_kept() -> None:
    plain = render(_figure(), "p.png")
    with mpl.rc_context({"font.size": 20, "text.usetex": True}):
        with style():
            assert render(_figure(), "p.png") == plain
        assert mpl.rcParams["font.size"] == 20
