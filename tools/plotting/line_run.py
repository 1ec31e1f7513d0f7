"""A run of the linear model: its points, the line it has found, and the way there."""

import functools
import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from absl import logging

from checkpoints import folder as folders
from checkpoints import manifest, naming
from checkpoints.errors import CheckpointError
from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.newest import Hold, read_newest
from data import linear_points
from tools.common.errors import ToolError
from tools.plotting.run_metrics import LARGEST, read_run

_SEEDS = 1 << 32
_W, _B = "w", "b"

Floats = npt.NDArray[np.float64]


class LineRun(NamedTuple):
    """What is known of a run.

    Attributes:
      folder: of the run, as the user wrote it.
      x, y: float64 [N], its points.
      steps: int64 [P], rising, of the path; the last is the newest checkpoint's.
      path: float64 [P, 2], w and b after these steps.
      logged: whether the path is from the log; else it is from the checkpoints that there are.
    """

    folder: str
    x: Floats
    y: Floats
    steps: npt.NDArray[np.int64]
    path: Floats
    logged: bool


def mean_squared_error(run: LineRun, w: Floats, b: Floats) -> Floats:
    """The loss at each pair of `w` and `b`, which are arrays of one shape, on all points."""
    error = w[..., np.newaxis] * run.x + b[..., np.newaxis] - run.y  # [..., N]
    return np.asarray(np.mean(error**2, axis=-1))


def read_line_run(folder: str) -> LineRun:
    """Reads what a run of the linear model has left.

    The points are drawn again from the seed in the newest checkpoint's manifest. The path is what
    the log has of w and b, up to that checkpoint; in a log without them, that of the checkpoints.

    Raises:
      ToolError: it is no run of the linear model, or has no manifest.
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
    x, y = linear_points.points(_seed(folder, steps[-1]))
    newest = _values(folder, steps[-1])
    path = _logged_path(folder, steps[-1])
    logged = bool(path)
    path = {**(path or _saved_path(folder, steps[:-1])), steps[-1]: newest}
    return LineRun(
        folder,
        x.astype(np.float64),
        y.astype(np.float64),
        np.array([*path], np.int64),
        np.array([*path.values()], np.float64),
        logged,
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
    """Step -> w and b as the log has them; nothing where it has not."""
    try:
        series = read_run(folder).series
    except ToolError:
        return {}  # The checkpoints are enough.
    if not {_W, _B} <= series.keys():
        return {}
    w, b = (dict(zip(*series[name], strict=True)) for name in (_W, _B))
    found = {int(step): (float(w[step]), float(b[step])) for step in w if step in b}
    return {s: p for s, p in found.items() if s < last_step and max(map(abs, p)) <= LARGEST}


def _saved_path(folder: str, steps: list[int]) -> Mapping[int, tuple[float, float]]:
    """Step -> w and b of each good checkpoint."""
    found = {}
    for step in steps:
        try:
            found[step] = _values(folder, step)
        except CheckpointError as error:
            logging.warning("the path goes on without step %d: %s", step, error)
    return found
