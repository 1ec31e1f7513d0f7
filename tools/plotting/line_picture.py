"""The points with their line, and the way of (w, b) down the loss."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, StrMethodFormatter

from tools.plotting.line_run import Floats, LineRun, mean_squared_error
from tools.plotting.picture import COLOURS, Picture, as_label, new_figure

_SIZE = 11.0, 4.8  # Inches.
_GRID = 161  # Points of the surface, each way.
_LEVELS = 24
_LEAST_SPAN = 2.0  # Of w and of b, so that a path that has arrived still lies in a valley.
_LEAST_SHARE = 1e-6  # Of the largest loss, that the lowest contour has.
_BLUE, _RED = COLOURS[0], COLOURS[1]


def draw_line(run: LineRun) -> Picture:
    """Draws both, beside each other."""
    figure = new_figure(*_SIZE)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_points(left, run)
    _draw_surface(figure, right, run)
    w, b = run.path[-1].tolist()
    loss = float(mean_squared_error(run, *run.path[-1:].T)[0])
    figure.suptitle(f"{as_label(run.folder, 60)}, step {run.steps[-1]}")
    source = "the log" if run.logged else "its checkpoints"
    return Picture(
        figure,
        f"{_equation(run)} after {run.steps[-1]} steps, mean squared error {loss:.3g} on "
        f"{len(run.x)} points; {len(run.path)} points of the path, from {source}",
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


def _equation(run: LineRun) -> str:
    """`y = 0.1000 x + 0.2000`, of the newest checkpoint."""
    w, b = run.path[-1]
    return f"y = {w:.4f} x {'+' if b >= 0 else '-'} {abs(b):.4f}"


def _draw_points(axes: Axes, run: LineRun) -> None:
    w, b = run.path[-1]
    ends = np.array([run.x.min(), run.x.max()])
    axes.plot(run.x, run.y, ".", color=_BLUE, markersize=6, label=f"{len(run.x)} points")
    axes.plot(ends, w * ends + b, color=_RED, linewidth=1.4, label=_equation(run))
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.set_title("data and line")
    axes.legend(loc="best")


def _draw_surface(figure: Figure, axes: Axes, run: LineRun) -> None:
    best = _least_squares(run)
    w, b = np.meshgrid(*(_span(run.path[:, i], best[i]) for i in (0, 1)))
    loss = mean_squared_error(run, w, b)
    top = float(loss.max())
    loss = np.maximum(loss, top * _LEAST_SHARE)
    levels = np.geomspace(float(loss.min()), top, _LEVELS)
    surface = axes.contourf(w, b, loss, levels=levels, norm=LogNorm(), cmap="cividis")
    bar = figure.colorbar(surface, ax=axes, label="mean squared error (log scale)")
    bar.set_ticks(_powers_of_ten(float(levels[0]), float(levels[-1])))
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.plot(
        *run.path.T,
        color="white",
        linewidth=1.2,
        marker=".",
        markersize=5,
        label="path",
        path_effects=[withStroke(linewidth=2.6, foreground="black")],
    )
    _mark(axes, run.path[0], f"step {run.steps[0]}", "s", "white")
    _mark(axes, run.path[-1], f"step {run.steps[-1]}", "o", _RED)
    _mark(axes, best, "least squares", "x", "black")
    axes.set_xlabel("w")
    axes.set_ylabel("b")
    axes.set_title("path of (w, b) over the loss")
    axes.legend(loc="best", frameon=True, facecolor="#BBBBBB", framealpha=0.9)


def _least_squares(run: LineRun) -> Floats:
    """The w and b with the least loss."""
    columns = np.stack([run.x, np.ones_like(run.x)], axis=1)
    return np.asarray(np.linalg.lstsq(columns, run.y, rcond=None)[0])


def _span(values: Floats, best: float) -> Floats:
    """An axis that has all of the path, the best value and a margin."""
    low, high = min(values.min(), best), max(values.max(), best)
    margin = max(0.08 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    return np.linspace(low - margin, high + margin, _GRID)


def _powers_of_ten(low: float, high: float) -> list[float]:
    return [float(tick) for tick in LogLocator().tick_values(low, high) if low <= tick <= high]


def _mark(axes: Axes, at: Floats, label: str, marker: str, colour: str) -> None:
    """Marks one place, with a black rim."""
    axes.plot(
        *at,
        color=colour,
        marker=marker,
        markersize=8,
        markeredgecolor="black",
        linestyle="none",
        label=label,
    )
