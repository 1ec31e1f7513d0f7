"""A graph of layers in the language of Graphviz.

Language: https://graphviz.org/doc/info/lang.html.
"""

from collections.abc import Iterable, Iterator, Mapping

from cli.printing import printable
from tools.graph_inspection.layer_graph import Layer, LayerGraph

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
