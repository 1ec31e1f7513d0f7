"""Parameters and floating-point operations, by layer: of what predicts, and of the whole graph.

Layers are name scopes. The operations are those that TensorFlow's own profiler counts for one run
of each node; in a function's loop, of one turn, and of a choice, of each branch.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.graph import attribute_of, data_inputs
from metagraph.variables import RESOURCE_VARIABLE, VARIABLE_OPS
from tools.command import quiet, table
from tools.flat_graph import StaticGraph
from tools.graph_parts import trainable_variables
from tools.graph_subject import Subject, counted, layer_of, listed, shortened

_TOP = "(no scope)"
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


@dataclass
class _Tally:
    """What a layer, or a graph, has and does.

    Attributes:
      parameters: values of variables.
      constants: floating-point values of constants that are no scalars; of a frozen graph, its
        parameters.
      flops: floating-point operations.
    """

    parameters: int = 0
    constants: int = 0
    flops: int = 0


@dataclass
class _Part:
    """A part of a graph by layer, and by operation."""

    layers: dict[str, _Tally] = field(default_factory=dict)
    by_op: Counter[str] = field(default_factory=Counter)
    not_counted: Counter[str] = field(default_factory=Counter)

    def add(self, layer: str, **numbers: int) -> None:
        tally = self.layers.setdefault(layer, _Tally())
        for key, number in numbers.items():
            setattr(tally, key, getattr(tally, key) + number)

    def record(self) -> dict[str, Any]:
        layers = [asdict(tally) for tally in self.layers.values()]
        return {
            **{key: sum(layer[key] for layer in layers) for key in asdict(_Tally())},
            "by_op": dict(self.by_op),
            "not_counted": dict(self.not_counted),
        }


def cost_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `batch_size`; `outputs` (what the inference part predicts); `inference` and `total`, each
    with `parameters`, `constants` and `flops`, those `by_op` (operation -> FLOPs) and `not_counted`
    (operation -> nodes that have FLOPs, but not a shape that the profiler counts); `trainable`
    (parameters; null where the file does not say); `layers`, in the file's order, a list of
    `layer`, `inference` and `total` with those three numbers; `problem` (why less than the whole
    graph is counted; empty where all is).
    """
    costs = _Costs(subject)
    flops, problem = _profiled(subject.static.graph)
    costs.add_nodes(flops)
    variables = _variables(subject)
    costs.add_variables(variables)
    trainable = trainable_variables(subject.meta)
    trained = [_size(nodes[0]) for nodes in variables if any(n.name in trainable for n in nodes)]
    return {
        "batch_size": subject.batch_size,
        "outputs": list(subject.inference.outputs),
        "inference": costs.inference.record(),
        "total": costs.total.record(),
        "trainable": sum(trained) if trainable else None,
        "layers": [
            {
                "layer": layer,
                "inference": asdict(costs.inference.layers.get(layer, _Tally())),
                "total": asdict(tally),
            }
            for layer, tally in costs.total.layers.items()
            if tally != _Tally()
        ],
        "problem": subject.static.problem or problem,
    }


class _Costs:
    """What predicts, and the whole graph, while they are counted."""

    def __init__(self, subject: Subject) -> None:
        self.inference, self.total = _Part(), _Part()
        self._subject = subject
        self._static = subject.static

    def add_nodes(self, flops: Mapping[str, int]) -> None:
        for node in self._static.flat.graph_def.node:
            origin = self._static.flat.origins[node.name]
            own = flops.get(node.name, 0)
            is_missing = node.op in _COUNTED and not own and not _has_shapes(self._static, node)
            for part in self._parts([origin.root]):
                part.add(self._layer(origin.path), constants=_constant_size(node), flops=own)
                if is_missing:
                    part.not_counted[node.op] += 1
                elif node.op in _COUNTED:
                    part.by_op[node.op] += own

    def add_variables(self, variables: Sequence[Sequence[NodeDef]]) -> None:
        for nodes in variables:
            for part in self._parts([node.name for node in nodes]):
                part.add(self._layer(nodes[0].name), parameters=_size(nodes[0]))

    def _parts(self, roots: Sequence[str]) -> Sequence[_Part]:
        is_needed = self._subject.inference.names.intersection(roots)
        return (self.total, self.inference) if is_needed else (self.total,)

    def _layer(self, path: str) -> str:
        return layer_of(path, self._static.paths, self._subject.depth)


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


def _has_shapes(static: StaticGraph, node: NodeDef) -> bool:
    """Whether the profiler can count a node: not those of unknown shapes, nor all in NCHW."""
    found = [static.tensor(text) for text in [*data_inputs(node), node.name]]
    known = all(kind is not None and kind[1] is not None and None not in kind[1] for kind in found)
    return known and attribute_of(node, "data_format").s != b"NCHW"


def _variables(subject: Subject) -> list[list[NodeDef]]:
    """The nodes of each variable; handles of one shared name are one variable."""
    found: dict[str, list[NodeDef]] = {}
    for name, node in subject.meta.nodes.items():
        if node.op in VARIABLE_OPS:
            shared = attribute_of(node, "shared_name").s.decode("utf-8", "backslashreplace")
            own = shared if shared and node.op == RESOURCE_VARIABLE else name
            found.setdefault(own, []).append(node)
    return [*found.values()]


def _size(variable: NodeDef) -> int:
    """How many values a variable has; a size that is not known counts as 1."""
    shape = attribute_of(variable, "shape").shape
    return math.prod(dim.size for dim in shape.dim if dim.size >= 0)


def _constant_size(node: NodeDef) -> int:
    """How many floating-point values a constant has that is no scalar."""
    tensor = attribute_of(node, "value").tensor
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    try:
        is_floating = node.op == "Const" and tf.as_dtype(tensor.dtype).is_floating
    except TypeError:
        return 0
    return math.prod(sizes) if is_floating and sizes and min(sizes) >= 0 else 0


def cost_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    outputs = listed(found["outputs"], 3)
    result = [f"cost, to predict {outputs}; FLOPs of a batch of {found['batch_size']}"]
    rows = [_row(entry["layer"] or _TOP, entry["inference"]) for entry in found["layers"]]
    rows = [row for row in rows if row[1:] != ("0", "0", "0")]
    head = ("layer", "parameters", "constants", "FLOPs")
    sums = [_row("to predict", found["inference"]), _row("the whole graph", found["total"])]
    whole = [head, *rows, *sums]
    if not found["inference"]["constants"]:
        whole = [(row[0], row[1], row[3]) for row in whole]
    drawn = table(whole, right=range(1, len(whole[0])), indent=2)
    result += [drawn[0], *shortened(drawn[1:-2], most), *drawn[-2:]]
    if found["trainable"] is not None:
        result.append(f"  {found['trainable']:,} of the parameters are in trainable_variables")
    result += _not_counted(found)
    if found["problem"]:
        result.append(f"  the whole graph cannot be counted: {found['problem']}")
    return result


def _row(name: str, numbers: Mapping[str, int]) -> tuple[str, ...]:
    return (name, *(f"{numbers[key]:,}" for key in ("parameters", "constants", "flops")))


def _not_counted(found: Mapping[str, Any]) -> Iterator[str]:
    for key, title in {"inference": "to predict", "total": "the whole graph"}.items():
        ops = found[key]["not_counted"]
        if ops:
            yield f"  {title}: not counted by the profiler: {counted(ops, 10)}"
