"""One look at a graph from start to end: what `tools.inspect_graph` does once its flags are read.

Only the file of the graph is read, never the variables' data.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from checkpoints.errors import CheckpointError
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_files import find_model, open_model
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.loading.variable_files import prefix_of
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import META_SUFFIX
from checkpoints.newest import Hold, read_newest, say_if_gone
from prediction.model import read_model
from prediction.output_file import write_whole
from tools.common.errors import ToolError
from tools.common.output import format_bytes
from tools.common.target_file import check_target
from tools.graph_inspection import (
    collections_part,
    cost_part,
    functions_part,
    graph_part,
    info_part,
    one_node,
    safety_part,
    saver_part,
    signatures_part,
)
from tools.graph_inspection.dot_text import dot_text
from tools.graph_inspection.layer_graph import layer_graph
from tools.graph_inspection.parts import PARTS
from tools.graph_inspection.picture import draw_png
from tools.graph_inspection.subject import Subject
from tools.graph_inspection.text_file import meta_graph_text

_MODULES: Mapping[str, ModuleType] = {
    "info": info_part,
    "graph": graph_part,
    "saver": saver_part,
    "collections": collections_part,
    "signatures": signatures_part,
    "functions": functions_part,
    "cost": cost_part,
    "safety": safety_part,
}
_LINES_OF_ALL, _LINES_OF_ONE = 10, 300  # Of a list, where all parts are shown, or chosen ones.


@dataclass(frozen=True)
class GraphInspection:
    """What is asked for.

    Attributes:
      meta: what `open_model` takes.
      parts: of `PARTS`; none stands for all, or for none where a file is to be written.
      node: a node to show in their place; None for none.
      fetch: the outputs that are the prediction; none for the file's own.
      signature: the signature whose inputs and outputs are meant; None as for predict.py.
      batch_size: rows, for the FLOPs.
      depth: how many name scopes make a layer; None for all.
      as_text, dot, png: files to write; None for none.
      overwrite: whether they may be there already.
      max_meta_bytes: the size of the largest file of a graph that is read.
      limit: of the time that each step takes.
    """

    meta: str
    parts: Sequence[str] = ()
    node: str | None = None
    fetch: Sequence[str] = ()
    signature: str | None = None
    batch_size: int = 1
    depth: int | None = None
    as_text: str | None = None
    dot: str | None = None
    png: str | None = None
    overwrite: bool = False
    max_meta_bytes: int = DEFAULT_MAX_BYTES
    limit: TimeLimit = field(default_factory=TimeLimit)

    @property
    def targets(self) -> dict[str, str]:
        """The files to write, by flag."""
        named = {"as_text": self.as_text, "dot": self.dot, "png": self.png}
        return {flag: path for flag, path in named.items() if path is not None}


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
        raise say_if_gone(error, config.meta) from error
    return meta


def _found(config: GraphInspection, meta: MetaGraphFile) -> dict[str, Any]:
    found: dict[str, Any] = {}
    written = [_write_text(config, meta)] if config.as_text else []  # Before anything looks at it.
    if config.node is not None:
        with config.limit.over("looking at the node"):
            found["node"] = one_node.record(meta, config.node)
    names = config.parts or (() if config.node or config.targets else PARTS)
    if names or config.dot or config.png:
        with config.limit.over("reading the graph"):
            subject = _subject(config, meta)
    for name in names:
        with config.limit.over(f"looking at the graph for {name}"):
            found[name] = _MODULES[name].record(subject)
    if config.dot or config.png:
        written += _draw(config, subject)
    return found | ({"written": written} if written else {})


def _subject(config: GraphInspection, meta: MetaGraphFile) -> Subject:
    return Subject(
        meta,
        read_model(meta, config.signature),
        fetch=config.fetch,
        batch_size=config.batch_size,
        depth=config.depth,
    )


def _check_others(targets: Mapping[str, str], source: str) -> None:
    """Sees that no file is written over what is read, or over another."""
    taken = {os.path.realpath(source): "is the file that is read"}
    for flag, path in targets.items():
        place = os.path.realpath(path)
        if place in taken:
            raise ToolError(f"--{flag}={path} {taken[place]}; give it another name")
        taken[place] = "is written by another flag too"


def _write_text(config: GraphInspection, meta: MetaGraphFile) -> dict[str, Any]:
    path = str(config.as_text)
    with config.limit.over("writing the graph as text"):
        return _write(path, meta_graph_text(meta, path))


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
        blocks.append(one_node.lines(found["node"], most))
    blocks += [_lines_of(name)(found[name], most) for name in names]
    blocks += [
        [f"wrote {entry['file']}, {format_bytes(entry['bytes'])}"]
        for entry in found.get("written", ())
    ]
    # A newline in a name of the file could forge a line.
    return "\n".join(line.replace("\n", r"\n") for block in blocks for line in block)


def _lines_of(name: str) -> Callable[[Mapping[str, Any], int], list[str]]:
    lines: Callable[[Mapping[str, Any], int], list[str]] = _MODULES[name].lines
    return lines
