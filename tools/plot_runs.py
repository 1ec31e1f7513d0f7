"""Pictures of runs: loss, accuracy and learning rate over the steps, as their logs have them.

All pictures share the style, and how they become a file.
"""

import contextlib
import io
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.style
import numpy as np
import numpy.typing as npt
from absl import logging
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator

from checkpoints.file_io import read_bounded
from errors import CheckpointError, ToolError
from metagraph.casting import json_value
from tools.command import Record
from training.metrics import LOGS_FOLDER, METRICS_FILE, step_of

# What would differ from one run to the next, or with the version of what has drawn.
_METADATA: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None}}
_STYLE = {
    "agg.path.chunksize": 10_000,  # Longer lines overflow the canvas's buffer otherwise.
    "image.interpolation": "nearest",
    "savefig.dpi": 150,
    "svg.hashsalt": "tools.plot",  # Ids of an SVG are random otherwise.
    "text.parse_math": False,  # A class may be called $x$.
}
_COLOURS = "tableau-colorblind10"  # Told apart with any kind of colour vision.
_MAX_BYTES = 1 << 30
_MAX_STEP = 1 << 53  # As a float64 holds it exactly.
_LINES = ("solid", "dashdot", "dotted")  # Once all ten colours are taken.
_FAINT = 0.45
LARGEST = float(np.finfo(np.float32).max)  # Models of ours compute in float32.
Floats = npt.NDArray[np.float64]
# Panel -> numbers of the log that share it: name, how it is called, whether it is drawn faintly.
_PANELS = {
    "loss": [("loss", "training batch", False)],
    "accuracy": [("accuracy", "training batch", True), ("test_accuracy", "test split", False)],
    "learning rate": [("learning_rate", "learning rate", False)],
}


class Picture(NamedTuple):
    """What is drawn, None where there is nothing; a line of what is in it; the same as JSON."""

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
        matplotlib.style.use([_COLOURS, _STYLE])
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
    """The content of the file, whose suffix is its format: the same for the same figure.

    The figure is to be made and rendered under one `style`.
    """
    suffix = os.path.splitext(path)[1].lower()
    content = io.BytesIO()
    figure.savefig(content, format=suffix.removeprefix("."), metadata=_METADATA[suffix])
    return content.getvalue()


class Series(NamedTuple):
    """One number over the steps: float64 [N], rising, and float64 [N], NaN where the log has it."""

    steps: Floats
    values: Floats


class RunMetrics(NamedTuple):
    """What a run has logged: its folder, and each number by its name, such as `loss`."""

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
    points: dict[str, list[tuple[float, float]]] = {}
    for step in sorted(found):
        for name, value in json.loads(found[step]).items():
            if name != "step" and (number := _number(value)) is not None:
                points.setdefault(name, []).append((step, number))
    if not points:
        raise ToolError(f"--run={folder}: {path} holds no number yet")
    series = {name: Series(*np.array(pairs, np.float64).T) for name, pairs in points.items()}
    return RunMetrics(folder, series)


def _number(value: object) -> float | None:
    """A JSON number, NaN where no float32 holds it; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else math.nan


def draw_metrics(runs: Sequence[RunMetrics], *, log_loss: bool) -> Picture:
    """Draws one panel for each kind of number that any of the runs has.

    Args:
      runs: at least one; their folders are the legend.
      log_loss: whether the loss has a logarithmic axis.

    Raises:
      ToolError: there is none of these numbers.
    """
    logged = {name for run in runs for name in run.series}
    panels = [title for title, curves in _PANELS.items() if logged & {c[0] for c in curves}]
    if not panels:
        folders = ", ".join(run.folder for run in runs)
        raise ToolError(f"{folders}: expected loss, accuracy or learning_rate in the log")
    figure = new_figure(8, 2.8 * len(panels) + 0.6)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    names = run_names([run.folder for run in runs])
    for title, axes in zip(panels, grid, strict=True):
        _draw_panel(axes, title, runs, names)
        if log_loss and title == "loss":
            _make_logarithmic(axes)
    grid[-1].set_xlabel("step (updates done)")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [Line2D([], [], label=name, **_style(index)) for index, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    told = ", ".join(f"{run.folder} to step {run.last_step}" for run in runs)
    record = {"runs": [_record(run) for run in runs]}
    return Picture(figure, f"{', '.join(panels)} of {told}", record)


def run_names(folders: Sequence[str]) -> list[str]:
    """The last part of each folder's path; as many parts as tell those apart that differ."""
    parts = [os.path.abspath(folder).split(os.sep) for folder in folders]
    depth = 1
    while len({tuple(p[-depth:]) for p in parts}) < len({tuple(p) for p in parts}):
        depth += 1
    return [as_label("/".join(p[-depth:]), 60) for p in parts]


def _style(run: int) -> dict[str, Any]:
    """The colour and the kind of line of a run, by its number."""
    return {"color": f"C{run % 10}", "linestyle": _LINES[run // 10 % len(_LINES)]}


def _draw_panel(axes: Axes, title: str, runs: Sequence[RunMetrics], names: Sequence[str]) -> None:
    explained = []
    for number, label, is_faint in _PANELS[title]:
        alpha = _FAINT if is_faint else 1.0
        having = [i for i, run in enumerate(runs) if number in run.series]
        for index in having:
            steps, values = runs[index].series[number]
            marker = "." if len(steps) <= 60 else ""
            own = f"{names[index]}: {label}"
            axes.plot(steps, values, label=own, marker=marker, alpha=alpha, **_style(index))
        if having:
            explained.append(Line2D([], [], color="black", label=label, alpha=alpha))
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    if title == "accuracy":
        axes.set_ylim(-0.03, 1.03)
        axes.legend(handles=explained, loc="lower right")  # Which line is which, in any colour.


def _make_logarithmic(axes: Axes) -> None:
    """With plain numbers, as matplotlib's are formulas; not where nothing is above 0."""
    if any((np.asarray(line.get_ydata(), np.float64) > 0).any() for line in axes.lines):
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())


def _record(run: RunMetrics) -> dict[str, object]:
    """The folder, its last step, and the last value of each number with its step."""
    last = {
        name: {"step": int(series.steps[-1]), "value": json_value(series.values[-1])}
        for name, series in run.series.items()
    }
    return {"folder": run.folder, "step": run.last_step, "last": last}
