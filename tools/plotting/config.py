"""What tools.plot is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from prediction.config import PredictConfig


@dataclass(frozen=True)
class PlotConfig:
    """What is asked for.

    Attributes:
      what: one of `tools.plotting.plot.KINDS`.
      output: the file to write, .png or .svg.
      overwrite: write it also where there is one.
      runs: folders of runs, for `metrics` and `line`.
      model: the model and its rows, for `filters`, `confusion` and `mistakes`; None for the others.
      tensor: for `filters`, the name of the kernel; None for the first that the prediction needs.
      most: for `mistakes`, how many are drawn at most.
      log_loss: for `metrics`, whether the loss has a logarithmic axis.
    """

    what: str
    output: str
    overwrite: bool = False
    runs: Sequence[str] = ()
    model: PredictConfig | None = None
    tensor: str | None = None
    most: int = 16
    log_loss: bool = False
