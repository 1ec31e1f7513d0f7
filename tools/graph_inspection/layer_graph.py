"""The graph of a graph's layers: name scopes collapsed into one node each, for a drawing."""

import functools
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import data_inputs
from checkpoints.loading.meta_graph_file import PLACEHOLDERS, PLACEHOLDERS_WITH_DEFAULT, node_of
from checkpoints.loading.tensor_info import format_shape
from prediction.wiring import output_index
from tools.common.errors import ToolError
from tools.graph_inspection.inlining import Origin
from tools.graph_inspection.layers import layer_of
from tools.graph_inspection.static_graph import StaticGraph, static_graph
from tools.graph_inspection.subject import Subject

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
