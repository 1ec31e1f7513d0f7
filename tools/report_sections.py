"""What a report tells of a run or a checkpoint, section by section.

Each section asks the tool whose work it is. Where that fails, its line stands in the section.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from checkpoints.reader import CheckpointReader
from errors import CheckpointError, UserError
from metagraph.model import read_model
from metagraph.opening import find_variables
from prediction.chosen_model import open_graph, with_chosen, with_model
from prediction.evaluation import classify
from prediction.output import kind_text
from prediction.request import Limits, ModelConfig, PredictConfig
from tools.checkpoint_contents import read_tensor, statistics
from tools.command import Record
from tools.folder_entries import inspect
from tools.graph_layers import layer_graph
from tools.graph_subject import Subject
from tools.inspect_checkpoint import InspectConfig
from tools.inspect_graph import GraphInspection, inspect_graph
from tools.plot_models import confusion, read_kernel, row_images, tiles_of, worst_mistakes
from tools.plotting import PANELS, RunMetrics, read_run, short_path
from tools.report import ReportConfig
from tools.report_html import Line, curves, element, histogram, page, picture, table
from tools.verify import VerifyConfig
from tools.verifying import verify

_MOST_MISTAKES, _MOST_FILTERS, _MOST_ROWS, _MOST_VARIABLES = 12, 32, 200, 300
_MOST_POINTS = 400  # of a curve
_BINS = 24


class _Told:
    """What is reported on, the labelled images to test it on, and the `Limits` as arguments.

    What several sections tell of is read once.
    """

    def __init__(self, path: str, images: Sequence[str], limits: Mapping[str, Any]) -> None:
        self.path, self.input, self.limits = path, images, limits
        self.damaged: list[str] = []  # Checkpoints that do not verify, added as they are found.

    @functools.cached_property
    def metrics(self) -> RunMetrics:
        """What the run has logged; ToolError where it has not."""
        return read_run(self.path)

    @functools.cached_property
    def listed(self) -> Record | None:
        """The list of a folder's checkpoints; None where one checkpoint is meant."""
        if not os.path.isdir(self.path):
            return None
        return inspect(InspectConfig(ckpt=self.path, **self.limits))

    @functools.cached_property
    def contents(self) -> Record:
        """What the checkpoint holds that is looked at: the one that is named, or the newest."""
        if self.listed is None:
            prefix = find_variables(self.path)
        elif self.listed["newest"] is None:
            raise CheckpointError(f"none of the checkpoints of {self.path} is whole")
        else:
            prefix = os.path.join(self.path, self.listed["newest"])
        return inspect(InspectConfig(ckpt=prefix, **self.limits))


_Section = Callable[[_Told], Iterator[ET.Element]]


def report(config: ReportConfig, most_bytes: int) -> tuple[bytes, Record]:
    """The page, and what is in it.

    That is `runs`: of each its `path`, the `failed` sections with why, the `damaged` checkpoints.
    Raises CheckpointError where one of them is neither a run nor a checkpoint.
    """
    names = [*map(short_path, config.runs)]
    title = f"Report of {', '.join(names)}"
    items = [element("li", element("a", name, href=f"#run-{n}")) for n, name in enumerate(names)]
    body = [element("h1", title), element("nav", element("ul", *items), aria_label="runs")]
    limits = {field.name: getattr(config, field.name) for field in dataclasses.fields(Limits)}
    all_told = [_Told(path, config.input, limits) for path in config.runs]
    body += _together(all_told, names)
    runs = []
    for number, (name, told) in enumerate(zip(names, all_told, strict=True)):
        failed: dict[str, str] = {}
        sections = [*_sections(told, number, failed)]
        if failed.keys() >= {"graph", "variables"}:
            raise CheckpointError(f"{told.path} is no checkpoint, nor a run: {failed['graph']}")
        body.append(element("article", element("h2", name, id=f"run-{number}"), *sections))
        runs.append({"path": told.path, "failed": failed, "damaged": told.damaged})
    content = page(title, body)
    if len(content) > most_bytes:
        raise CheckpointError(
            f"the report has {len(content):,} bytes, expected at most {most_bytes:,}: report on "
            "fewer runs at a time"
        )
    return content, {"runs": runs}


