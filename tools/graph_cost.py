"""Parameters and floating-point operations, by layer: of what predicts, and of the whole graph.

Layers are name scopes. The operations are those that TensorFlow's own profiler counts for one run
of each node.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.graph import attribute_of, called, data_inputs
from metagraph.variables import VARIABLE_OPS, trainable_names
from tools.command import quiet, table
from tools.graph_subject import (
    Subject,
    counted,
    layer_of,
    listed,
    shortened,
    static_graph,
    tensor_record,
)

_TOP = "(no scope)"
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


class _Part:
    """A part of a graph: numbers by layer, FLOPs by operation, and nodes that are not counted."""

    def __init__(self) -> None:
        self.layers = defaultdict[str, Counter[str]](Counter)
        self.by_op, self.not_counted = Counter[str](), Counter[str]()

    def record(self) -> dict[str, Any]:
        return {
            **_numbers(sum(self.layers.values(), Counter())),
            "by_op": dict(self.by_op),
            "not_counted": dict(self.not_counted),
        }


def _numbers(tally: Mapping[str, int]) -> dict[str, int]:
    return {key: tally.get(key, 0) for key in _NUMBERS}


def cost_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `batch_size`; `outputs` (what the inference part predicts); `inference` and `total`, each
    with `parameters` (values of variables), `constants` (floating-point values of constants that
    are no scalars: of a frozen graph, its parameters) and `flops`, those `by_op` (operation ->
    FLOPs) and `not_counted` (operation -> nodes that call functions, or that have FLOPs, but not a
    shape that the profiler counts); `trainable` (parameters; null where the file does not say);
    `layers`, in the file's order, a list of `layer`, `inference` and `total` with those three
    numbers; `problem` (why less than the whole graph is counted; empty where all is).
    """
    meta = subject.meta
    library = {f.signature.name: f for f in meta.proto.graph_def.library.function}
    graph, problem = static_graph(meta, subject.outputs, subject.batch_size)
    flops, failure = _profiled(graph)
    inference, total = _Part(), _Part()
    trainable, trained = trainable_names(meta), 0
    for name, node in meta.nodes.items():
        own = flops.get(name, 0)
        numbers = {"parameters": _parameters(node), "constants": _constants(node), "flops": own}
        trained += numbers["parameters"] if name in trainable else 0
        has_flops = node.op in _COUNTED
        is_missing = has_flops and not own and not _has_shapes(graph, node)
        is_missing = is_missing or any(called(node, library))
        for part in (total, inference) if name in subject.needed.names else (total,):
            part.layers[layer_of(name, meta.nodes, subject.depth)].update(numbers)
            if is_missing:
                part.not_counted[node.op] += 1
            elif has_flops:
                part.by_op[node.op] += own
    return {
        "batch_size": subject.batch_size,
        "outputs": list(subject.outputs),
        "inference": inference.record(),
        "total": total.record(),
        "trainable": trained if trainable else None,
        "layers": [
            {
                "layer": layer,
                "inference": _numbers(inference.layers.get(layer, {})),
                "total": _numbers(tally),
            }
            for layer, tally in total.layers.items()
            if any(tally.values())
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
    try:
        is_floating = node.op == "Const" and tf.as_dtype(tensor.dtype).is_floating
    except TypeError:
        return 0
    return math.prod(sizes) if is_floating and sizes and min(sizes) >= 0 else 0


def cost_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    """Lines for people."""
    outputs = listed(found["outputs"], 3)
    yield f"cost, to predict {outputs}; FLOPs of a batch of {found['batch_size']}"
    rows = [_row(entry["layer"] or _TOP, entry["inference"]) for entry in found["layers"]]
    sums = [_row("to predict", found["inference"]), _row("the whole graph", found["total"])]
    rows = [_HEAD, *(row for row in rows if row[1:] != ("0", "0", "0")), *sums]
    if not found["inference"]["constants"]:
        rows = [(layer, parameters, flops) for layer, parameters, _, flops in rows]
    drawn = table(rows, right=range(1, 4), indent=2)
    yield from [drawn[0], *shortened(drawn[1:-2], most), *drawn[-2:]]
    if found["trainable"] is not None:
        yield f"  {found['trainable']:,} of the parameters are in trainable_variables"
    for key, title in {"inference": "to predict", "total": "the whole graph"}.items():
        if ops := found[key]["not_counted"]:
            yield f"  {title}: not counted by the profiler: {counted(ops, 10)}"
    if found["problem"]:
        yield f"  the whole graph cannot be counted: {found['problem']}"


def _row(name: str, numbers: Mapping[str, int]) -> tuple[str, ...]:
    return (name, *(f"{numbers[key]:,}" for key in _NUMBERS))
