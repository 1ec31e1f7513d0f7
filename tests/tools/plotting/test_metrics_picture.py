"""The curves of runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from errors import ToolError
from tools.plot_runs import Picture, RunMetrics, Series, draw_metrics, render, run_names

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


def _figure(picture: Picture) -> Figure:
    assert picture.figure is not None
    return picture.figure


def _lines(figure: Figure) -> dict[str, dict[str, Line2D]]:
    """Panel -> label -> line."""
    return {
        axes.get_ylabel(): {str(line.get_label()): line for line in axes.lines}
        for axes in figure.axes
    }


def test_each_line_is_what_the_log_says() -> None:
    found = _lines(_figure(draw_metrics([ONE, TWO], log_loss=False)))
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
    figure = _figure(draw_metrics([ONE, TWO], log_loss=False))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]
    colours = [line.get_color() for line in legend.get_lines()]
    assert len({*colours}) == 2
    of_two = [
        line for panel in _lines(figure).values() for label, line in panel.items() if "two" in label
    ]
    assert {line.get_color() for line in of_two} == {colours[1]}


def test_only_panels_with_numbers_are_drawn() -> None:
    assert [*_lines(_figure(draw_metrics([ONE], log_loss=False)))] == ["loss"]


def test_many_runs_are_told_apart() -> None:
    figure = _figure(
        draw_metrics([_run(f"r{i}", {"loss": [1.0]}) for i in range(20)], log_loss=False)
    )
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == 20


@pytest.mark.parametrize("values", [[4.0, 1e-3, 0.0], [0.5, 0.6, 0.7]])
def test_the_loss_can_be_logarithmic(values: list[float]) -> None:
    """Its numbers are no formulas; what is not above 0 has no place on it."""
    figure = _figure(draw_metrics([_run("one", {"loss": values})], log_loss=True))
    render(figure, "p.png")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    labels = [*axes.get_yticklabels(), *axes.get_yticklabels(minor=True)]
    assert not any("$" in label.get_text() for label in labels)


@pytest.mark.parametrize(("run", "log_loss"), [(ONE, False), (_run("0", {"loss": [0.0]}), True)])
def test_else_the_axis_is_linear(run: RunMetrics, log_loss: bool) -> None:
    figure = _figure(draw_metrics([run], log_loss=log_loss))
    render(figure, "p.png")
    assert figure.axes[0].get_yscale() == "linear"


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


def test_the_record_has_the_last_values() -> None:
    record = draw_metrics([ONE], log_loss=False).record
    assert record == {
        "runs": [
            {
                "folder": "runs/one",
                "step": 30,
                "last": {"loss": {"step": 30, "value": "NaN"}, "w": {"step": 30, "value": 3.0}},
            }
        ]
    }


def test_a_log_of_other_numbers_is_one_line() -> None:
    with pytest.raises(ToolError, match="expected loss, accuracy or learning_rate"):
        draw_metrics([_run("one", {"w": [1.0]})], log_loss=False)


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("log_loss", [False, True])
@pytest.mark.parametrize(
    "values", [[3.4e38, -3.4e38, 0.0], [5e-324, 5e-324], [math.nan, math.nan], [1.0]]
)
def test_any_numbers_can_be_drawn(values: list[float], log_loss: bool, suffix: str) -> None:
    picture = draw_metrics([_run("one", {"loss": values})], log_loss=log_loss)
    render(_figure(picture), f"p.{suffix}")