def as_text(record: Record) -> str:
    """The file, and what could not be told."""
    lines = [f"{record['output']}: {record['bytes']:,} bytes"]
    for run in record["runs"]:
        lines += [f"  {run['path']}: no {title}: {why}" for title, why in run["failed"].items()]
        lines += [f"  {run['path']}: {name} does not verify" for name in run["damaged"]]
    return "\n".join(lines)


def _sections(told: _Told, number: int, failed: dict[str, str]) -> Iterator[ET.Element]:
    """Each section with its heading; one that fails has the reason as its text."""
    for title, make in SECTIONS.items():
        identity = f"{title.replace(' ', '-')}-{number}"
        heading = element("h3", title.capitalize(), id=identity)
        try:
            content = [*make(told)]
        except (UserError, OSError) as error:
            failed[title] = str(error)
            content = [element("p", f"Not known: {error}")]
        yield element("section", heading, *content, aria_labelledby=identity)


def _together(all_told: Sequence[_Told], names: Sequence[str]) -> Iterator[ET.Element]:
    """The curves of several runs, one over the other."""
    found = []
    for name, told in zip(names, all_told, strict=True):
        try:
            found.append((name, told.metrics))
        except UserError:
            continue  # The run's own section says why.
    if len(found) > 1:
        yield element("h2", "The runs together")
        yield from _curves(found)


