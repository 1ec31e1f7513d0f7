"""What is written of a graph: all of it as text, or its layers as a drawing, each scope one node.

A drawing is written in the language of Graphviz, whose program `dot` makes a PNG of it.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from absl import logging
from google.protobuf import text_format
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.naming import META_SUFFIX
from cli.terminal import printable
from errors import ToolError
from metagraph.graph import data_inputs
from metagraph.meta import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    format_shape,
    node_of,
)
from metagraph.parsing import GRAPH_SUFFIXES, MAX_TEXT_BYTES
from tools.flat_graph import Origin, StaticGraph, static_graph
from tools.graph_subject import Subject, layer_of

MAX_LAYERS = 250  # Of a drawing that can still be read.
_INPUTS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
_SILENT = frozenset({"Const", "NoOp"})
_DEPTHS = (None, 6, 5, 4, 3, 2, 1)
_MOST_OPS = 4
_MOST_TYPES = 3
_LONGEST = 60  # Characters of a name.
_PLUMBING = frozenset({"Const", "Identity", "NoOp", "ReadVariableOp", "Shape", "VarHandleOp"})
_PROGRAM = "dot"
_SECONDS = 120.0
_PNG = b"\x89PNG\r\n\x1a\n"
Naming: TypeAlias = Callable[[str], str]


def meta_graph_text(meta: MetaGraphFile, path: str) -> bytes:
    """All of a meta graph as text, constants included; predict.py reads it as the binary form.

    A warning says where it cannot be read back from `path`, where it will be.

    Format: https://protobuf.dev/reference/protobuf/textformat-spec/.
    """
    content = text_format.MessageToString(meta.proto, use_short_repeated_primitives=True).encode()
    if len(content) > MAX_TEXT_BYTES:
        logging.warning(
            "%s has %d bytes; predict.py reads back a text of at most %d",
            path,
            len(content),
            MAX_TEXT_BYTES,
        )
    if not path.endswith((*GRAPH_SUFFIXES, META_SUFFIX)):
        logging.warning("%s: predict.py reads graphs from .pbtxt, .pb and .meta files", path)
    return content


@dataclass
class Layer:
    """A layer of the drawing: a scope or a node outside all scopes, and how many nodes of each op.

    Its kind is `input`, `output` or `layer`.
    """

    name: str
    ops: Counter[str] = field(default_factory=Counter)
    kind: str = "layer"


@dataclass(frozen=True)
class LayerGraph:
    """Layers by name, and giver and taker by name -> the types of the tensors between, each once.

    The title is what it is a drawing of.
    """

    title: str
    layers: Mapping[str, Layer]
    edges: Mapping[tuple[str, str], list[str]]


def layer_graph(subject: Subject) -> LayerGraph:
    """Collapses what predicts, or, where that is not known, the whole graph.

    Where there are more than `MAX_LAYERS`, only outer scopes are layers.

    Raises:
      ToolError: there are too many even so.
    """
    static = static_graph(subject.meta, subject.inference.outputs, None)
    names = subject.inference.names
    kept = {
        name: origin
        for name, origin in static.flat.origins.items()
        if not names or origin.root in names
    }
    work = _Collapsing(static, kept, _naming(subject, static, kept.values()))
    outputs = {node_of(static.flat.source(name)) for name in subject.inference.outputs}
    for node in static.flat.graph_def.node:
        if node.name in kept:
            work.add(node, is_output=node.name in outputs)
    # Layers of constants alone, or that do nothing, say nothing.
    layers = {name: layer for name, layer in work.layers.items() if not set(layer.ops) <= _SILENT}
    edges = {ends: types for ends, types in work.edges.items() if layers.keys() >= set(ends)}
    return LayerGraph(", ".join(subject.inference.outputs) or "the whole graph", layers, edges)


def _naming(subject: Subject, static: StaticGraph, origins: Iterable[Origin]) -> Naming:
    """The first depth of scopes that gives few enough layers; nodes outside of all stand alone."""
    paths = {origin.path for origin in origins}
    names = set[str]()
    for depth in _DEPTHS if subject.depth is None else (subject.depth,):

        def naming(path: str, depth: int | None = depth) -> str:
            return layer_of(path, static.paths, depth) or path.partition("/")[0]

        names = {*map(naming, paths)}
        if len(names) <= MAX_LAYERS:
            return naming
    raise ToolError(
        f"{subject.meta.path} has {len(names)} layers to draw, expected at most {MAX_LAYERS}: "
        "--fetch=<an inner tensor> draws what that needs"
        + (", --depth=1 the outer scopes alone" if subject.depth not in (None, 1) else "")
    )


class _Collapsing:
    """The work of `layer_graph`: layers by name, and the types of the tensors between two."""

    def __init__(self, static: StaticGraph, origins: Mapping[str, Origin], naming: Naming) -> None:
        self.layers: dict[str, Layer] = {}
        self.edges: dict[tuple[str, str], list[str]] = {}
        self._static = static
        self._origins = origins
        self._naming = naming

    def add(self, node: NodeDef, is_output: bool) -> None:
        """Adds a node to its layer, and what it takes from others."""
        layer = self._layer(node.name)
        layer.ops[node.op] += 1
        if node.op in _INPUTS:
            layer.kind = "input"
        if is_output:
            layer.kind = "output"
        for tensor in data_inputs(node):
            if node_of(tensor) in self._static.flat.origins:
                self._connect(tensor, layer.name)

    def _layer(self, node: str) -> Layer:
        name = self._naming(self._origins[node].path)
        return self.layers.setdefault(name, Layer(name))

    def _connect(self, tensor: str, taker: str) -> None:
        if node_of(tensor) in self._origins:
            giver = self._layer(node_of(tensor))
        else:  # It is fed.
            giver = self.layers.setdefault(tensor, Layer(tensor, Counter(["fed"]), "input"))
        if giver.name != taker:
            types = self.edges.setdefault((giver.name, taker), [])
            found = self._static.tensor(tensor)
            text = "" if found is None else f"{found[0]} {format_shape(found[1])}"
            if text not in types:
                types.append(text)


def dot_text(graph: LayerGraph) -> str:
    """The drawing as text. Names are quoted, and never more than a label.

    Language: https://graphviz.org/doc/info/lang.html.
    """
    ids = {name: f"n{number}" for number, name in enumerate(graph.layers)}
    lines = [
        "digraph layers {",
        f"  label={_quoted([graph.title])}; labelloc=t; rankdir=TB; fontname=Helvetica;",
        "  node [fontname=Helvetica, fontsize=11, style=filled, fillcolor=white];",
        "  edge [fontname=Helvetica, fontsize=9];",
    ]
    for name, layer in graph.layers.items():
        label = _quoted(dict.fromkeys([name, _ops(layer)]))  # Once, of a node named as it does.
        shape = "ellipse" if layer.kind == "input" else "box"
        bold = ", penwidth=2" if layer.kind == "output" else ""
        lines.append(f"  {ids[name]} [label={label}, shape={shape}{bold}];")
    for (giver, taker), types in graph.edges.items():
        more = len(types) - _MOST_TYPES
        rest = [f"and {more} more"] if more > 0 else []
        texts = [f" {text}" for text in (*types[:_MOST_TYPES], *rest)]  # Spaces keep off the line.
        lines.append(f"  {ids[giver]} -> {ids[taker]} [label={_quoted(texts)}];")
    return "\n".join([*lines, "}\n"])


def _ops(layer: Layer) -> str:
    """The operations that tell the most, with their numbers."""
    telling = {op: count for op, count in layer.ops.items() if op not in _PLUMBING} or layer.ops
    ordered = sorted(telling.items(), key=lambda item: (-item[1], item[0]))
    texts = [op if count == 1 else f"{op} x{count}" for op, count in ordered[:_MOST_OPS]]
    more = sum(layer.ops.values()) - sum(count for _, count in ordered[:_MOST_OPS])
    return ", ".join(texts) + (f" + {more}" if more > 0 else "")


def _quoted(lines: Iterable[str]) -> str:
    r"""A quoted string of the language; no name ends it, or is read as one of its escapes."""
    shown = (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..." for text in lines)
    plain = (printable(text.replace("\n", " ")) for text in shown)
    return '"' + r"\n".join(t.replace("\\", "\\\\").replace('"', '\\"') for t in plain) + '"'


def draw_png(text: str, seconds: float = _SECONDS) -> bytes:
    """Runs Graphviz's program `dot` on a graph, which comes in by a pipe, and names no file.

    Raises:
      ToolError: it is not installed, takes longer than so many seconds, or fails.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise ToolError(
            "--png needs Graphviz's program 'dot', which is not installed: get it with 'apt-get "
            "install graphviz' or 'brew install graphviz', or write its text with --dot=file.dot"
        )
    try:
        ended = subprocess.run(  # noqa: S603 (no shell, and no argument is of a file)
            [program, "-Tpng"],
            input=text.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"{_PROGRAM} takes longer than {seconds:g} seconds: draw fewer layers with --depth=1, "
            "or write its text with --dot=file.dot"
        ) from error
    if ended.returncode or not ended.stdout.startswith(_PNG):
        reason = ended.stderr.decode("utf-8", "backslashreplace").strip().partition("\n")[0]
        raise ToolError(
            f"{_PROGRAM} fails with exit code {ended.returncode}: {reason or 'it wrote no PNG'}"
        )
    return ended.stdout
