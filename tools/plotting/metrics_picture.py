"""Loss, accuracy and learning rate of runs, over the steps."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from prediction.json_values import json_value
from tools.common.errors import ToolError
from tools.plotting.picture import COLOURS, GREY, Picture, as_label, new_figure
from tools.plotting.run_metrics import RunMetrics

_WIDTH, _PANEL_HEIGHT = 8.0, 2.8  # Inches.
_FEW_POINTS = 60  # Up to here, each has a mark.
_RUN_STYLES = ("solid", "dashdot", "dotted")  # Once all colours are taken.


class _Curve(NamedTuple):
    """A number of the log, how it is called in a panel of several, and how it is drawn."""

    name: str
    label: str
    faint: bool = False


class _Panel(NamedTuple):
    """Numbers that share an axis."""

    title: str
    curves: Sequence[_Curve]


_PANELS = (
    _Panel("loss", [_Curve("loss", "training batch")]),
    _Panel(
        "accuracy",
        [_Curve("accuracy", "training batch", faint=True), _Curve("test_accuracy", "test split")],
    ),
    _Panel("learning rate", [_Curve("learning_rate", "learning rate")]),
)


def draw_metrics(runs: Sequence[RunMetrics], *, log_loss: bool) -> Picture:
    """Draws one panel for each kind of number that any of the runs has.

    Args:
      runs: at least one; their folders are the legend.
      log_loss: whether the loss has a logarithmic axis.

    Raises:
      ToolError: there is none of these numbers.
    """
    panels = [panel for panel in _PANELS if any(_present(panel, run) for run in runs)]
    if not panels:
        folders = ", ".join(run.folder for run in runs)
        raise ToolError(f"{folders}: expected loss, accuracy or learning_rate in the log")
    figure = new_figure(_WIDTH, _PANEL_HEIGHT * len(panels) + 0.6)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    names = run_names([run.folder for run in runs])
    for panel, axes in zip(panels, grid, strict=True):
        _draw_panel(axes, panel, runs, names)
        if log_loss and panel.title == "loss":
            _make_logarithmic(axes)
    grid[-1].set_xlabel("step (updates done)")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = []
    for index, name in enumerate(names):
        colour, line = _style(index)
        handles.append(Line2D([], [], color=colour, linestyle=line, label=name))
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    figure.align_ylabels(grid)
    return Picture(figure, _summary(runs, panels), {"runs": [_record(run) for run in runs]})


def run_names(folders: Sequence[str]) -> list[str]:
    """The last part of each folder's path; as many parts as tell those apart that differ."""
    parts = [os.path.abspath(folder).split(os.sep) for folder in folders]
    depth = 1
    while len({tuple(p[-depth:]) for p in parts}) < len({tuple(p) for p in parts}):
        depth += 1
    return [as_label("/".join(p[-depth:]), 60) for p in parts]


def _present(panel: _Panel, run: RunMetrics) -> list[_Curve]:
    return [curve for curve in panel.curves if curve.name in run.series]


def _style(index: int) -> tuple[str, str]:
    """The colour and the kind of line of a run, by its number."""
    styles = list(itertools.product(_RUN_STYLES, COLOURS))
    line, colour = styles[index % len(styles)]
    return colour, line


def _draw_panel(
    axes: Axes, panel: _Panel, runs: Sequence[RunMetrics], names: Sequence[str]
) -> None:
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        colour, line = _style(index)
        for curve in _present(panel, run):
            steps, values = run.series[curve.name]
            axes.plot(
                steps,
                values,
                label=f"{name}: {curve.label}",
                alpha=0.45 if curve.faint else 1.0,
                linewidth=1.0 if curve.faint else 1.6,
                marker="." if len(steps) <= _FEW_POINTS else "",
                color=colour,
                linestyle=line,
            )
    axes.set_ylabel(panel.title)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    if panel.title == "accuracy":
        axes.set_ylim(-0.03, 1.03)
        _explain_curves(axes, panel, runs)


def _explain_curves(axes: Axes, panel: _Panel, runs: Sequence[RunMetrics]) -> None:
    """A legend of which line is which, whatever its colour."""
    handles = [
        Line2D([], [], color="black", label=c.label, alpha=0.45 if c.faint else 1.0)
        for c in panel.curves
        if any(c.name in run.series for run in runs)
    ]
    axes.legend(handles=handles, loc="lower right")


def _make_logarithmic(axes: Axes) -> None:
    """With plain numbers, as those of matplotlib are formulas; not where nothing is above 0."""
    if not any((np.asarray(line.get_ydata(), np.float64) > 0).any() for line in axes.lines):
        return
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.get_ylim()
    within_a_decade = high < 10 * low
    axes.yaxis.set_minor_formatter(
        axes.yaxis.get_major_formatter() if within_a_decade else NullFormatter()
    )


def _summary(runs: Sequence[RunMetrics], panels: Sequence[_Panel]) -> str:
    told = ", ".join(f"{run.folder} to step {run.last_step}" for run in runs)
    return f"{', '.join(panel.title for panel in panels)} of {told}"


def _record(run: RunMetrics) -> dict[str, object]:
    """The folder, its last step, and the last value of each number with its step."""
    last = dict(_last_values(run))
    return {"folder": run.folder, "step": run.last_step, "last": last}


def _last_values(run: RunMetrics) -> Iterator[tuple[str, object]]:
    for name, series in run.series.items():
        yield name, {"step": int(series.steps[-1]), "value": json_value(series.values[-1])}
