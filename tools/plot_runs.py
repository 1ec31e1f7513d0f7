"""Pictures of runs: loss, accuracy and learning rate over the steps, and the line that is fitted.

The numbers are those that a run has logged, read back. All pictures share one style.
"""

import contextlib
import io
import itertools
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from absl import logging
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from checkpoints.file_io import read_bounded
from errors import CheckpointError, ToolError
from metagraph.casting import json_value
from tools.command import Record
from training.metrics import LOGS_FOLDER, METRICS_FILE, step_of

# Okabe and Ito, "Color Universal Design" (2008): told apart with any kind of colour vision. Without
# their yellow, which is too light for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#767676"
_PNG, _SVG = ".png", ".svg"
# What would differ from one run to the next, or with the version of what has drawn.
_METADATA: dict[str, dict[str, Any]] = {_PNG: {"Software": None}, _SVG: {"Date": None}}
_STYLE = {
    "agg.path.chunksize": 10_000,  # Longer lines overflow the canvas's buffer otherwise.
    "axes.grid": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 100,
    "font.size": 10,
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "tools.plot",  # Ids of an SVG are random otherwise.
    "text.parse_math": False,  # A class may be called $x$.
}


class Picture(NamedTuple):
    """What is drawn, and what is said of it.

    Attributes:
      figure: None where there is nothing to draw.
      summary: a line of what is in it.
      record: the same as JSON values.
    """

    figure: Figure | None
    summary: str
    record: Record


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draws with the style of this project, whatever the user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        # A box stands for what the font has no glyph for.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches; it belongs to nobody else, and needs no display."""
    return Figure(figsize=(width, height), layout="constrained")


def as_label(text: str, most: int = 32) -> str:
    """A text from a file as one short line that any font and any SVG can take."""
    line = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
    return line if len(line) <= most else f"{line[: most - 1]}\u2026"


def short_path(path: str) -> str:
    """The last two parts of a path, for a title."""
    return as_label("/".join(os.path.abspath(path).split(os.sep)[-2:]), 60)


def render(figure: Figure, path: str) -> bytes:
    """The content of the file: the same for the same figure.

    Args:
      figure: made and rendered under one `style`.
      path: of the file, whose suffix is its format.
    """
    suffix = os.path.splitext(path)[1].lower()
    content = io.BytesIO()
    figure.savefig(content, format=suffix.removeprefix("."), metadata=_METADATA[suffix])
    return content.getvalue()


# The numbers that a run has logged, read back.

_MAX_BYTES = 1 << 30
_MAX_STEP = 1 << 53  # As a float64 holds it exactly.
LARGEST = float(np.finfo(np.float32).max)  # Models of ours compute in float32.
Floats = npt.NDArray[np.float64]


class Series(NamedTuple):
    """One number over the steps.

    Attributes:
      steps: float64 [N], rising.
      values: float64 [N]; NaN where the log says so.
    """

    steps: Floats
    values: Floats


class RunMetrics(NamedTuple):
    """What a run has logged.

    Attributes:
      folder: of the run, as the user wrote it.
      series: by the name of the number, such as `loss`.
    """

    folder: str
    series: Mapping[str, Series]

    @property
    def last_step(self) -> int:
        """The last step of any number."""
        return int(max(series.steps[-1] for series in self.series.values()))


def read_run(folder: str) -> RunMetrics:
    """Reads `<folder>/logs/metrics.jsonl`, up to its last whole line.

    As where a run is resumed, a line that was cut short or is damaged is passed over, with a
    warning; of two lines of one step, the later counts.

    Raises:
      ToolError: there is no such file, it cannot be read, or it holds no number.
    """
    path = os.path.join(folder, LOGS_FOLDER, METRICS_FILE)
    try:
        lines = read_bounded(path, _MAX_BYTES).splitlines(keepends=True)
    except CheckpointError as error:
        raise ToolError(f"--run={folder}: {error}; expected the folder of a run") from error
    found = {at: line for line in lines if (at := step_of(line)) is not None and at < _MAX_STEP}
    if len(found) < len(lines):
        logging.warning(
            "%s: lines passed over, as they are damaged: %d", path, len(lines) - len(found)
        )
    series = _series({step: json.loads(found[step]) for step in sorted(found)})
    if not series:
        raise ToolError(f"--run={folder}: {path} holds no number yet")
    return RunMetrics(folder, series)


def _series(lines: Mapping[int, Mapping[str, Any]]) -> dict[str, Series]:
    """Each number of the lines, over the steps of those that have it."""
    points: dict[str, list[tuple[float, float]]] = {}
    for step, line in lines.items():
        for name, value in line.items():
            if name != "step" and (number := _number(value)) is not None:
                points.setdefault(name, []).append((step, number))
    return {name: _columns(pairs) for name, pairs in points.items()}


def _columns(pairs: Sequence[tuple[float, float]]) -> Series:
    steps, values = np.array(pairs, np.float64).T
    return Series(steps, values)


def _number(value: object) -> float | None:
    """A JSON number, NaN where no float32 holds it; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else math.nan


# Loss, accuracy and learning rate of runs, over the steps.

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
