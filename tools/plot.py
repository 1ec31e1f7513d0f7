"""Draws pictures from a run, as PNG or SVG; needs matplotlib (the extra `plot`).

  python -m tools.plot metrics --run=model1 --run=model --log_loss

draws loss, accuracy and learning rate over the steps, of several runs together. Further kinds:

  python -m tools.plot line --run=model --output=line.svg
  python -m tools.plot filters --meta=model1 --tensor=conv1/w
  python -m tools.plot --what=confusion --meta=model1 --input=model1/data10_4.npz
  python -m tools.plot mistakes --meta=model1 --input=model1/data10_4.npz

line: of the linear model, the points with their line, and the path of (w, b) over the loss;
filters: the weights of a convolution; confusion: which class is taken for which; mistakes: the
images whose wrong class the model is surest of.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags

from cli import flag_types
from cli.flag_types import (
    define_ignore_exif,
    define_max_input_mb,
    define_max_meta_mb,
    define_time_limit,
    define_trust_graph,
)
from cli.terminal import import_tensorflow
from prediction.request import PredictConfig
from tools.command import (
    EndAfter,
    define_ckpt,
    define_format,
    define_meta,
    define_overwrite,
    run_command,
    show,
)

POSITIONAL: tuple[str, ...] = ("what",)

_SUFFIXES = (".png", ".svg")
_MODEL_FLAGS = ("meta", "ckpt", "max_meta_mb", "trust_graph", "time_limit")
_ROW_FLAGS = ("input", "feed", "max_input_mb", "ignore_exif")
# The flags of each kind beside those of all; the first must be given.
_FLAGS_OF: Mapping[str, tuple[str, ...]] = {
    "metrics": ("run", "log_loss"),
    "line": ("run",),
    "filters": (*_MODEL_FLAGS, "tensor"),
    "confusion": (*_MODEL_FLAGS, *_ROW_FLAGS),
    "mistakes": (*_MODEL_FLAGS, *_ROW_FLAGS, "most"),
}


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


# One picture from start to end: what tools.plot does once its flags are read.


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    flags.DEFINE_enum("what", None, [*_FLAGS_OF], "What to draw.", flag_values=values)
    flag_types.define_path(
        "output",
        None,
        "The file to write, .png or .svg; by default <what>.png in the present folder.",
        values,
    )
    define_overwrite(values)
    define_format(values)
    flag_types.define_paths(
        "run",
        "metrics, line: the folder of a run, its --ckpt_dir; for metrics, also several.",
        values,
    )
    flags.DEFINE_boolean(
        "log_loss", False, "metrics: the loss on a logarithmic axis.", flag_values=values
    )
    define_meta(values)
    define_ckpt(values)
    flags.DEFINE_string(
        "tensor",
        None,
        "filters: the kernel, a tensor [height, width, channels, filters]; by default the first "
        "that the prediction needs.",
        flag_values=values,
    )
    _define_row_flags(values)
    define_max_meta_mb(values)
    define_trust_graph(values)
    define_time_limit(values)
    _validate(values)


def _define_row_flags(values: flags.FlagValues) -> None:
    """What confusion and mistakes predict on."""
    flag_types.define_paths(
        "input",
        "confusion, mistakes: rows with their true classes, as predict.py takes them: a folder of "
        "one subfolder of images a class, an .npz with X and Y, or images of MNIST's format with "
        "their labels beside them.",
        values,
    )
    flag_types.define_paths(
        "feed",
        "confusion, mistakes: another tensor to feed, name=value or name=file.npy.",
        values,
    )
    define_max_input_mb(values)
    define_ignore_exif(values)
    flags.DEFINE_integer(
        "most",
        16,
        "mistakes: how many are drawn at most.",
        lower_bound=1,
        upper_bound=100,
        flag_values=values,
    )


def _validate(values: flags.FlagValues) -> None:
    flags.register_validator(
        "output",
        lambda path: path is None or os.path.splitext(path)[1].lower() in _SUFFIXES,
        message=f"must end in {' or '.join(_SUFFIXES)}",
        flag_values=values,
    )
    for name in ("run", "input", "feed"):
        flags.register_validator(name, all, message="must not be empty", flag_values=values)
    for name in ("run", "meta", "ckpt", "tensor", "input", "feed", "log_loss", "ignore_exif"):
        flags.register_multi_flags_validator(["what", name], _check_of_kind, flag_values=values)


def _check_of_kind(given: Mapping[str, Any]) -> bool:
    """Whether one flag is given where the kind needs it, and only where it is of use."""
    what, (name, value) = given["what"], [*given.items()][1]
    if what is None:
        return True  # It may stand without its flag, and is told where it does not.
    if value and name not in _FLAGS_OF[what]:
        raise flags.ValidationError(f"--{name} is not for {what}")
    if not value and name == _FLAGS_OF[what][0]:
        raise flags.ValidationError(f"{what} needs --{name}=...")
    if what == "line" and name == "run" and len(value) > 1:
        raise flags.ValidationError("line takes one --run")
    return True


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> None:
    """Draws as the flags say; `end_after` as of a `TimeLimit`."""
    from errors import ToolError
    from tools.command import check_installed

    try:
        check_installed(["matplotlib"], "plot", "a picture")
    except ValueError as error:  # Of MPLBACKEND, which is of no use here but read all the same.
        raise ToolError(f"matplotlib cannot be imported: {error}") from error
    import_tensorflow()
    from tools.plotting import as_text, plot

    model = None
    if values.meta is not None:
        model = PredictConfig(
            values.meta,
            checkpoint=values.ckpt,
            input=values.input,
            feed=values.feed,
            trust_graph=values.trust_graph,
            time_limit=values.time_limit,
            end_after=end_after,
            max_input_mb=values.max_input_mb,
            ignore_exif=values.ignore_exif,
            max_meta_bytes=values.max_meta_mb << 20,
        )
    config = PlotConfig(
        what=values.what,
        output=values.output or f"{values.what}.png",
        overwrite=values.overwrite,
        runs=values.run,
        model=model,
        tensor=values.tensor,
        most=values.most,
        log_loss=values.log_loss,
    )
    show(plot(config), as_text, values.format)


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
