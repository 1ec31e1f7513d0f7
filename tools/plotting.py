"""What all pictures share: their style, their texts, how they become a file; and those of runs.

Of a run's log, `logs/metrics.jsonl`: loss, accuracy and learning rate over the steps; of the linear
model, its points with the line that it has found, and the way of (w, b) there.
"""

import contextlib
import functools
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
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, LogLocator, MaxNLocator, StrMethodFormatter

from checkpoints import layout
from checkpoints.folder import usable_steps
from checkpoints.lock import Hold, read_newest
from data import batches
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
_SEEDS = 1 << 32
_GRID = 161  # Points of the surface, each way.
_LEVELS = 24
_MARGIN = 1.0  # Of w and of b, so that a path that has arrived still lies in a valley.
_LEAST_SHARE = 1e-6  # Of the largest loss, that the lowest contour has.
Floats = npt.NDArray[np.float64]


class RunMetrics(NamedTuple):
    """What a run has logged."""

    folder: str
    # Each number by its name, such as `loss`: float64 [2, N], the rising steps and the values.
    series: Mapping[str, Floats]

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


class LineRun(NamedTuple):
    """A run of the linear model: its points, x and y float64 [N], and its path.

    That is w and b, float64 [P, 2], after each of the steps, int64 [P].
    """

    folder: str
    x: Floats
    y: Floats
    steps: npt.NDArray[np.int64]
    path: Floats


def mean_squared_error(run: LineRun, w: Floats, b: Floats) -> Floats:
    """The loss at each pair of `w` and `b`, which are arrays of one shape, on all points."""
    error = w[..., np.newaxis] * run.x + b[..., np.newaxis] - run.y  # [..., N]
    return np.asarray(np.mean(error**2, axis=-1))


def read_line_run(folder: str) -> LineRun:
    """Reads what a run of the linear model has left.

    The points are drawn again from the seed in the newest checkpoint's manifest. The path is what
    the log has of w and b, up to that checkpoint.
    """
    return read_newest([folder], functools.partial(_read_line, folder))


def _read_line(folder: str, hold: Hold) -> LineRun:
    saved = usable_steps(folder)
    if not saved:
        raise ToolError(
            f"--run={folder}: expected the folder of a run of train_linear.py, found no checkpoint "
            f"{layout.BASENAME}-<step> in it"
        )
    hold(layout.checkpoint_prefix(folder, saved[-1]))
    points = batches.linear_points(_seed(folder, saved[-1]))
    x, y = (values.astype(np.float64) for values in points)
    series = read_run(folder).series
    empty = np.empty((2, 0))
    (w_steps, w), (b_steps, b) = series.get("w", empty), series.get("b", empty)
    steps, of_w, of_b = np.intersect1d(w_steps, b_steps, return_indices=True)
    path = np.stack([w[of_w], b[of_b]], axis=1)
    kept = (steps <= saved[-1]) & np.isfinite(path).all(axis=1)
    if not kept.any():
        raise ToolError(f"--run={folder}: expected w and b in its log, as train_linear.py logs")
    return LineRun(folder, x, y, steps[kept].astype(np.int64), path[kept])


def _seed(folder: str, step: int) -> int:
    """The seed that the run's points follow from."""
    found = layout.read_manifest(folder, step)
    name = os.path.join(folder, layout.checkpoint_name(step))
    if found is None:
        raise CheckpointError(
            f"{name} has no {layout.MANIFEST_SUFFIX}: the points follow from the seed in it, which "
            "only a run of train_linear.py has"
        )
    model, seed = found.config.get("model"), found.config.get("seed")
    if model != "linear":
        raise ToolError(f"{name}: expected a run of train_linear.py, found the model {model!r}")
    if not isinstance(seed, int) or not 0 <= seed < _SEEDS:
        raise ToolError(f"{name}: expected a seed from 0 to {_SEEDS - 1}, found {seed!r}")
    return seed


def draw_line(run: LineRun) -> Picture:
    """Draws the points with their line, and beside them the way of (w, b) down the loss."""
    figure = new_figure(11, 4.8)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    w, b = run.path[-1].tolist()
    equation = f"y = {w:.4f} x {'+' if b >= 0 else '-'} {abs(b):.4f}"
    ends = np.array([run.x.min(), run.x.max()])
    left.plot(run.x, run.y, ".", label=f"{len(run.x)} points")
    left.plot(ends, w * ends + b, label=equation)
    left.set(xlabel="x", ylabel="y", title="data and line")
    left.legend()
    _draw_surface(figure, right, run)
    loss = float(mean_squared_error(run, *run.path[-1:].T)[0])
    figure.suptitle(f"{as_label(run.folder, 60)}, step {run.steps[-1]}")
    summary = (
        f"{equation} after {run.steps[-1]} steps, mean squared error {loss:.3g} on "
        f"{len(run.x)} points; {len(run.path)} points of the path, from the log"
    )
    pairs = zip(run.steps.tolist(), run.path.tolist(), strict=True)
    path = [{"step": step, "w": w_then, "b": b_then} for step, (w_then, b_then) in pairs]
    record = {"run": run.folder, "points": len(run.x), "w": w, "b": b, "loss": loss, "path": path}
    return Picture(figure, summary, record)


def _draw_surface(figure: Figure, axes: Axes, run: LineRun) -> None:
    best = np.polyfit(run.x, run.y, 1)  # The w and b with the least loss.
    ends = np.vstack([run.path, best])
    low, high = ends.min(axis=0) - _MARGIN, ends.max(axis=0) + _MARGIN
    w, b = np.meshgrid(*np.linspace(low, high, _GRID).T)
    loss = mean_squared_error(run, w, b)
    loss = np.maximum(loss, float(loss.max()) * _LEAST_SHARE)
    levels = np.geomspace(float(loss.min()), float(loss.max()), _LEVELS)
    surface = axes.contourf(w, b, loss, levels=levels, norm=LogNorm(), cmap="cividis")
    bar = figure.colorbar(surface, ax=axes, label="mean squared error (log scale)")
    bar.ax.yaxis.set_major_locator(LogLocator())
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.plot(*run.path.T, color="white", marker=".", label="path")
    for at, label, marker, colour in (
        (run.path[0], f"step {run.steps[0]}", "s", "white"),
        (run.path[-1], f"step {run.steps[-1]}", "o", "C1"),
        (best, "least squares", "x", "black"),
    ):
        axes.plot(*at, color=colour, marker=marker, markeredgecolor="black", ls="", label=label)
    axes.set(xlabel="w", ylabel="b", title="path of (w, b) over the loss")
    axes.legend(facecolor="#BBBBBB")  # The path is white.
