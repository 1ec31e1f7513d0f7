"""What tools/export.py is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tools.exporting.defaults import DEFAULT_OPSET, DEFAULT_TOLERANCE
from tools.exporting.shapes import Shape
from tools.freezing.config import PartConfig


@dataclass(frozen=True, kw_only=True)
class ExportConfig(PartConfig):
    """What is asked for: what is frozen, and what becomes of it.

    The `output` of a SavedModel is the folder that has its versions in folders, none of which is
    ever replaced; else it is the file.

    Attributes:
      to: one of `FORMATS`.
      shapes: of placeholders that leave theirs open: tensor, or key of the signature -> sizes, None
        for any.
      version: of a SavedModel; None for the next one.
      opset: the version of ONNX's operations.
      tolerance: between the session and the format's own runtime, as `check_close` has it.
    """

    to: str
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    version: int | None = None
    opset: int = DEFAULT_OPSET
    tolerance: float = DEFAULT_TOLERANCE