def _curves(runs: Sequence[tuple[str, RunMetrics]]) -> Iterator[ET.Element]:
    for title, numbers in PANELS.items():
        lines = []
        for number, (name, run) in enumerate(runs):
            for key in (key for key in numbers if key in run.series):
                steps, values = run.series[key]
                every = -(-len(steps) // _MOST_POINTS)
                points = zip(steps[::every].tolist(), values[::every].tolist(), strict=True)
                own = f"{name}: {numbers[key]}" if len(runs) > 1 else numbers[key]
                lines.append(Line(own, number, key.startswith("test"), [*points]))
        if lines:
            yield curves(title, lines)


def _progress(told: _Told) -> Iterator[ET.Element]:
    run = told.metrics
    yield from _curves([("", run)])
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
    entries = told.listed["checkpoints"] if told.listed else []
    listed = {entry["name"]: entry for entry in entries}
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
    found = classify(PredictConfig(told.path, input=told.input, **told.limits))
    names, counts = confusion(found)
    right, total = int(counts.trace()), int(counts.sum())
    yield element("p", f"{right:,} of {total:,} rows are right: {right / total:.4f}.")
    rows = [
        [name, *map(int, row), float(row[i] / row.sum()) if row.sum() else None]
        for i, (name, row) in enumerate(zip(names, counts, strict=True))
    ]
    head = ["true class", *names, "accuracy"]
    yield table(head, rows[:_MOST_ROWS], "Which class is taken for which")
    yield element("h4", "Worst mistakes")
    _, worst, mistakes = worst_mistakes(found, _MOST_MISTAKES)
    if not worst:
        yield element("p", "There is none.")
        return
    shown = []
    for one, image in zip(mistakes, row_images(found, worst)[0], strict=True):
        said = (
            f"{one['name']}: {one['label']}, taken for {one['class']} at "
            f"{float(one['probability']):.4f}"
        )
        shown.append(element("li", picture(image, said), said))
    yield element("ul", *shown, class_="pictures")


def _filters(told: _Told) -> Iterator[ET.Element]:
    model = PredictConfig(told.path, **told.limits)
    kernel = with_model(model, functools.partial(read_kernel, model, tensor=None))
    shape = kernel.values.shape
    shown = []
    for index in range(min(shape[3], _MOST_FILTERS)):
        one = kernel.values[:, :, : 3 if shape[2] == 3 else 1, index : index + 1]
        said = f"filter {index}, from {one.min():.3g} to {one.max():.3g}"
        shown.append(element("li", picture(tiles_of(one)[0, 0], said)))
    yield element("p", f"{kernel.name}, of shape {list(shape)}.")
    yield element("ul", *shown, class_="pictures small")


def _graph(told: _Told) -> Iterator[ET.Element]:
    parts = ("info", "graph", "signatures", "cost", "safety")
    found = inspect_graph(GraphInspection(meta=told.path, parts=parts, **told.limits))
    graph, info = found["graph"], found["info"]
    yield element(
        "p",
        f"{graph['nodes']:,} nodes, {graph['inference_nodes']:,} of them to predict; written by "
        f"TensorFlow {info['tensorflow_version'] or 'of a version that it does not say'}.",
    )
    for key in ("inputs", "outputs"):
        rows = [[t["name"], kind_text(t)] for t in graph[key][:_MOST_ROWS]]
        yield table(["tensor", "kind"], rows, key.capitalize())
    safety = found["safety"]["inference"] or found["safety"]["whole"]
    offenders = [[o["node"], o["op"], o["risk"]] for o in safety["offenders"][:_MOST_ROWS]]
    if offenders:
        yield table(["node", "operation", "it"], offenders, "What does more than compute")
    else:
        yield element("p", "All that a prediction runs does nothing but compute.", class_="good")
    layers = [
        [
            entry["layer"] or "(no scope)",
            *(entry["inference"][key] for key in ("parameters", "flops")),
        ]
        for entry in found["cost"]["layers"]
        if any(entry["inference"].values())
    ]
    yield table(["layer", "parameters", "FLOPs"], layers[:_MOST_ROWS], "To predict one row")


def _layers(told: _Told) -> Iterator[ET.Element]:
    meta = with_chosen(ModelConfig(told.path, **told.limits), open_graph)
    found = layer_graph(Subject(meta, read_model(meta, None)))
    items = []
    for name, ops in found.layers.items():
        givers = [
            f"{giver} ({', '.join([*types][:2])})"
            for (giver, taker), types in found.edges.items()
            if taker == name
        ]
        told_ops = ", ".join(f"{op} {count}" for op, count in ops.most_common(4))
        is_output = " (a prediction)" if name in found.outputs else ""
        takes = element("div", f"takes {'; '.join(givers)}") if givers else None
        items.append(element("li", element("strong", name), f"{is_output}: {told_ops}", takes))
    yield element("ol", *items, class_="layers")


def _variables(told: _Told) -> Iterator[ET.Element]:
    prefix, tensors = told.contents["checkpoint"], told.contents["tensors"]
    reader = CheckpointReader(prefix)
    rows = []
    for tensor in tensors[:_MOST_VARIABLES]:
        values = read_tensor(reader, tensor["key"])
        stats = statistics(values)
        bars = None
        if stats.min is not None and tensor["values"] > 1:
            numbers = values.astype(np.float64)
            counts, edges = np.histogram(numbers[np.isfinite(numbers)], _BINS)
            bars = histogram(counts.tolist(), float(edges[0]), float(edges[-1]))
        shape = f"{tensor['dtype']} {tensor['shape']}"
        told_of = (stats.min, stats.max, stats.mean, stats.std, stats.nan)
        rows.append([tensor["key"], tensor["role"], shape, bars, *told_of])
    head = ["variable", "role", "kind", "histogram", "min", "max", "mean", "std", "NaN"]
    yield table(head, rows, f"Variables of {os.path.basename(prefix)}")
    if len(tensors) > len(rows):
        yield element("p", f"and {len(tensors) - len(rows):,} more")


SECTIONS: Mapping[str, _Section] = {
    "progress": _progress,
    "configuration": _configuration,
    "checkpoints": _checkpoints,
    "accuracy": _accuracy,
    "filters": _filters,
    "graph": _graph,
    "layers": _layers,
    "variables": _variables,
}
