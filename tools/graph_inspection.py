"""One look at a graph from start to end: what tools.inspect_graph does once its flags are read.

Only the file of the graph is read, never the variables' data: its parts, or one node of it.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from checkpoints.folder import explain_if_gone
from checkpoints.lock import Hold, read_newest
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import META_SUFFIX
from errors import CheckpointError, ToolError
from metagraph.meta import MetaGraphFile
from metagraph.model import read_model
from metagraph.opening import find_model, open_model, prefix_of
from prediction.output import check_target, write_whole
from tools import graph_collections, graph_cost, graph_parts
from tools.command import format_bytes
from tools.graph_drawing import dot_text, draw_png, layer_graph, meta_graph_text
from tools.graph_node import node_lines, node_record
from tools.graph_subject import Subject
from tools.inspect_graph import PARTS, GraphInspection

# Of each part: what it is as JSON values, and those as lines for people.
_PARTS: Mapping[
    str, tuple[Callable[[Subject], dict[str, Any]], Callable[[Mapping[str, Any], int], list[str]]]
] = {
    "info": (graph_parts.info_part, graph_parts.info_lines),
    "graph": (graph_parts.graph_part, graph_parts.graph_lines),
    "saver": (graph_parts.saver_part, graph_parts.saver_lines),
    "collections": (graph_collections.collections_part, graph_collections.collections_lines),
    "signatures": (graph_parts.signatures_part, graph_parts.signatures_lines),
    "functions": (graph_parts.functions_part, graph_parts.functions_lines),
    "cost": (graph_cost.cost_part, graph_cost.cost_lines),
    "safety": (graph_parts.safety_part, graph_parts.safety_lines),
}
_LINES_OF_ALL, _LINES_OF_ONE = 10, 300  # Of a list, where all parts are shown, or chosen ones.


def inspect_graph(config: GraphInspection) -> dict[str, Any]:
    """Looks at a graph, and writes the files that are asked for.

    Returns:
      JSON values: the parts by their names, each as its module says; or `node`; and `written`, a
      list of `file` and `bytes`, where there are any.

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user.
    """
    for flag, path in config.targets.items():
        check_target(path, [], overwrite=config.overwrite, flag=flag)
    meta = read_newest([config.meta], functools.partial(_open, config))
    _check_others(config.targets, meta.path)
    return _found(config, meta)


def _open(config: GraphInspection, hold: Hold) -> MetaGraphFile:
    try:
        file = find_model(config.meta)
        hold(prefix_of(file))
        with config.limit.over("reading the graph"):
            meta = open_model(file, config.max_meta_bytes)
        verify_checkpoint(meta.path.removesuffix(META_SUFFIX), [META_SUFFIX])
    except CheckpointError as error:
        raise explain_if_gone(error, config.meta) from error
    return meta


def _found(config: GraphInspection, meta: MetaGraphFile) -> dict[str, Any]:
    found: dict[str, Any] = {}
    written = []
    if config.as_text:  # Before anything looks at it.
        with config.limit.over("writing the graph as text"):
            written.append(_write(config.as_text, meta_graph_text(meta, config.as_text)))
    if config.node is not None:
        with config.limit.over("looking at the node"):
            found["node"] = node_record(meta, config.node)
    names = config.parts or (() if config.node or config.targets else PARTS)
    if names or config.dot or config.png:
        with config.limit.over("reading the graph"):
            model = read_model(meta, config.signature)
            subject = Subject(meta, model, config.fetch, config.batch_size, config.depth)
    for name in names:
        with config.limit.over(f"looking at the graph for {name}"):
            found[name] = _PARTS[name][0](subject)
    if config.dot or config.png:
        written += _draw(config, subject)
    return found | ({"written": written} if written else {})


def _check_others(targets: Mapping[str, str], source: str) -> None:
    """Sees that no file is written over what is read, or over another."""
    taken = {os.path.realpath(source): "is the file that is read"}
    for flag, path in targets.items():
        place = os.path.realpath(path)
        if place in taken:
            raise ToolError(f"--{flag}={path} {taken[place]}; give it another name")
        taken[place] = "is written by another flag too"


def _draw(config: GraphInspection, subject: Subject) -> Iterator[dict[str, Any]]:
    with config.limit.over("drawing the graph"):
        text = dot_text(layer_graph(subject))
    if config.dot is not None:
        yield _write(config.dot, text.encode())
    if config.png is not None:
        yield _write(config.png, draw_png(text))


def _write(path: str, content: bytes) -> dict[str, Any]:
    write_whole(path, content)
    return {"file": path, "bytes": len(content)}


def as_text(found: Mapping[str, Any]) -> str:
    """What `inspect_graph` returns as lines for people."""
    names = [name for name in PARTS if name in found]
    most = _LINES_OF_ALL if len(names) == len(PARTS) else _LINES_OF_ONE
    blocks: list[list[str]] = []
    if "node" in found:
        blocks.append(node_lines(found["node"], most))
    blocks += [_PARTS[name][1](found[name], most) for name in names]
    blocks += [
        [f"wrote {entry['file']}, {format_bytes(entry['bytes'])}"]
        for entry in found.get("written", ())
    ]
    # A newline in a name of the file could forge a line.
    return "\n".join(line.replace("\n", r"\n") for block in blocks for line in block)
