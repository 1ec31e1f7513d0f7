"""What tools/export.py is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.time_limit import TimeLimit
from tools.exporting.defaults import DEFAULT_OPSET, DEFAULT_TOLERANCE
from tools.exporting.shapes import Shape
from tools.freezing.frozen_graph import FreezeRequest


@dataclass(frozen=True)
class ExportConfig:
    """What is asked for.

    Attributes:
      meta: what predict.py's --meta takes.
      to: one of `FORMATS`.
      output: of a SavedModel, the folder that has its versions in folders; else the file.
      checkpoint: what predict.py's --ckpt takes; None for the graph's own.
      outputs: as of a `FreezeRequest`.
      inputs: likewise.
      signature: likewise.
      shapes: of placeholders that leave theirs open: tensor, or key of the signature -> sizes, None
        for any.
      asset: files for lookup tables, by name.
      version: of a SavedModel; None for the next one.
      opset: the version of ONNX's operations.
      tolerance: between the session and the format's own runtime, as `check_close` has it.
      overwrite: replace a file that is there; a version of a SavedModel is never replaced.
      trust_graph: export also operations that may do more than compute.
      time_limit: seconds that reading the graph, a conversion or a run may take; 0 for no limit.
      end_after: as of a `TimeLimit`.
      max_meta_bytes: the size of the largest file of a graph that is read.
    """

    meta: str
    to: str
    output: str
    checkpoint: str | None = None
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    signature: str | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    asset: Mapping[str, str] = field(default_factory=dict)
    version: int | None = None
    opset: int = DEFAULT_OPSET
    tolerance: float = DEFAULT_TOLERANCE
    overwrite: bool = False
    trust_graph: bool = False
    time_limit: float = 60.0
    end_after: Callable[[float, str], None] | None = None
    max_meta_bytes: int = DEFAULT_MAX_BYTES

    @property
    def limit(self) -> TimeLimit:
        """The time limit with what ends the process."""
        return TimeLimit(self.time_limit, self.end_after)

    @property
    def request(self) -> FreezeRequest:
        """What is to be frozen for it."""
        return FreezeRequest(
            outputs=self.outputs,
            inputs=self.inputs,
            signature=self.signature,
            trust_graph=self.trust_graph,
            assets=self.asset,
            time_limit=self.limit,
        )
