"""Parameters and floating-point operations, by layer: of what predicts, and of the whole graph.

Layers are name scopes. The operations are those that TensorFlow's own profiler counts for one run
of each node; in a function's loop, of one turn, and of a choice, of each branch.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
_NUMBERS = ("parameters", "constants", "flops")
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


class _Part:
    """A part of a graph: numbers by layer, FLOPs by operation, and nodes that are not counted."""

    def __init__(self) -> None:
        self.layers: dict[str, dict[str, int]] = {}
        self.by_op, self.not_counted = Counter[str](), Counter[str]()

    def add(self, layer: str, **numbers: int) -> None:
        tally = self.layers.setdefault(layer, dict.fromkeys(_NUMBERS, 0))
        for key, number in numbers.items():
            tally[key] += number

    def record(self) -> dict[str, Any]:
        return {
            **{key: sum(tally[key] for tally in self.layers.values()) for key in _NUMBERS},
            "by_op": dict(self.by_op),
            "not_counted": dict(self.not_counted),
        }


def cost_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `batch_size`; `outputs` (what the inference part predicts); `inference` and `total`, each
    with `parameters` (values of variables), `constants` (floating-point values of constants that
    are no scalars: of a frozen graph, its parameters) and `flops`, those `by_op` (operation ->
    FLOPs) and `not_counted` (operation -> nodes that have FLOPs, but not a shape that the profiler
    counts); `trainable` (parameters; null where the file does not say); `layers`, in the file's
    order, a list of `layer`, `inference` and `total` with those three numbers; `problem` (why less
    than the whole graph is counted; empty where all is).
    """
    static = subject.static
    inference, total = _Part(), _Part()
    flops, problem = _profiled(static.graph)

    def parts_of(roots: Iterable[str]) -> Sequence[_Part]:
        is_needed = subject.inference.names.intersection(roots)
        return (total, inference) if is_needed else (total,)

    for node in static.flat.graph_def.node:
        origin, own = static.flat.origins[node.name], flops.get(node.name, 0)
        layer = layer_of(origin.path, static.paths, subject.depth)
        is_missing = node.op in _COUNTED and not own and not _has_shapes(static, node)
        for part in parts_of([origin.root]):
            part.add(layer, constants=_constant_size(node), flops=own)
            counter = part.not_counted if is_missing else part.by_op
            counter.update({node.op: 1 if is_missing else own} if node.op in _COUNTED else {})
    variables = _variables(subject)
    for nodes in variables:
        layer = layer_of(nodes[0].name, static.paths, subject.depth)
        for part in parts_of(node.name for node in nodes):
            part.add(layer, parameters=_size(nodes[0]))
    trainable = trainable_variables(subject.meta)
    trained = [_size(nodes[0]) for nodes in variables if any(n.name in trainable for n in nodes)]
    none = dict.fromkeys(_NUMBERS, 0)
    return {
        "batch_size": subject.batch_size,
        "outputs": list(subject.inference.outputs),
        "inference": inference.record(),
        "total": total.record(),
        "trainable": sum(trained) if trainable else None,
        "layers": [
            {"layer": layer, "inference": inference.layers.get(layer, none), "total": tally}
            for layer, tally in total.layers.items()
            if tally != none
        ],
        "problem": static.problem or problem,
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
    for key, title in {"inference": "to predict", "total": "the whole graph"}.items():
        if ops := found[key]["not_counted"]:
            result.append(f"  {title}: not counted by the profiler: {counted(ops, 10)}")
    if found["problem"]:
        result.append(f"  the whole graph cannot be counted: {found['problem']}")
    return result


def _row(name: str, numbers: Mapping[str, int]) -> tuple[str, ...]:
    return (name, *(f"{numbers[key]:,}" for key in _NUMBERS))
