"""One look at a graph from start to end: what tools.inspect_graph does once its flags are read.

Only the file of the graph is read, never the variables' data: its parts, or one node of it.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from absl import logging
from google.protobuf import text_format

from cli.terminal import one_line
from errors import CheckpointError, NotInstalledError, ToolError, nearest_names
from metagraph.graph import attribute_of, data_inputs
from metagraph.importing import disarmed_graph
from metagraph.meta import MetaGraphFile, node_of
from metagraph.model import read_model
from metagraph.safety import offenders
from prediction.chosen_model import open_graph, with_chosen
from prediction.output import check_target, shortened, tensor_text, write_whole
from prediction.request import ModelConfig
from tools import graph_layers, graph_parts
from tools.command import format_bytes
from tools.graph_subject import Subject, attribute_text, listed, tensor_record
from tools.inspect_graph import PARTS, GraphInspection

# Of each part: what it is as JSON values, and those as lines for people.
_Part = Callable[[Subject], dict[str, Any]]
_Lines = Callable[[Mapping[str, Any], int], Iterable[str]]
_PARTS: Mapping[str, tuple[_Part, _Lines]] = {
    "info": (graph_parts.info_part, graph_parts.info_lines),
    "graph": (graph_parts.graph_part, graph_parts.graph_lines),
    "saver": (graph_parts.saver_part, graph_parts.saver_lines),
    "collections": (graph_parts.collections_part, graph_parts.collections_lines),
    "signatures": (graph_parts.signatures_part, graph_parts.signatures_lines),
    "functions": (graph_parts.functions_part, graph_parts.functions_lines),
    "cost": (graph_layers.cost_part, graph_layers.cost_lines),
    "safety": (graph_parts.safety_part, graph_parts.safety_lines),
}
_LINES_OF_ALL, _LINES_OF_ONE = 10, 300  # Of a list, where all parts are shown, or chosen ones.
_COLOCATED, _CLASS = b"loc:@", "_class"
_LONGEST = 2000  # Characters of an attribute for people.


def inspect_graph(config: GraphInspection) -> dict[str, Any]:
    """Looks at a graph, and writes the files that are asked for.

    Gives what `docs/json.md` has. Raises CheckpointError, DataError, PredictionError or ToolError.
    """
    for flag, path in config.targets.items():
        check_target(path, [], overwrite=config.overwrite, flag=flag)
    limits = {key: getattr(config, key) for key in ("max_meta_bytes", "time_limit", "end_after")}
    meta = with_chosen(ModelConfig(config.meta, **limits), open_graph)
    _check_others(config.targets, meta.path)
    found: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    if config.as_text:  # Before anything looks at the graph, with all of its constants.
        with config.limit.over("writing the graph as text"):
            text = text_format.MessageToString(meta.proto, use_short_repeated_primitives=True)
            files[config.as_text] = text.encode()
    if config.node is not None:
        with config.limit.over("looking at the node"):
            found["node"] = node_record(meta, config.node)
    names = config.parts or (() if config.node or config.targets else PARTS)
    if names or config.dot or config.png:
        with config.limit.over("reading the graph"):
            model = read_model(meta, config.signature, classifies=False)
        subject = Subject(meta, model, config.fetch, config.batch_size, config.depth)
        found |= _parts(config, subject, names)
        files |= _drawings(config, subject)
    for path, content in files.items():
        write_whole(path, content)
    written = [{"file": path, "bytes": len(content)} for path, content in files.items()]
    return found | ({"written": written} if written else {})


def _parts(
    config: GraphInspection, subject: Subject, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The parts by name; without TensorFlow, of all parts those that the file tells of alone."""
    found = {}
    for name in names:
        with config.limit.over(f"looking at the graph for {name}"):
            try:
                found[name] = _PARTS[name][0](subject)
            except NotInstalledError as error:
                if config.parts:
                    raise
                logging.warning("without the part %s: %s", name, error)
    return found


def _check_others(targets: Mapping[str, str], source: str) -> None:
    """Sees that no file is written over what is read, or over another."""
    taken = {os.path.realpath(source): "is the file that is read"}
    for flag, path in targets.items():
        place = os.path.realpath(path)
        if place in taken:
            raise ToolError(f"--{flag}={path} {taken[place]}; give it another name")
        taken[place] = "is written by another flag too"


