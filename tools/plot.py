"""Draws pictures from a run, as PNG or SVG; needs matplotlib (the extra `plot`).

  python -m tools.plot metrics model1 model --log_loss

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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cli.fields import REPEATED, Check, Together, ends_in, flag, nested
from cli.terminal import import_tensorflow
from prediction.request import PredictConfig
from tools.command import Printed, Record, check_installed, overwrite, run_command, show

if TYPE_CHECKING:
    from tools.plotting import Picture

_SUFFIXES = (".png", ".svg")
_ROW_FLAGS = ("meta", "ckpt", "input", "feed", "ignore_exif")
# The flags of each kind that others refuse; the first must be given.
_FLAGS_OF = {
    "metrics": ("run", "log_loss"),
    "line": ("run",),
    "filters": ("meta", "ckpt", "tensor"),
    "confusion": _ROW_FLAGS,
    "mistakes": _ROW_FLAGS,
}
_NOT_EMPTY = Check(all, "must not be empty")


def _of_kind(name: str) -> Together:
    """One flag is given where the kind needs it, and only where it is of use."""

    def accepts(what: str | None, value: Any) -> bool:
        if what is None:
            return True  # It may stand without its flag, and is told where it does not.
        if value and name not in _FLAGS_OF[what]:
            needs = f", which needs --{_FLAGS_OF[what][0]}" if name in ("run", "meta") else ""
            raise ValueError(f"--{name} is not for {what}{needs}")
        if not value and name == _FLAGS_OF[what][0]:
            raise ValueError(f"{what} needs --{name}=...")
        if what == "line" and name == "run" and len(value) > 1:
            raise ValueError("line takes one --run")
        return True

    return Together(("what", name), accepts)


def _rows(help_text: str) -> Any:
    return flag(help_text, (), many=REPEATED, path=True, check=_NOT_EMPTY, group="input")


@dataclass(frozen=True, kw_only=True)
class PlotConfig(Printed):
    """What to draw, and from what."""

    GROUP: ClassVar = "selection"
    CHECKS: ClassVar = tuple(
        map(_of_kind, ("run", "meta", "ckpt", "tensor", "input", "feed", "log_loss", "ignore_exif"))
    )

    what: str = flag("What to draw.", choices=[*_FLAGS_OF], positional=True)
    runs: Sequence[str] = flag(
        "metrics, line: the folder of a run, its --ckpt_dir; for metrics, also several.",
        (),
        name="run",
        many=REPEATED,
        path=True,
        positional=True,
        check=_NOT_EMPTY,
    )
    log_loss: bool = flag("metrics: the loss on a logarithmic axis.", False)
    tensor: str | None = flag(
        "filters: the kernel, a tensor [height, width, channels, filters]; by default the first "
        "that the prediction needs.",
        None,
    )
    most: int = flag("mistakes: how many are drawn at most.", 16, low=1, high=100)
    model: PredictConfig | None = nested(
        PredictConfig,
        optional=True,
        without=("signature", "batch_size", "asset", "fetch", "list", "format", "output", "top_k"),
        meta=flag(
            "filters, confusion, mistakes: the model, as predict.py takes it.",
            path=True,
            group="model",
        ),
        input=_rows(
            "confusion, mistakes: rows with their true classes, as predict.py takes them: a folder "
            "of one subfolder of images a class, an .npz with X and Y, or images of MNIST's format "
            "with their labels beside them."
        ),
        feed=_rows("confusion, mistakes: another tensor to feed, name=value or name=file.npy."),
    )
    output: str | None = flag(
        "The file to write, .png or .svg; by default <what>.png in the present folder.",
        None,
        path=True,
        check=ends_in(*_SUFFIXES, message=f"must end in {' or '.join(_SUFFIXES)}"),
        group="output",
    )
    overwrite: bool = overwrite()


def main(config: PlotConfig) -> None:
    """Draws a picture, writes it, and prints what is in it, as `docs/json.md` has it."""
    check_installed(["matplotlib"], "plot", "a picture")
    import_tensorflow()
    from prediction.output import check_target, write_whole
    from tools.plotting import render, style

    model, target = config.model, config.output or f"{config.what}.png"
    read = config.runs if model is None else [model.meta, *model.input, *model.feed]
    check_target(target, read, overwrite=config.overwrite)
    output = None
    with style():
        picture = _draw(config)
        if picture.figure is not None:
            write_whole(target, render(picture.figure, target))
            output = target
    record = {"what": config.what, "output": output, "summary": picture.summary, **picture.record}
    show(record, as_text, config.format)


def _draw(config: PlotConfig) -> "Picture":
    from prediction.evaluation import classify
    from tools import plot_models, plotting

    model = config.model
    if model is None:
        if config.what == "line":
            return plotting.draw_line(plotting.read_line_run(config.runs[0]))
        runs = [*map(plotting.read_run, config.runs)]
        return plotting.draw_metrics(runs, log_loss=config.log_loss)
    if config.what == "filters":
        return plot_models.draw_filters(plot_models.read_kernel(model, config.tensor))
    found = classify(model)
    if config.what == "confusion":
        return plot_models.draw_confusion(found)
    return plot_models.draw_mistakes(found, config.most)


def as_text(record: Record) -> str:
    """The path of the file, where there is one, and the line of what is in it."""
    return "\n".join(filter(None, [record["output"], record["summary"]]))


if __name__ == "__main__":
    run_command(main, PlotConfig, __doc__)
