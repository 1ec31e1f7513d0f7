"""What is written of a graph: all of it as text, or its layers as a drawing, each scope one node.

A drawing is written in the language of Graphviz, whose program `dot` makes a PNG of it.
"""

import functools
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
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
from metagraph.usage import output_index
from tools.flat_graph import Origin, StaticGraph, static_graph
from tools.graph_subject import Subject, layer_of

# A MetaGraphDef as text, as a whole; predict.py reads it as it reads the binary form.
#
# Format: https://protobuf.dev/reference/protobuf/textformat-spec/.


def meta_graph_text(meta: MetaGraphFile, path: str) -> bytes:
    """All of a meta graph as text, constants included.

    Args:
      meta: the file.
      path: where it will be; a warning says where it cannot be read back from there.
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


# The graph of a graph's layers: name scopes collapsed into one node each, for a drawing.

MAX_LAYERS = 250  # Of a drawing that can still be read.
_INPUTS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
_NO_SCOPE = "(no scope)"
_SILENT = frozenset({"Const", "NoOp"})
_DEPTHS = (None, 6, 5, 4, 3, 2, 1)
Naming: TypeAlias = Callable[[str], str]


@dataclass
class Layer:
    """A layer of the drawing.

    Attributes:
      name: its scope, or of a node outside all scopes the node's own name.
      ops: how many nodes of each operation.
      kind: `input`, `output` or `layer`.
    """

    name: str
    ops: Counter[str] = field(default_factory=Counter)
    kind: str = "layer"


@dataclass(frozen=True)
class LayerGraph:
    """Layers and what goes between them.

    Attributes:
      title: what it is a drawing of.
      layers: by name, in the graph's order.
      edges: giver and taker, by name -> the tensors' types, each once.
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
    naming = _naming(subject, static)
    work = _Collapsing(subject, static, naming)
    for node in static.flat.graph_def.node:
        work.add(node)
    return work.result()


def _naming(subject: Subject, static: StaticGraph) -> Naming:
    """The first way to name layers that gives few enough."""
    names = subject.inference.names
    origins = static.flat.origins.values()
    paths = {o.path for o in origins if not o.glue and (o.root in names or not names)}
    number = 0
    depths = (subject.depth,) if subject.depth is not None else _DEPTHS
    for outside in (_outermost, lambda _: _NO_SCOPE):
        for depth in depths:
            naming = functools.partial(_layer_name, static.paths, depth, outside)
            number = len(set(map(naming, paths)))
            if number <= MAX_LAYERS:
                return naming
    raise ToolError(
        f"{subject.meta.path} has {number} layers to draw, expected at most {MAX_LAYERS}: "
        "--fetch=<an inner tensor> draws what that needs"
        + (", --depth=1 the outer scopes alone" if subject.depth not in (None, 1) else "")
    )


def _outermost(path: str) -> str:
    return path.partition("/")[0]


def _layer_name(paths: Container[str], depth: int | None, outside: Naming, path: str) -> str:
    return layer_of(path, paths, depth) or outside(path)