def _drawings(config: GraphInspection, subject: Subject) -> dict[str, bytes]:
    """The drawings that are asked for, by their files."""
    files: dict[str, bytes] = {}
    if config.dot or config.png:
        with config.limit.over("drawing the graph"):
            text = graph_layers.dot_text(graph_layers.layer_graph(subject))
        if config.dot:
            files[config.dot] = text.encode()
        if config.png:
            files[config.png] = graph_layers.draw_png(text)
    return files


def as_text(found: Mapping[str, Any]) -> str:
    """What `inspect_graph` returns as lines for people."""
    names = [name for name in PARTS if name in found]
    most = _LINES_OF_ALL if len(names) == len(PARTS) else _LINES_OF_ONE
    lines = [*node_lines(found["node"], most)] if "node" in found else []
    for name in names:
        lines += _PARTS[name][1](found[name], most)
    for entry in found.get("written", ()):
        lines.append(f"wrote {entry['file']}, {format_bytes(entry['bytes'])}")
    # A newline in a name of the file could forge a line.
    return "\n".join(map(one_line, lines))


def node_record(meta: MetaGraphFile, text: str) -> dict[str, Any]:
    """JSON values, of a node or of the node of a tensor, as `docs/json.md` has them.

    Raises ToolError where there is no such node; the nearest names are in the message.
    """
    name = text.removeprefix("^").partition(":")[0]
    if name not in meta.nodes:
        near = nearest_names(name, meta.nodes)
        hint = f"the nearest are {', '.join(near)}" if near else "--part=graph shows its inputs"
        raise ToolError(f"{meta.path} has no node {text!r}; {hint}")
    node = meta.nodes[name]
    graph = None
    with suppress(CheckpointError):  # TensorFlow cannot import what the node needs.
        graph = disarmed_graph(meta, [f"{name}:0"])
    takers = _takers(meta, name)
    outputs = [] if graph is None else [t.name for t in graph.get_operation_by_name(name).outputs]
    outputs += sorted(taken for taken in takers if taken not in outputs)
    risks = {o.node.name: o.risk for o in offenders(meta.proto.graph_def) if not o.function}
    return {
        "node": name,
        "op": node.op,
        "device": node.device,
        "attributes": {
            key: attribute_text(node.attr[key]) for key in sorted(node.attr) if key != _CLASS
        },
        "inputs": [tensor_record(graph, text) for text in data_inputs(node)],
        "outputs": [tensor_record(graph, out) | {"takers": takers.get(out, [])} for out in outputs],
        "control_inputs": [text[1:] for text in node.input if text.startswith("^")],
        "control_outputs": [o.name for o in meta.nodes.values() if f"^{name}" in o.input],
        "colocated_with": [
            value.removeprefix(_COLOCATED).decode("utf-8", "backslashreplace")
            for value in attribute_of(node, _CLASS).list.s
            if value.startswith(_COLOCATED) and value != _COLOCATED + name.encode()
        ],
        "risk": risks.get(name),
    }


def _takers(meta: MetaGraphFile, name: str) -> dict[str, list[dict[str, Any]]]:
    """Who takes the outputs of a node, by the output's name."""
    found = defaultdict[str, list[dict[str, Any]]](list)
    for other in meta.nodes.values():
        for position, text in enumerate(data_inputs(other)):
            if node_of(text) == name:
                output = text if ":" in text else f"{text}:0"
                found[output].append({"node": other.name, "input": position})
    return found


def node_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    """Lines for people."""
    yield f"node {found['node']}"
    yield f"  operation {found['op']}"
    if found["device"]:
        yield f"  device {found['device']}"
    if found["colocated_with"]:
        yield f"  on the device of {listed(found['colocated_with'], most)}"
    if found["risk"]:
        yield f"  is refused in a run: it {found['risk']}"
    if found["attributes"]:
        yield "  attributes"
        texts = [f"{key} = {_cut(text)}" for key, text in found["attributes"].items()]
        yield from shortened(texts, most, "    ")
    yield "  inputs" if found["inputs"] else "  no inputs"
    yield from shortened([tensor_text(tensor) for tensor in found["inputs"]], most, "    ")
    for key, title in {"control_inputs": "waits for", "control_outputs": "waited for by"}.items():
        if found[key]:
            yield f"  {title} {listed(found[key], most)}"
    yield "  outputs" if found["outputs"] else "  no outputs"
    for output in found["outputs"]:
        yield f"    {tensor_text(output)}"
        texts = [f"taken by {t['node']} as input {t['input']}" for t in output["takers"]]
        yield from shortened(texts or ["taken by no node"], most, "      ")


def _cut(text: str) -> str:
    more = len(text) - _LONGEST
    return f"{text[:_LONGEST]}... ({more} characters more)" if more > 0 else text
