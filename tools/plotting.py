"""What all pictures share: their style, their texts, how they become a file; and those of runs.

Of a run's log, `logs/metrics.jsonl`: loss, accuracy and learning rate over the steps.
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
import matplotlib.style
import numpy as np
import numpy.typing as npt
from absl import logging
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator, StrMethodFormatter

from errors import CheckpointError, ToolError
from file_io import read_bounded
from metagraph.description import json_value
from tools.command import Record
from training.metrics import LOGS_FOLDER, METRICS_FILE, step_of

# What would differ from one run to the next, or with the version of what has drawn.
_METADATA: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None}}
_STYLE = {
    "agg.path.chunksize": 10_000,  # Longer lines overflow the canvas's buffer otherwise.
    "image.interpolation": "nearest",
    "svg.hashsalt": "tools.plot",  # Ids of an SVG are random otherwise.
    "text.parse_math": False,  # A class may be called $x$.
}
_COLOURS = "tableau-colorblind10"  # Told apart with any kind of colour vision.


class Picture(NamedTuple):
    """What is drawn, None where there is nothing; a line of what is in it; the same as JSON."""

    figure: Figure | None
    summary: str
    record: Record


@contextlib.contextmanager
def style(dpi: int = 150) -> Iterator[None]:
    """Draws with the style of this project, whatever the user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        # A box stands for what the font has no glyph for.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        mpl.rcdefaults()
        matplotlib.style.use([_COLOURS, _STYLE | {"savefig.dpi": dpi}])
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


# What runs have logged.

_MAX_BYTES = 1 << 30
_MAX_STEP = 1 << 53  # As a float64 holds it exactly.
_LARGEST = float(np.finfo(np.float32).max)  # Models of ours compute in float32; more is NaN.
_MARKERS = "osv^DPX"  # With ten colours, 70 runs are told apart.
_MOST_MARKERS = 30  # Of a line.
# Panel -> numbers of the log that share it, and how each is called.
PANELS = {
    "loss": {"loss": "training batch"},
    "accuracy": {"accuracy": "training batch", "test_accuracy": "test split"},
    "learning rate": {"learning_rate": "learning rate"},
}
# How they are drawn, of one run; of several, colour and marker are a run's.
_LOOKS: Mapping[str, dict[str, Any]] = {
    "training batch": {"color": "C0", "marker": ".", "ls": "solid", "lw": 1.2, "alpha": 0.6},
    "test split": {"color": "C1", "marker": "o", "ls": "dashed", "lw": 2.2},
    "learning rate": {"color": "C2", "marker": ".", "ls": "solid", "lw": 1.2},
}


class RunMetrics(NamedTuple):
    """What a run has logged."""

    folder: str
    # Each number by its name, such as `loss`: float64 [2, N], the rising steps and the values.
    series: Mapping[str, npt.NDArray[np.float64]]

    @property
    def last_step(self) -> int:
        """The last step of any number."""
        return int(max(steps[-1] for steps, _ in self.series.values()))


def read_run(folder: str) -> RunMetrics:
    """Reads `<folder>/logs/metrics.jsonl`, up to its last whole line.

    As where a run is resumed, a line that was cut short or is damaged is passed over, with a
    warning; of two lines of one step, the later counts. Raises ToolError where there is no such
    file, it cannot be read, or it holds no number.
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
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                number = float(value) if abs(value) <= _LARGEST else math.nan
                points.setdefault(name, []).append((step, number))
    if not points:
        raise ToolError(f"--run={folder}: {path} holds no number yet")
    return RunMetrics(folder, {name: np.array(pairs).T for name, pairs in points.items()})


def draw_metrics(runs: Sequence[RunMetrics], *, log_loss: bool) -> Picture:
    """Draws one panel for each kind of number that any of the runs has."""
    logged = {name for run in runs for name in run.series}
    panels = [title for title, kinds in PANELS.items() if logged & kinds.keys()]
    if not panels:
        folders = ", ".join(run.folder for run in runs)
        raise ToolError(f"{folders}: expected loss, accuracy or learning_rate in the log")
    figure = new_figure(8, 2.8 * len(panels) + 1.0)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    legend: dict[tuple[int, str], Line2D] = {}
    for title, axes in zip(panels, grid, strict=True):
        legend |= _draw_panel(axes, title, runs)
        if log_loss and title == "loss":
            _make_logarithmic(axes)
    grid[-1].set_xlabel("step (updates done)")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    whose = short_path(runs[0].folder) if len(runs) == 1 else f"{len(runs)} runs"
    figure.suptitle(f"{', '.join(panels).capitalize()} of {whose}")
    figure.legend(handles=[*legend.values()], loc="outside lower center", ncols=4)
    told = ", ".join(f"{run.folder} to step {run.last_step}" for run in runs)
    summary = "; ".join([f"{', '.join(panels)} of {told}", *_left_out(runs, panels)])
    return Picture(figure, summary, {"runs": [*map(_record, runs)]})


def _draw_panel(
    axes: Axes, title: str, runs: Sequence[RunMetrics]
) -> dict[tuple[int, str], Line2D]:
    """Draws the lines of all runs; gives them by the number of the run and the kind."""
    drawn = {}
    for (number, run), (name, kind) in itertools.product(enumerate(runs), PANELS[title].items()):
        if name in run.series:
            steps, values = run.series[name]
            look = {"markersize": 4, "markevery": -(-len(steps) // _MOST_MARKERS)} | _LOOKS[kind]
            label = kind
            if len(runs) > 1:
                look |= {"color": f"C{number % 10}", "marker": _MARKERS[number % len(_MARKERS)]}
                label = f"{short_path(run.folder)}: {kind}"
            (drawn[number, kind],) = axes.plot(steps, values, label=label, **look)
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    if title == "accuracy":
        axes.set_ylim(-0.03, 1.03)
    return drawn


def _left_out(runs: Sequence[RunMetrics], panels: Sequence[str]) -> Iterator[str]:
    """Which runs have none of a panel's numbers."""
    for run in runs:
        missing = [panel for panel in panels if not run.series.keys() & PANELS[panel].keys()]
        if missing:
            yield f"{run.folder} left out of {', '.join(missing)}: its log has none"


def _make_logarithmic(axes: Axes) -> None:
    """With plain numbers, as matplotlib's are formulas; not where nothing is above 0."""
    if any((np.asarray(line.get_ydata(), np.float64) > 0).any() for line in axes.lines):
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(LogFormatter())


def _record(run: RunMetrics) -> dict[str, object]:
    """The folder, its last step, and the last value of each number with its step."""
    last = {
        name: {"step": int(steps[-1]), "value": json_value(values[-1])}
        for name, (steps, values) in run.series.items()
    }
    return {"folder": run.folder, "step": run.last_step, "last": last}
