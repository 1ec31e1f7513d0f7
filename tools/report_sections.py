"""What a report tells of a run or a checkpoint, section by section, and the page of it.

Each section asks the tool whose work it is. Where that fails, its line stands in the section. All
is built as elements and serialized once, so no name from a file can become markup. How a page looks
is in `report.css`.
"""

import base64
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from checkpoints.reader import CheckpointReader
from errors import CheckpointError, UserError
from metagraph.description import Array
from metagraph.model import read_model
from prediction.chosen_model import open_graph, with_chosen
from prediction.evaluation import classify
from prediction.output import kind_text
from prediction.request import Limits, PredictConfig
from tools import plot_models, plotting
from tools.command import Record
from tools.graph_layers import Subject, layer_graph
from tools.graph_parts import PARTS
from tools.inspect_checkpoint import InspectConfig
from tools.inspecting import inspect, read_tensor, statistics
from tools.report import ReportConfig
from tools.verify import VerifyConfig
from tools.verifying import verify

_MOST_BYTES = 10_000_000  # A run has some 300,000.
_MOST_MISTAKES, _MOST_ROWS, _MOST_VARIABLES = 12, 200, 300
_MOST_POINTS = 400  # Of a number, in its table.
_BINS, _BARS = 24, "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


class _Told:
    """What is reported on, and what has come of it; what several sections tell of is read once."""

    def __init__(self, path: str, images: Sequence[str], limits: Mapping[str, Any]) -> None:
        self.path, self.limits = path, limits
        self.model = PredictConfig(path, input=images, **limits)
        self.failed: dict[str, str] = {}  # Section -> why.
        self.damaged: list[str] = []  # Checkpoints that do not verify.

    @functools.cached_property
    def metrics(self) -> plotting.RunMetrics:
        """What the run has logged; ToolError where it has not."""
        return plotting.read_run(self.path)

    @functools.cached_property
    def contents(self) -> Record:
        """What the checkpoint holds that is looked at: the one that is named, or the newest."""
        return inspect(InspectConfig(ckpt=self.path, filter="", **self.limits))

    @functools.cached_property
    def graph(self) -> Subject:
        """The graph of the checkpoint, or of the file that is named."""
        meta = with_chosen(self.model, open_graph)
        return Subject(meta, read_model(meta, classifies=False))


_Section = Callable[[_Told], Iterator[ET.Element]]


def report(config: ReportConfig) -> tuple[bytes, Record]:
    """The page, and what is in it.

    That is `runs`: of each its `path`, the `failed` sections with why, the `damaged` checkpoints.
    Raises CheckpointError where one of them is neither a run nor a checkpoint, or all is too large.
    """
    names = [*map(plotting.short_path, config.runs)]
    title = f"Report of {', '.join(names)}"
    items = [element("li", element("a", name, href=f"#run-{n}")) for n, name in enumerate(names)]
    body = [element("h1", title), element("nav", element("ul", *items), aria_label="runs")]
    limits = {field.name: getattr(config, field.name) for field in dataclasses.fields(Limits)}
    all_told = [_Told(path, config.input, limits) for path in config.runs]
    with plotting.style(dpi=100):
        body += _together(all_told)
        for number, (name, told) in enumerate(zip(names, all_told, strict=True)):
            sections = [*_sections(told, number)]
            body.append(element("article", element("h2", name, id=f"run-{number}"), *sections))
    content = page(title, body)
    if len(content) > _MOST_BYTES:
        raise CheckpointError(
            f"the report has {len(content):,} bytes, expected at most {_MOST_BYTES:,}: report on "
            "fewer runs at a time"
        )
    keys = ("path", "failed", "damaged")
    return content, {"runs": [{key: getattr(told, key) for key in keys} for told in all_told]}


def as_text(record: Record) -> str:
    """The file, and what could not be told."""
    lines = [f"{record['output']}: {record['bytes']:,} bytes"]
    for run in record["runs"]:
        lines += [f"  {run['path']}: no {title}: {why}" for title, why in run["failed"].items()]
        lines += [f"  {run['path']}: {name} does not verify" for name in run["damaged"]]
    return "\n".join(lines)


def _sections(told: _Told, number: int) -> Iterator[ET.Element]:
    """Each section with its heading; one that fails has the reason as its text."""
    for title, make in SECTIONS.items():
        identity = f"{title}-{number}"
        heading = element("h3", title.capitalize(), id=identity)
        try:
            content = [*make(told)]
        except (UserError, OSError) as error:
            told.failed[title] = str(error)
            content = [element("p", f"Not known: {error}")]
        yield element("section", heading, *content, aria_labelledby=identity)
    if told.failed.keys() >= {"graph", "variables"}:
        raise CheckpointError(f"{told.path} is no checkpoint, nor a run: {told.failed['graph']}")


