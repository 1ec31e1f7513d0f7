"""Exports a checkpoint for other programs: a SavedModel, ONNX, TFLite, or its weights alone.

  python -m tools.export model1 --to=saved_model --output=exported

writes exported/1 as TensorFlow Serving takes it, exported/2 the next time. The signature
serving_default has the inputs and outputs of the checkpoint under their own names; where the model
takes images, serving_bytes takes PNG and JPEG files.

  python -m tools.export model1 --to=onnx --output=model1.onnx
  python -m tools.export model1 --to=tflite --output=model1.tflite

The variables become constants, what is only for training is switched off, and the result is kept
only where its own runtime computes what the checkpoint does.

  python -m tools.export model1 --to=safetensors --output=model1.safetensors
  python -m tools.export model1 --to=npz --only=^conv --layout=torch --output=model1.npz

write the variables, of any checkpoint, with or without a graph; what only an optimizer needs is
left out. --layout=torch turns filters and matrices as PyTorch has them, which the graph tells.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from cli.fields import Together, flag, from_zero
from cli.terminal import import_tensorflow, postpone_tensorflow
from tools.command import Rename, overwrite, patterns, renames, run_command, show
from tools.freeze import PartConfig

SAVED_MODEL, ONNX, TFLITE = "saved_model", "onnx", "tflite"
FORMATS = (SAVED_MODEL, ONNX, TFLITE)
SAFETENSORS, NPZ = WEIGHTS = ("safetensors", "npz")
SUFFIXES = {to: f".{to}" for to in (ONNX, TFLITE, *WEIGHTS)}  # A SavedModel is a folder.
_OF_GRAPHS = ("fetch", "inputs", "asset", "shape", "feed", "use_moving_averages")
# onnxruntime promises to run opsets from 7 on, and tf2onnx writes none above 18. Runtimes of 2022
# and later take 17.
_FIRST_OPSET, _DEFAULT_OPSET, _LAST_OPSET = 7, 17, 18


def _is_named_well(to: str | None, output: str | None) -> bool:
    """Whether the file's name says what it is; a SavedModel is a folder of any name."""
    expected = SUFFIXES.get(to or "")
    if output is None or expected in (None, os.path.splitext(output)[1].lower()):
        return True
    raise ValueError(f"with --to={to}, --output must end in {expected}")


def _only_with(name: str, formats: Sequence[str]) -> Together:
    """A flag that would change nothing in another format is refused there."""
    message = f"--{name} needs --to={' or '.join(formats)}"
    return Together(("to", name), lambda to, value: to in formats or not value, message)


@dataclass(frozen=True)
class ExportConfig(PartConfig):
    """What is to be exported, and what becomes of it."""

    GROUP: ClassVar = "output"
    CHECKS: ClassVar = (
        Together(("to", "output"), _is_named_well),
        *(_only_with(name, WEIGHTS) for name in ("only", "rename", "layout")),
        *(_only_with(name, FORMATS) for name in _OF_GRAPHS),
    )

    output: str = flag(
        "What to write: of a SavedModel the folder of the model, in which each version has a "
        "folder, numbered one above the highest there; else the file, which ends in the format's "
        "name.",
        path=True,
    )
    _: KW_ONLY
    to: str = flag("The format to export to.", choices=(*FORMATS, *WEIGHTS))
    only: Sequence[str] = patterns(
        "safetensors, npz: write only variables in whose names this pattern is found. Several: any "
        "of them."
    )
    without_slots: bool = flag(
        "safetensors, npz: leave out what only an optimizer needs, such as w/Adam and beta1_power.",
        True,
        group="selection",
    )
    rename: tuple[Rename, ...] = renames(
        "safetensors, npz: old=new for one name, old/=new/ for all in a scope (old/= takes the "
        "scope away, =new/ puts all into one). Several are applied in their order.",
    )
    layout: str | None = flag(
        "safetensors, npz: turn each variable as PyTorch has it, and say in the file what became "
        "of it. What the graph does not tell of is refused.",
        None,
        choices=("torch",),
    )
    opset: int = flag(
        "onnx: the version of its operations.", _DEFAULT_OPSET, low=_FIRST_OPSET, high=_LAST_OPSET
    )
    tolerance: float = flag(
        "How far what the format's own runtime computes may be from what the session does, "
        "absolute and relative.",
        1e-5,
        check=from_zero(),
    )
    overwrite: bool = overwrite(
        "Replace the file if there is one. A version of a SavedModel is never replaced."
    )


def main(config: ExportConfig) -> None:
    """Exports what is asked for."""
    if config.to in WEIGHTS:
        postpone_tensorflow()
        from tools import export_weights

        show(export_weights.export_weights(config), export_weights.as_text, config.format)
        return
    import_tensorflow()
    from tools.exporting import as_text, export

    show(export(config), as_text, config.format)


if __name__ == "__main__":
    run_command(main, ExportConfig, __doc__)
