"""One picture from start to end: what tools.plot does once its flags are read."""

import functools
from collections.abc import Callable, Mapping

from prediction.chosen_model import with_model
from prediction.evaluation import classify
from prediction.output import check_target, write_whole
from prediction.request import PredictConfig
from tools.command import Record
from tools.plot import PlotConfig
from tools.plot_classes import draw_confusion, draw_mistakes
from tools.plot_filters import draw_filters, read_kernel
from tools.plot_line import draw_line, read_line_run
from tools.plot_runs import Picture, draw_metrics, read_run, render, style


def plot(config: PlotConfig) -> Record:
    """Draws a picture, writes it, and returns what is in it.

    Keys: `what`; `output`, the file, null where nothing was to be drawn; `summary`, a line; and of
    each kind:

    - metrics: `runs`, of each its `folder`, its last `step` and for each number the `last` value,
      as `step` and `value`.
    - line: `run`, `points` (how many), `w`, `b` and `loss` at the end, and the `path`, a list of
      `step`, `w` and `b`.
    - filters: `meta`, `tensor`, its `shape`, and how many `filters` are shown.
    - confusion: `meta`, `checkpoint`, `rows`, `accuracy`, `classes` (names) and `counts`, a list of
      rows by true class, each a list by predicted class.
    - mistakes: `meta`, `checkpoint`, `rows`, `wrong` (how many), and the `mistakes` shown: `name`,
      `label`, `class` and `probability`.

    Raises:
      ToolError, CheckpointError, PredictionError, DataError: one line for the user; no file is
        written then.
    """
    check_target(config.target, _read_paths(config), overwrite=config.overwrite)
    with style():
        picture = _KINDS[config.what](config)
        content = None if picture.figure is None else render(picture.figure, config.target)
    if content is not None:
        write_whole(config.target, content)
    output = None if content is None else config.target
    return {"what": config.what, "output": output, "summary": picture.summary, **picture.record}


def as_text(record: Record) -> str:
    """The path of the file, where there is one, and the line of what is in it."""
    return "\n".join(filter(None, [record["output"], record["summary"]]))


def _read_paths(config: PlotConfig) -> list[str]:
    if config.model is None:
        return [*config.runs]
    return [config.model.meta, *config.model.input, *config.model.feed]


def _model(config: PlotConfig) -> PredictConfig:
    if config.model is None:
        raise ValueError(f"{config.what} needs a model")
    return config.model


def _draw_filters(config: PlotConfig) -> Picture:
    model = _model(config)
    read = functools.partial(read_kernel, model, tensor=config.tensor)
    return draw_filters(with_model(model, read))


_KINDS: Mapping[str, Callable[[PlotConfig], Picture]] = {
    "metrics": lambda c: draw_metrics([read_run(run) for run in c.runs], log_loss=c.log_loss),
    "line": lambda config: draw_line(read_line_run(config.runs[0])),
    "filters": _draw_filters,
    "confusion": lambda config: draw_confusion(classify(_model(config))),
    "mistakes": lambda config: draw_mistakes(classify(_model(config)), config.most),
}
