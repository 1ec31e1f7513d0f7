"""A run of the linear model: its points with the line it has found, and the way of (w, b) there."""

import functools
import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from checkpoints import folder as folders
from checkpoints import manifest, naming
from checkpoints.lock import Hold, read_newest
from checkpoints.reader import CheckpointReader
from data import batches
from errors import CheckpointError, ToolError
from tools.plot_runs import LARGEST, Picture, as_label, new_figure, read_run

_SEEDS = 1 << 32
_W, _B = "w", "b"
_GRID = 161  # Points of the surface, each way.
_LEVELS = 24
_LEAST_SPAN = 2.0  # Of w and of b, so that a path that has arrived still lies in a valley.
_LEAST_SHARE = 1e-6  # Of the largest loss, that the lowest contour has.
Floats = npt.NDArray[np.float64]


class LineRun(NamedTuple):
    """What is known of a run: its points, x and y float64 [N], and its path.

    That is w and b, float64 [P, 2], after each of the steps, int64 [P], of which the last is the
    newest checkpoint's.
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

    Raises:
      ToolError: it is no run of the linear model, or has no manifest or no log.
      CheckpointError: the newest checkpoint is damaged.
    """
    return read_newest([folder], functools.partial(_read, folder))


def _read(folder: str, hold: Hold) -> LineRun:
    steps = folders.usable_steps(folder)
    if not steps:
        raise ToolError(
            f"--run={folder}: expected the folder of a run of train_linear.py, found no checkpoint "
            f"{naming.checkpoint_name(0)[:-1]}<step> in it"
        )
    hold(naming.checkpoint_prefix(folder, steps[-1]))
    if steps[-1] not in folders.usable_steps(folder):
        raise CheckpointError(f"{folder}: step {steps[-1]} was deleted while it was read")
    x, y = batches.linear_points(_seed(folder, steps[-1]))
    path = {**_logged_path(folder, steps[-1]), steps[-1]: _values(folder, steps[-1])}
    return LineRun(
        folder,
        x.astype(np.float64),
        y.astype(np.float64),
        np.array([*path], np.int64),
        np.array([*path.values()], np.float64),
    )


def _seed(folder: str, step: int) -> int:
    """The seed that the run's points follow from."""
    found = manifest.read(folder, step)
    name = os.path.join(folder, naming.checkpoint_name(step))
    if found is None:
        raise ToolError(
            f"{name} has no {naming.MANIFEST_SUFFIX}: the points follow from the seed in it, which "
            "only a run of train_linear.py has"
        )
    model, seed = found.config.get("model"), found.config.get("seed")
    if model != "linear":
        raise ToolError(f"{name}: expected a run of train_linear.py, found the model {model!r}")
    if not isinstance(seed, int) or not 0 <= seed < _SEEDS:
        raise ToolError(f"{name}: expected a seed from 0 to {_SEEDS - 1}, found {seed!r}")
    return seed


def _values(folder: str, step: int) -> tuple[float, float]:
    """The w and b of a checkpoint.

    Raises:
      CheckpointError: it is damaged, or these are no single numbers.
    """
    prefix = naming.checkpoint_prefix(folder, step)
    manifest.verify_checkpoint(prefix)
    reader = CheckpointReader(prefix)
    missing = [name for name in (_W, _B) if reader.shapes.get(name) not in ([], [1])]
    if missing:
        raise CheckpointError(f"{prefix} has no {missing[0]} of one number")
    values = [reader.read(name).item() for name in (_W, _B)]
    if not all(isinstance(value, int | float) and abs(value) <= LARGEST for value in values):
        raise CheckpointError(f"{prefix}: expected finite numbers, found {_W} and {_B} {values}")
    return float(values[0]), float(values[1])


def _logged_path(folder: str, last_step: int) -> dict[int, tuple[float, float]]:
    """Step -> w and b as the log has them."""
    series = read_run(folder).series
    if not {_W, _B} <= series.keys():
        raise ToolError(
            f"--run={folder}: expected {_W} and {_B} in its log, as train_linear.py logs"
        )
    w, b = (dict(zip(*series[name], strict=True)) for name in (_W, _B))
    found = {int(step): (float(w[step]), float(b[step])) for step in w if step in b}
    return {s: p for s, p in found.items() if s < last_step and max(map(abs, p)) <= LARGEST}


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
    return Picture(
        figure,
        f"{equation} after {run.steps[-1]} steps, mean squared error {loss:.3g} on "
        f"{len(run.x)} points; {len(run.path)} points of the path, from the log",
        {
            "run": run.folder,
            "points": len(run.x),
            "w": w,
            "b": b,
            "loss": loss,
            "path": [
                {"step": int(step), "w": float(at[0]), "b": float(at[1])}
                for step, at in zip(run.steps, run.path, strict=True)
            ],
        },
    )


def _draw_surface(figure: Figure, axes: Axes, run: LineRun) -> None:
    columns = np.stack([run.x, np.ones_like(run.x)], axis=1)
    best = np.linalg.lstsq(columns, run.y, rcond=None)[0]  # The w and b with the least loss.
    w, b = np.meshgrid(*(_span(run.path[:, i], best[i]) for i in (0, 1)))
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


def _span(values: Floats, best: float) -> Floats:
    """An axis that has all of the path, the best value and a margin."""
    low, high = min(values.min(), best), max(values.max(), best)
    margin = max(0.08 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    return np.linspace(low - margin, high + margin, _GRID)
