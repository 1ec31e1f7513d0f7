"""A graph that is looked at, and its layers, the name scopes: what each costs, and a drawing.

Floating-point operations are those that TensorFlow's own profiler counts for one run of each node.
The drawing is in the language of Graphviz, whose program `dot` makes pictures of it.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.bundle import DType, as_dtype
from cli.terminal import printable
from errors import CheckpointError, ToolError, first_few
from metagraph.description import Model
from metagraph.graph import SubGraph, attribute_of, called, data_inputs, sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import INPUT_OPS, MetaGraphFile, node_of, shape_sizes
from metagraph.model import Candidates, find_candidates
from metagraph.variables import VARIABLE_OPS, trainable_names
from prediction.output import ALL_IN_JSON, kind_text, shortened
from tools.command import quiet, table

_PARTITION = re.compile(r"/part_\d+$")  # Of a partitioned variable.
_SOURCES = INPUT_OPS | {"IteratorGetNext", "IteratorV2", "Iterator", "OneShotIterator"}
_SHAPES = ("shape", "_output_shapes", "output_shapes")  # Their attributes.
_NUMBERS = ("parameters", "constants", "flops")
_HEAD = ("layer", "parameters", "constants", "FLOPs")
# The operations that the profiler has a formula for; whatever else there is costs it nothing.
# Source: `tensorflow/python/profiler/internal/flops_registry.py`, `.../ops/nn_ops.py`.
_COUNTED = frozenset(
    (  # noqa: SIM905 (a line for each would be a page)
        "Add AddN AddV2 ArgMax ArgMin AssignAdd AssignSub AvgPool AvgPoolGrad BatchMatMul "
        "BatchMatMulV2 BatchMatMulV3 BiasAdd BiasAddGrad Conv2D Conv2DBackpropFilter "
        "Conv2DBackpropInput Conv3D DepthwiseConv2dNative Dilation2D Equal Greater GreaterEqual "
        "L2Loss Less LessEqual Log MatMul MaxPool MaxPoolGrad Maximum Mean Minimum Mul Neg "
        "NotEqual Pow RealDiv Reciprocal Rsqrt RsqrtGrad Softmax Square SquaredDifference Sub Sum"
    ).split()
)
MAX_LAYERS = 250  # Of a drawing that can still be read.
_FED = "fed"
_SILENT = frozenset({"Const", "NoOp"})
_DEPTHS = (None, 6, 5, 4, 3, 2, 1)
_MOST_OPS = 4
_MOST_TYPES = 3
_LONGEST = 60  # Characters of a name.
_PLUMBING = frozenset({"Const", "Identity", "NoOp", "ReadVariableOp", "Shape", "VarHandleOp"})


@dataclass(frozen=True, eq=False)
class Subject:
    """A graph and how it is looked at; see `tools.inspect_graph.GraphInspection`."""

    meta: MetaGraphFile
    model: Model
    fetch: Sequence[str] = ()
    batch_size: int = 1
    depth: int | None = None

    @cached_property
    def _named(self) -> Sequence[str]:
        """The prediction as whoever asks names it, or else the file."""
        asked = [self.meta.tensor_name(text, self.model.fetch_keys) for text in self.fetch]
        return asked or [*self.model.predict, *self.model.outputs.values()]

    @cached_property
    def candidates(self) -> Candidates:
        """What could be fed for the prediction, or fetched as one."""
        return find_candidates(self.meta, [*self.model.inputs.values()], self._named)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The prediction; the likeliest output where neither who asks nor the file says it."""
        return tuple(dict.fromkeys(self._named or self.candidates.outputs[:1]))

    @cached_property
    def feeds(self) -> tuple[str, ...]:
        """The inputs of the signature, and what can be fed in place of a pipeline."""
        feeds = dict.fromkeys([*self.model.inputs.values(), *self.candidates.pipeline])
        return tuple(name for name in feeds if name not in self.outputs)

    @cached_property
    def needed(self) -> SubGraph:
        """What predicts, cut off at the feeds; empty where the graph has no output.

        Raises CheckpointError where there is no such tensor, or a node's input does not exist.
        """
        return sub_graph(self.meta, self.outputs, self.feeds)


