"""The layers of a graph as a drawing, each scope one node.

It is written in the language of Graphviz, whose program `dot` makes a PNG of it.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cli.terminal import printable
from errors import ToolError
from metagraph.graph import data_inputs, sub_graph
from metagraph.meta import PLACEHOLDERS, PLACEHOLDERS_WITH_DEFAULT, node_of
from tools.graph_subject import Subject, kind_text, layer_of, static_graph, tensor_record

MAX_LAYERS = 250  # Of a drawing that can still be read.
_FED = "fed"
_INPUTS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT | {_FED}
_SILENT = frozenset({"Const", "NoOp"})
_DEPTHS = (None, 6, 5, 4, 3, 2, 1)
_MOST_OPS = 4
_MOST_TYPES = 3
_LONGEST = 60  # Characters of a name.
_PLUMBING = frozenset({"Const", "Identity", "NoOp", "ReadVariableOp", "Shape", "VarHandleOp"})
_PROGRAM = "dot"
_SECONDS = 120.0
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class LayerGraph:
    """What is drawn. A layer is a scope, or a node or a fed tensor outside of all scopes.

    Attributes:
      title: what it is a drawing of.
      layers: by name, how many nodes of each operation.
      edges: giver and taker -> the types of the tensors between them, as keys.
      outputs: the layers with a prediction.
    """

    title: str
    layers: dict[str, Counter[str]] = field(default_factory=dict)
    edges: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)


def layer_graph(subject: Subject) -> LayerGraph:
    """Collapses what predicts, or, where that is not known, the whole graph.

    Where there are more than `MAX_LAYERS`, only outer scopes are layers.

    Raises:
      ToolError: there are too many even so.
    """
    meta = subject.meta
    graph, _ = static_graph(meta, subject.outputs, None)
    drawn = subject.needed if subject.outputs else sub_graph(meta, [f"{n}:0" for n in meta.nodes])
    names = _layers(subject, drawn.names)
    found = LayerGraph(", ".join(subject.outputs) or "the whole graph")
    found.outputs = {names[node_of(name)] for name in subject.outputs}
    for node in drawn.graph_def.node:
        layer = names[node.name]
        found.layers.setdefault(layer, Counter())[node.op] += 1
        for tensor in (tensor_record(graph, text) for text in data_inputs(node)):
            giver = names.get(node_of(tensor["name"]), tensor["name"])
            found.layers.setdefault(giver, Counter())
            if giver == tensor["name"]:
                found.layers[giver][_FED] = 1
            if giver != layer:
                found.edges.setdefault((giver, layer), {})[kind_text(tensor)] = None
    # Layers of constants alone, or that do nothing, say nothing.
    found.layers = {name: ops for name, ops in found.layers.items() if not set(ops) <= _SILENT}
    found.edges = {e: t for e, t in found.edges.items() if found.layers.keys() >= set(e)}
    return found


def _layers(subject: Subject, drawn: Iterable[str]) -> dict[str, str]:
    """The layer of each node that is drawn, by the first depth of scopes that gives few enough."""
    nodes, found = subject.meta.nodes, dict[str, str]()
    for depth in _DEPTHS if subject.depth is None else (subject.depth,):
        found = {n: layer_of(n, nodes, depth) or n.partition("/")[0] for n in drawn}
        if len({*found.values()}) <= MAX_LAYERS:
            return found
    raise ToolError(
        f"{subject.meta.path} has {len({*found.values()})} layers to draw, expected at most "
        f"{MAX_LAYERS}: --fetch=<an inner tensor> draws what that needs"
        + (", --depth=1 the outer scopes alone" if subject.depth not in (None, 1) else "")
    )


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
    for name, ops in graph.layers.items():
        label = _quoted(dict.fromkeys([name, _ops_text(ops)]))  # Once, of a node named as it does.
        is_output = name in graph.outputs
        shape = "ellipse" if ops.keys() & _INPUTS and not is_output else "box"
        bold = ", penwidth=2" if is_output else ""
        lines.append(f"  {ids[name]} [label={label}, shape={shape}{bold}];")
    for (giver, taker), types in graph.edges.items():
        texts = [f" {text}" for text in [*types][:_MOST_TYPES]]  # A space keeps off the line.
        if len(types) > _MOST_TYPES:
            texts.append(f" and {len(types) - _MOST_TYPES} more")
        lines.append(f"  {ids[giver]} -> {ids[taker]} [label={_quoted(texts)}];")
    return "\n".join([*lines, "}\n"])


def _ops_text(ops: Mapping[str, int]) -> str:
    """The operations that tell the most, with their numbers."""
    telling = {op: count for op, count in ops.items() if op not in _PLUMBING} or ops
    ordered = sorted(telling.items(), key=lambda item: (-item[1], item[0]))
    texts = [op if count == 1 else f"{op} x{count}" for op, count in ordered[:_MOST_OPS]]
    more = sum(ops.values()) - sum(count for _, count in ordered[:_MOST_OPS])
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
