"""The numbers that a run has logged, read back."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import logging

from checkpoints.bounded_file import read_bounded
from checkpoints.errors import CheckpointError
from tools.common.errors import ToolError
from training.metrics import LOGS_FOLDER, METRICS_FILE, step_of

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