class _Collapsing:
    """The work of `layer_graph` at one depth."""

    def __init__(self, subject: Subject, static: StaticGraph, naming: Naming) -> None:
        self._subject = subject
        self._static = static
        self._naming = naming
        self._names = subject.inference.names
        self._nodes = {node.name: node for node in static.flat.graph_def.node}
        outputs = subject.inference.outputs
        self._outputs = {node_of(t) for name in outputs for t in self._source(name)}
        self._layers: dict[str, Layer] = {}
        self._edges: dict[tuple[str, str], list[str]] = {}

    def add(self, node: NodeDef) -> None:
        """Adds a node to its layer, and what it takes from others."""
        origin = self._static.flat.origins[node.name]
        if (self._names and origin.root not in self._names) or self._is_glue(node.name):
            return
        layer = self._layer(origin)
        layer.ops[node.op] += 1
        if node.op in _INPUTS:
            layer.kind = "input"
        if node.name in self._outputs:
            layer.kind = "output"
        for text in data_inputs(node):
            for source in self._source(text):
                self._connect(source, layer.name)

    def result(self) -> LayerGraph:
        """Without layers of constants alone, or that do nothing, which say nothing."""
        kept = {n: layer for n, layer in self._layers.items() if not set(layer.ops) <= _SILENT}
        edges = {ends: t for ends, t in self._edges.items() if ends[0] in kept and ends[1] in kept}
        what = ", ".join(self._subject.inference.outputs) or "the whole graph"
        return LayerGraph(what, kept, edges)

    def _is_glue(self, name: str) -> bool:
        origin = self._static.flat.origins.get(name)
        return origin is not None and origin.glue

    def _layer(self, origin: Origin) -> Layer:
        name = self._naming(origin.path)
        return self._layers.setdefault(name, Layer(name))

    def _source(self, text: str) -> Iterator[str]:
        """The tensor that an input is, calls and arguments seen through."""
        seen = set[str]()
        while text not in seen:
            seen.add(text)
            name = node_of(text)
            if not self._is_glue(name):
                yield text
                return
            inputs = data_inputs(self._nodes[name])
            if output_index(text) >= len(inputs):
                return
            text = inputs[output_index(text)]

    def _connect(self, tensor: str, taker: str) -> None:
        name = node_of(tensor)
        origin = self._static.flat.origins.get(name)
        if origin is None:
            return
        if self._names and origin.root not in self._names:  # It is fed.
            full = tensor if ":" in tensor else f"{tensor}:0"
            giver = self._layers.setdefault(full, Layer(full, Counter(["fed"]), "input"))
        else:
            giver = self._layer(origin)
        if giver.name != taker:
            types = self._edges.setdefault((giver.name, taker), [])
            found = self._static.tensor(tensor)
            text = "" if found is None else f"{found[0].name} {format_shape(found[1])}"
            if text not in types:
                types.append(text)


# A graph of layers in the language of Graphviz.
#
# Language: https://graphviz.org/doc/info/lang.html.

_MOST_OPS = 4
_MOST_TYPES = 3
_LONGEST = 60  # Characters of a name.
_PLUMBING = frozenset({"Const", "Identity", "NoOp", "ReadVariableOp", "Shape", "VarHandleOp"})
_SHAPES: Mapping[str, str] = {"input": "ellipse", "output": "box", "layer": "box"}


def dot_text(graph: LayerGraph) -> str:
    """The drawing as text. Names are quoted, and never more than a label."""
    ids = {name: f"n{number}" for number, name in enumerate(graph.layers)}
    return "\n".join(
        [
            "digraph layers {",
            f"  label={_quoted([graph.title])}; labelloc=t; rankdir=TB; fontname=Helvetica;",
            "  node [fontname=Helvetica, fontsize=11, style=filled, fillcolor=white];",
            "  edge [fontname=Helvetica, fontsize=9];",
            *_nodes(graph, ids),
            *_edges(graph, ids),
            "}\n",
        ]
    )


def _nodes(graph: LayerGraph, ids: Mapping[str, str]) -> Iterator[str]:
    for name, layer in graph.layers.items():
        bold = ", penwidth=2" if layer.kind == "output" else ""
        label = _quoted(dict.fromkeys([name, _ops(layer)]))  # Once, of a node named as it does.
        yield f"  {ids[name]} [label={label}, shape={_SHAPES[layer.kind]}{bold}];"


def _edges(graph: LayerGraph, ids: Mapping[str, str]) -> Iterator[str]:
    for (giver, taker), types in graph.edges.items():
        more = len(types) - _MOST_TYPES
        rest = [f"and {more} more"] if more > 0 else []
        # A space keeps them off the line.
        texts = [f" {text}" for text in (*types[:_MOST_TYPES], *rest)]
        yield f"  {ids[giver]} -> {ids[taker]} [label={_quoted(texts)}];"


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


# A drawing as a PNG, by Graphviz's program `dot`.

PROGRAM = "dot"
_SECONDS = 120.0
_PNG = b"\x89PNG\r\n\x1a\n"


def draw_png(text: str, seconds: float = _SECONDS) -> bytes:
    """Runs `dot` on a graph in its language.

    Args:
      text: the graph; it comes in by a pipe, and names no file.
      seconds: what the program may take.

    Raises:
      ToolError: it is not installed, takes too long, or fails.
    """
    program = shutil.which(PROGRAM)
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
            f"{PROGRAM} takes longer than {seconds:g} seconds: draw fewer layers with --depth=1, "
            "or write its text with --dot=file.dot"
        ) from error
    if ended.returncode or not ended.stdout.startswith(_PNG):
        reason = ended.stderr.decode("utf-8", "backslashreplace").strip().partition("\n")[0]
        raise ToolError(
            f"{PROGRAM} fails with exit code {ended.returncode}: {reason or 'it wrote no PNG'}"
        )
    return ended.stdout