def _together(all_told: Sequence[_Told]) -> Iterator[ET.Element]:
    """The curves of several runs, one over the other; a run's own section says what it lacks."""
    found = []
    for told in all_told:
        with suppress(UserError):
            found.append(told.metrics)
    if len(found) > 1:
        with suppress(UserError):
            curves = [*_curves(found)]
            yield from (element("h2", "The runs together"), *curves)


def _curves(runs: Sequence[plotting.RunMetrics]) -> Iterator[ET.Element]:
    """The curves, and the numbers of each panel as a table that unfolds."""
    yield from _drawn(plotting.draw_metrics(runs, log_loss=False))
    for title, kinds in plotting.PANELS.items():
        lines = [
            (f"{plotting.short_path(run.folder)}: {kind}", run.series[name])
            for run in runs
            for name, kind in kinds.items()
            if name in run.series
        ]
        columns = [dict(s[:, :: -(-s.shape[1] // _MOST_POINTS)].T.tolist()) for _, s in lines]
        steps = sorted(set[float]().union(*columns))
        rows = [[int(step), *(column.get(step) for column in columns)] for step in steps]
        if lines:
            unfolded = table(["step", *(name for name, _ in lines)], rows, title)
            yield element("details", element("summary", f"{title} as a table"), unfolded)


def _drawn(picture: plotting.Picture) -> Iterator[ET.Element]:
    """A picture as `tools.plot` draws it, if there is something to draw, and what is in it."""
    if picture.figure is not None:
        encoded = base64.b64encode(plotting.render(picture.figure, "picture.png")).decode()
        yield element("img", src=f"data:image/png;base64,{encoded}", alt=picture.summary)
    yield element("p", picture.summary)


def _progress(told: _Told) -> Iterator[ET.Element]:
    run = told.metrics
    yield from _curves([run])
    last = [[name, float(values[-1])] for name, (_, values) in run.series.items()]
    yield table(["number", f"at step {run.last_step:,}"], last, "Last values")


def _configuration(told: _Told) -> Iterator[ET.Element]:
    said = told.contents["manifest"]
    if said is None:
        raise CheckpointError("the checkpoint has no manifest, as another trainer wrote it")
    for part in ("config", "environment"):
        rows = []
        for name, value in sorted(said[part].items()):
            rows.append([name, ", ".join(map(str, value if isinstance(value, list) else [value]))])
        yield table([part, "value"], rows, f"What the manifest says: {part}")


def _checkpoints(told: _Told) -> Iterator[ET.Element]:
    verified = verify(VerifyConfig(path=told.path, **told.limits))
    found = inspect(InspectConfig(ckpt=told.path, **told.limits))
    listed = {entry["name"]: entry for entry in found.get("checkpoints", ())}
    rows = []
    for entry in verified["checkpoints"]:
        facts = listed.get(entry["name"], {})
        verdict = element("span", "; ".join(map(str, entry["problems"])), class_="bad")
        if entry["ok"]:
            verdict = element("span", "yes", class_="good")
        else:
            told.damaged.append(entry["name"])
        rows.append([entry["name"], verdict, facts.get("test_accuracy"), facts.get("bytes")])
    yield table(["checkpoint", "verifies", "test accuracy", "bytes"], rows, "Checkpoints")


def _accuracy(told: _Told) -> Iterator[ET.Element]:
    found = classify(told.model)
    confusion = plot_models.draw_confusion(found)
    mistakes = plot_models.draw_mistakes(found, _MOST_MISTAKES)
    yield from _drawn(confusion)
    names, counts = confusion.record["classes"], confusion.record["counts"]
    rows = [
        [name, *row, row[i] / sum(row) if any(row) else None]
        for i, (name, row) in enumerate(zip(names, counts, strict=True))
    ]
    head = ["true class", *names, "accuracy"]
    yield table(head, rows[:_MOST_ROWS], "Which class is taken for which")
    yield element("h4", "Worst mistakes")
    yield from _drawn(mistakes)
    rows = [[*mistake.values()] for mistake in mistakes.record["mistakes"]]
    yield table(["row", "true class", "predicted class", "probability"], rows, "Worst mistakes")


def _graph(told: _Told) -> Iterator[ET.Element]:
    subject = told.graph
    with told.model.limit.over("looking at the graph"):
        graph, safety, cost = (PARTS[name][0](subject) for name in ("graph", "safety", "cost"))
    version = subject.meta.proto.meta_info_def.tensorflow_version
    yield element(
        "p",
        f"{graph['nodes']:,} nodes, {graph['inference_nodes']:,} of them to predict; written by "
        f"TensorFlow {version or 'of a version that it does not say'}.",
    )
    for key in ("inputs", "outputs"):
        rows = [[t["name"], kind_text(t)] for t in graph[key][:_MOST_ROWS]]
        yield table(["tensor", "kind"], rows, key.capitalize())
    found = (safety["inference"] or safety["whole"])["offenders"][:_MOST_ROWS]
    if found:
        rows = [[entry[key] for key in ("node", "op", "risk")] for entry in found]
        yield table(["node", "operation", "it"], rows, "What does more than compute")
    else:
        yield element("p", "All that a prediction runs does nothing but compute.", class_="good")
    layers = [
        [entry["layer"] or "(no scope)", *map(entry["inference"].get, ("parameters", "flops"))]
        for entry in cost["layers"]
        if any(entry["inference"].values())
    ]
    yield table(["layer", "parameters", "FLOPs"], layers[:_MOST_ROWS], "To predict one row")


def _layers(told: _Told) -> Iterator[ET.Element]:
    found = layer_graph(told.graph)
    rows = []
    for name, ops in found.layers.items():
        givers = [
            f"{giver} ({', '.join([*types][:2])})"
            for (giver, taker), types in found.edges.items()
            if taker == name
        ]
        told_ops = ", ".join(f"{op} {count}" for op, count in ops.most_common(4))
        is_output = " (a prediction)" if name in found.outputs else ""
        rows.append([f"{name}{is_output}", told_ops, "; ".join(givers)])
    yield table(["layer", "operations", "takes"], rows, "Layers")


def _variables(told: _Told) -> Iterator[ET.Element]:
    prefix, tensors = told.contents["checkpoint"], told.contents["tensors"]
    reader = CheckpointReader(prefix)
    rows = []
    for tensor in tensors[:_MOST_VARIABLES]:
        values = read_tensor(reader, tensor["key"])
        stats = statistics(values)
        bars = _histogram(values) if stats.std is not None and tensor["values"] > 1 else None
        shape = f"{tensor['dtype']} {tensor['shape']}"
        told_of = (stats.min, stats.max, stats.mean, stats.std, stats.nan)
        rows.append([tensor["key"], tensor["role"], shape, bars, *told_of])
    head = ["variable", "role", "kind", "histogram", "min", "max", "mean", "std", "NaN"]
    yield table(head, rows, f"Variables of {os.path.basename(prefix)}")
    if len(tensors) > len(rows):
        yield element("p", f"and {len(tensors) - len(rows):,} more")


def _histogram(values: Array) -> ET.Element:
    """A histogram of the finite values, whose range a float64 holds, as a line of bars."""
    numbers = values.astype(np.float64)
    counts, edges = np.histogram(numbers[np.isfinite(numbers)], _BINS)
    bars = "".join(_BARS[-(-7 * count // counts.max())] for count in counts)
    said = f"histogram from {edges[0]:.3g} to {edges[-1]:.3g}"
    return element("span", bars, role="img", aria_label=said, title=said)


SECTIONS: Mapping[str, _Section] = {
    "progress": _progress,
    "configuration": _configuration,
    "checkpoints": _checkpoints,
    "accuracy": _accuracy,
    "filters": lambda told: _drawn(plot_models.draw_filters(plot_models.read_kernel(told.model))),
    "graph": _graph,
    "layers": _layers,
    "variables": _variables,
}


# The page and its elements.


def element(name: str, *children: Any, **attributes: Any) -> ET.Element:
    """An element of others, or of one text or number; None is nothing. `class_` is class."""
    named = {key.rstrip("_").replace("_", "-"): _clean(v) for key, v in attributes.items()}
    made = ET.Element(name, named)
    for child in children:
        if isinstance(child, ET.Element):
            made.append(child)
        elif child is not None:
            made.text = _clean(child)
    return made


def _clean(text: object) -> str:
    """A text without characters that no page may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(text))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> ET.Element:
    """A table that can be scrolled sideways, by keyboard too; numbers stand to the right."""
    body = [element("tr", *map(_cell, row)) for row in rows]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *(element("th", text, scope="col") for text in head))),
        element("tbody", *body),
    )
    return element("div", made, class_="wide", tabindex=0, role="region", aria_label=caption)


def _cell(value: Any) -> ET.Element:
    if not isinstance(value, int | float):
        return element("td", value)
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return element("td", shown, class_="number")


def page(title: str, body: Sequence[ET.Element]) -> bytes:
    """The whole file, UTF-8; it needs nothing but itself."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
    )
    look = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    ET.SubElement(head, "style").text = look
    html = element("html", head, element("body", element("main", *body)), lang="en")
    text: bytes = ET.tostring(html, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + text + b"\n"