def counted(counts: Mapping[str, int], most: int) -> str:
    """`Const 14, MatMul 2`, the most frequent first; then how many more kinds there are."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = listed([f"{name} {count}" for name, count in ordered], most)
    return text + (f" ({ALL_IN_JSON})" if len(ordered) > most else "")


def listed(values: Iterable[Any], most: int) -> str:
    """`a, b, c`; then how many more there are."""
    return first_few([str(value) for value in values], most) or "(none)"


def tensor_record(graph: Any | None, text: str) -> dict[str, Any]:
    """JSON values of `node` or `node:index`: `name`, `dtype` and `shape`, null where not known.

    The graph is a tf.Graph, where there is one.
    """
    name = text if ":" in text else f"{text}:0"
    record: dict[str, Any] = {"name": name, "dtype": None, "shape": None}
    if graph is not None:
        with suppress(KeyError, ValueError):
            tensor = graph.get_tensor_by_name(name)
            shape = shape_sizes(tensor.shape.as_proto())
            record |= {"dtype": tensor.dtype.base_dtype.name, "shape": shape}
    return record


def dtype_name(number: int) -> str:
    """`float32` of 1; `dtype 99` of a number that this TensorFlow has no name for."""
    try:
        return as_dtype(number).name
    except TypeError:
        return f"dtype {number}"


def layer_of(path: str, nodes: Container[str], depth: int | None = None) -> str:
    """The scope that a node belongs to; empty for the top.

    What TensorFlow puts into a scope named after a node, as `w/read` and `w/Assign`, belongs with
    that node. Of a depth, only so many outer scopes are kept.
    """
    scope = posixpath.dirname(_PARTITION.sub("", path))
    while scope and scope in nodes:
        scope = posixpath.dirname(scope)
    return scope if depth is None else "/".join(scope.split("/")[:depth])


def static_graph(
    meta: MetaGraphFile, outputs: Sequence[str], batch_size: int | None
) -> tuple[tf.Graph | None, str]:
    """Imports as much of a graph as this TensorFlow can: the whole, or what some outputs need.

    Inputs whose first size is not known get the batch size, where there is one and the graph
    allows. Gives the graph, disarmed, None where nothing can be imported; and why it is not the
    whole. Raises CheckpointError where a node's input does not exist.
    """
    problem = ""
    for names in ([f"{name}:0" for name in meta.nodes], outputs):
        for size in dict.fromkeys([batch_size, None]):
            graph_def = sub_graph(meta, names).graph_def
            if size is not None:
                _set_batch_size(graph_def, size)
            try:
                return import_disarmed(meta, graph_def), problem
            except CheckpointError as error:
                problem = problem or str(error)
    return None, problem


def _set_batch_size(graph_def: GraphDef, size: int) -> None:
    """Gives what is fed, or comes out of an iterator, a first size where it is not known."""
    for node in graph_def.node:
        for key in _SHAPES if node.op in _SOURCES else ():
            value = attribute_of(node, key)
            for shape in (value.shape, *value.list.shape):
                if shape.dim and shape.dim[0].size == -1:
                    shape.dim[0].size = size


def cost_part(subject: Subject) -> dict[str, Any]:
    """JSON values, as `docs/json.md` has them.

    The inference part is what the outputs need; layers are in the file's order.
    """
    meta = subject.meta
    library = {f.signature.name: f for f in meta.proto.graph_def.library.function}
    graph, problem = static_graph(meta, subject.outputs, subject.batch_size)
    flops, failure = _profiled(graph)
    empty, parts = dict.fromkeys(_NUMBERS, 0), ("inference", "total")
    whole: dict[str, dict[str, Any]] = {
        part: {**empty, "by_op": Counter(), "not_counted": Counter()} for part in parts
    }
    layers = dict[str, dict[str, dict[str, int]]]()
    trainable, trained = trainable_names(meta), 0
    for name, node in meta.nodes.items():
        numbers = (_parameters(node), _constants(node), flops.get(name, 0))
        trained += numbers[0] if name in trainable else 0
        has_flops = node.op in _COUNTED
        is_missing = has_flops and not flops.get(name) and not _has_shapes(graph, node)
        is_missing = is_missing or any(called(node, library))
        layer = layers.setdefault(
            layer_of(name, meta.nodes, subject.depth), {part: {**empty} for part in parts}
        )
        for part in parts if name in subject.needed.names else ("total",):
            for key, number in zip(_NUMBERS, numbers, strict=True):
                whole[part][key] += number
                layer[part][key] += number
            if is_missing:
                whole[part]["not_counted"][node.op] += 1
            elif has_flops:
                whole[part]["by_op"][node.op] += flops.get(name, 0)
    return {
        "batch_size": subject.batch_size,
        "outputs": list(subject.outputs),
        **whole,
        "trainable": trained if trainable else None,
        "layers": [
            {"layer": layer, **numbers}
            for layer, numbers in layers.items()
            if any(numbers["total"].values())
        ],
        "problem": problem or failure,
    }


def _profiled(graph: tf.Graph | None) -> tuple[Mapping[str, int], str]:
    """The operations of each node, and why there are none; what the profiler prints is dropped."""
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder.float_operation() | {"output": "none"}
    if graph is None:
        return {}, ""
    try:
        with quiet():
            waiting = [profiler.profile(graph, cmd="scope", options=options)]
    except (ValueError, OverflowError) as error:  # A number that 64 bits do not hold.
        return {}, f"the profiler fails: {error}"
    found = {}
    for node in waiting:  # It grows as it goes.
        found[node.name] = int(node.float_ops)
        waiting += node.children
    return found, ""


def _has_shapes(graph: tf.Graph | None, node: NodeDef) -> bool:
    """Whether the profiler can count a node: not those of unknown shapes, nor all in NCHW."""
    shapes = [tensor_record(graph, text)["shape"] for text in [*data_inputs(node), node.name]]
    known = all(shape is not None and None not in shape for shape in shapes)
    return known and attribute_of(node, "data_format").s != b"NCHW"


def _parameters(node: NodeDef) -> int:
    """How many values a variable has; a size that is not known counts as 1."""
    shape = attribute_of(node, "shape").shape if node.op in VARIABLE_OPS else None
    return 0 if shape is None else math.prod(dim.size for dim in shape.dim if dim.size >= 0)


def _constants(node: NodeDef) -> int:
    """How many floating-point values a constant has that is no scalar."""
    tensor = attribute_of(node, "value").tensor
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    is_floating = node.op == "Const" and DType(dtype_name(tensor.dtype)).is_floating
    return math.prod(sizes) if is_floating and sizes and min(sizes) >= 0 else 0


def cost_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    """Lines for people."""
    outputs = listed(found["outputs"], 3)
    yield f"cost, to predict {outputs}; FLOPs of a batch of {found['batch_size']}"
    rows = [_row(entry["layer"] or "(no scope)", entry["inference"]) for entry in found["layers"]]
    sums = [_row("to predict", found["inference"]), _row("the whole graph", found["total"])]
    rows = [_HEAD, *(row for row in rows if row[1:] != ("0", "0", "0")), *sums]
    if not found["inference"]["constants"]:
        rows = [(layer, parameters, flops) for layer, parameters, _, flops in rows]
    drawn = table(rows, right=range(1, 4))
    yield from (f"  {line}" for line in (drawn[0], *shortened(drawn[1:-2], most, ""), *drawn[-2:]))
    if found["trainable"] is not None:
        yield f"  {found['trainable']:,} of the parameters are in trainable_variables"
    for key, title in {"inference": "to predict", "total": "the whole graph"}.items():
        if ops := found[key]["not_counted"]:
            yield f"  {title}: not counted by the profiler: {counted(ops, 10)}"
    if found["problem"]:
        yield f"  the whole graph cannot be counted: {found['problem']}"


def _row(name: str, numbers: Mapping[str, int]) -> tuple[str, ...]:
    return (name, *(f"{numbers[key]:,}" for key in _NUMBERS))


class LayerGraph(NamedTuple):
    """What is drawn. A layer is a scope, or a node or a fed tensor outside of all scopes."""

    title: str
    layers: Mapping[str, Counter[str]]  # The nodes of each operation.
    # From, to -> the types of tensors, as keys.
    edges: Mapping[tuple[str, str], Mapping[str, None]]
    outputs: Collection[str] = ()  # The layers with a prediction.


def layer_graph(subject: Subject) -> LayerGraph:
    """Collapses what predicts, or, where that is not known, the whole graph.

    Where there are more than `MAX_LAYERS`, only outer scopes are layers. Raises ToolError where
    there are too many even so.
    """
    meta = subject.meta
    graph, _ = static_graph(meta, subject.outputs, None)
    drawn = subject.needed if subject.outputs else sub_graph(meta, [f"{n}:0" for n in meta.nodes])
    names = _layers(subject, drawn.names)
    layers = defaultdict[str, Counter[str]](Counter)
    edges = defaultdict[tuple[str, str], dict[str, None]](dict)
    for node in drawn.graph_def.node:
        layer = names[node.name]
        layers[layer][node.op] += 1
        for tensor in (tensor_record(graph, text) for text in data_inputs(node)):
            giver = names.get(node_of(tensor["name"]), tensor["name"])
            if giver == tensor["name"]:
                layers[giver][_FED] = 1
            if giver != layer:
                edges[giver, layer][kind_text(tensor)] = None
    # Layers of constants alone, or that do nothing, say nothing.
    told = {name: ops for name, ops in layers.items() if not set(ops) <= _SILENT}
    between = {edge: types for edge, types in edges.items() if told.keys() >= set(edge)}
    outputs = {names[node_of(name)] for name in subject.outputs}
    return LayerGraph(", ".join(subject.outputs) or "the whole graph", told, between, outputs)


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
        shape = "ellipse" if ops.keys() & (INPUT_OPS | {_FED}) else "box"
        shape = "box, penwidth=2" if name in graph.outputs else shape
        lines.append(f"  {ids[name]} [label={label}, shape={shape}];")
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
