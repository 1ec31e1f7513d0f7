"""Exports a checkpoint for other programs: a SavedModel, ONNX or TFLite.

  python -m tools.export --meta=model1 --to=saved_model --output=exported

writes exported/1 as TensorFlow Serving takes it, exported/2 the next time. The signature
serving_default has the inputs and outputs of the checkpoint under their own names; where the model
takes images, serving_bytes takes PNG and JPEG files.

  python -m tools.export --meta=model1 --to=onnx --output=model1.onnx
  python -m tools.export --meta=model1 --to=tflite --output=model1.tflite

The variables become constants, what is only for training is switched off, and the result is kept
only where its own runtime computes what the checkpoint does.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from absl import flags

from cli import flag_types
from cli.flag_types import define_max_meta_mb, define_time_limit, define_trust_graph
from cli.terminal import import_tensorflow
from tools.command import (
    DEFAULT_OPSET,
    DEFAULT_TOLERANCE,
    FIRST_OPSET,
    FORMATS,
    LAST_OPSET,
    OTHER_CKPT_HELP,
    SAVED_MODEL,
    SUFFIXES,
    EndAfter,
    define_ckpt,
    define_format,
    define_meta,
    define_overwrite,
    define_part,
    run_command,
    show,
)
from tools.freeze import PartConfig

POSITIONAL: tuple[str, ...] = ("meta",)

_SHAPE = re.compile(r".+=(?:(?:[0-9]{1,9}|\?)(?:,(?:[0-9]{1,9}|\?))*)?")


Shape = tuple[int | None, ...]


def parse_shape(text: str) -> tuple[str, Shape]:
    """A value of --shape, `x=?,3`, of which `x=` is a scalar: the name and the sizes."""
    name, _, sizes = text.rpartition("=")
    parts = sizes.split(",") if sizes else []
    return name, tuple(None if part == "?" else int(part) for part in parts)


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


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    define_meta(values)
    define_ckpt(values, OTHER_CKPT_HELP)
    flags.DEFINE_enum("to", None, FORMATS, "The format to export to.", flag_values=values)
    flag_types.define_path(
        "output",
        None,
        "What to write: of a SavedModel the folder of the model, in which each version has a "
        "folder; else the file, .onnx or .tflite.",
        values,
    )
    flags.mark_flags_as_required(["to", "output"], flag_values=values)
    define_part(values)
    _define_of_formats(values)
    define_overwrite(
        values, "Replace the file if there is one. A version of a SavedModel is never replaced."
    )
    define_format(values)
    define_max_meta_mb(values)
    define_trust_graph(values)
    define_time_limit(values)
    _validate(values)


def _define_of_formats(values: flags.FlagValues) -> None:
    """What only some formats need."""
    flags.DEFINE_multi_string(
        "shape",
        [],
        "The shape of a placeholder that leaves it open: name=?,3 is any number of rows of three, "
        "name= a scalar.",
        flag_values=values,
    )
    flags.register_validator(
        "shape",
        lambda texts: all(map(_SHAPE.fullmatch, texts)),
        message="must be name=sizes, such as x=?,3",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "version",
        None,
        "saved_model: the number of the version; by default one above the highest there.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "opset",
        DEFAULT_OPSET,
        "onnx: the version of its operations.",
        lower_bound=FIRST_OPSET,
        upper_bound=LAST_OPSET,
        flag_values=values,
    )
    flag_types.define_non_negative_float(
        "tolerance",
        DEFAULT_TOLERANCE,
        "How far what the format's own runtime computes may be from what the session does, "
        "absolute and relative.",
        values,
    )


def _validate(values: flags.FlagValues) -> None:
    flags.register_multi_flags_validator(["to", "output"], _check_suffix, flag_values=values)
    flags.register_multi_flags_validator(["to", "version"], _check_version, flag_values=values)


def _check_suffix(given: Mapping[str, Any]) -> bool:
    """Whether the file's name says what it is; a SavedModel is a folder of any name."""
    expected = SUFFIXES.get(given["to"])
    if expected is None or os.path.splitext(given["output"] or "")[1].lower() == expected:
        return True
    raise flags.ValidationError(f"with --to={given['to']}, --output must end in {expected}")


def _check_version(given: Mapping[str, Any]) -> bool:
    if given["version"] is None or given["to"] == SAVED_MODEL:
        return True
    raise flags.ValidationError(f"--version is for --to={SAVED_MODEL}")


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> None:
    """Exports as the flags say; `end_after` as of a `TimeLimit`."""
    import_tensorflow()
    from prediction.plan import assets_by_name
    from tools.exporting import as_text, export

    config = ExportConfig(
        meta=values.meta,
        to=values.to,
        output=values.output,
        checkpoint=values.ckpt,
        outputs=tuple(values.outputs),
        inputs=tuple(values.inputs),
        signature=values.signature,
        shapes=dict(map(parse_shape, values.shape)),
        asset=assets_by_name(values.asset),
        version=values.version,
        opset=values.opset,
        tolerance=values.tolerance,
        overwrite=values.overwrite,
        trust_graph=values.trust_graph,
        time_limit=values.time_limit,
        end_after=end_after,
        max_meta_bytes=values.max_meta_mb << 20,
    )
    show(export(config), as_text, values.format)


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
