"""Parameters and floating-point operations, by layer: of what predicts, and of the whole graph.

The operations of a node follow from the static shapes of what it takes and gives.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.graph import attribute_of, data_inputs
from metagraph.variables import RESOURCE_VARIABLE, VARIABLE_OPS
from tools.command import table
from tools.flat_graph import Origin, Sizes
from tools.graph_parts import trainable_variables
from tools.graph_subject import Subject, counted, layer_of, listed, shortened

# Floating-point operations of a node, by the static shapes of what it takes and gives.
#
# A multiplication and the addition after it count as two. Source: the statistics "flops" of
# TensorFlow's own profiler, `tensorflow/python/profiler/internal/flops_registry.py` and
# `tensorflow/python/ops/nn_ops.py`, whose operations and formulas these are; in NCHW as well as in
# NHWC, of the 3-D pools too, and of the adjoints of a batched product. What the profiler counts as
# nothing, such as copies, comparisons with zero (Relu) and random numbers, is nothing here.

Shape: TypeAlias = tuple[int, ...]


class Shapes(NamedTuple):
    """The shapes of a node's inputs, without those it only waits for, and of its first output."""

    inputs: Sequence[Shape]
    output: Shape


Formula: TypeAlias = Callable[[NodeDef, Shapes], int]


def count_flops(node: NodeDef, shapes: Shapes) -> int | None:
    """The floating-point operations of one run of a node.

    Args:
      node: one of `COUNTED`.
      shapes: those that it has.

    Returns:
      None where the shapes are not such as its operation takes.
    """
    try:
        return COUNTED[node.op](node, shapes)
    except (IndexError, ZeroDivisionError):
        return None


def _product_of(sizes: Iterable[int]) -> int:
    return math.prod(sizes)


def _per_input(factor: int) -> Formula:
    return lambda _, shapes: factor * math.prod(shapes.inputs[0])


def _per_output(factor: int) -> Formula:
    return lambda _, shapes: factor * math.prod(shapes.output)


def _reduced(finalize: int) -> Formula:
    """One operation for each element but the first of each sum, and so many for each result."""
    return lambda _, shapes: math.prod(shapes.inputs[0]) + (finalize - 1) * math.prod(shapes.output)


def _l2_loss(_: NodeDef, shapes: Shapes) -> int:
    return 3 * math.prod(shapes.inputs[0]) - 1


def _sum_of_many(_: NodeDef, shapes: Shapes) -> int:
    return math.prod(shapes.inputs[0]) * (len(shapes.inputs) - 1)


def _product(transpose: str) -> Formula:
    """Of matrices [..., m, k] and [..., k, n]: 2 k for each of the results."""

    def formula(node: NodeDef, shapes: Shapes) -> int:
        inner: int = shapes.inputs[0][-2 if attribute_of(node, transpose).b else -1]
        return 2 * inner * math.prod(shapes.output)

    return formula


def _convolution(node: NodeDef, shapes: Shapes) -> int:
    """Of a filter [..., channels in, channels out], which each result takes one column of."""
    del node
    return 2 * math.prod(shapes.output) * math.prod(shapes.inputs[1][:-1])


def _depthwise(node: NodeDef, shapes: Shapes) -> int:
    """Of a filter [height, width, ...], which each result takes one channel of."""
    del node
    height, width = shapes.inputs[1][0], shapes.inputs[1][1]
    return 2 * math.prod(shapes.output) * height * width


def _convolution_gradient(node: NodeDef, image: Shape, kernel: Shape) -> int:
    """2 (image / strides) (kernel / channels in), of the image and kernel of the convolution."""
    channels_first = attribute_of(node, "data_format").s == b"NCHW"
    channels = image[1 if channels_first else -1]
    strides = _product_of(attribute_of(node, "strides").list.i)
    return 2 * math.prod(image) * math.prod(kernel) // (channels * strides)


def _input_gradient(node: NodeDef, shapes: Shapes) -> int:
    return _convolution_gradient(node, shapes.output, shapes.inputs[1])


def _filter_gradient(node: NodeDef, shapes: Shapes) -> int:
    return _convolution_gradient(node, shapes.inputs[0], shapes.output)


def _window(node: NodeDef) -> int:
    return _product_of(attribute_of(node, "ksize").list.i)


def _pool(node: NodeDef, shapes: Shapes) -> int:
    return _window(node) * math.prod(shapes.output)


def _average_gradient(node: NodeDef, shapes: Shapes) -> int:
    return 2 * _window(node) * math.prod(shapes.inputs[1])


def _maximum_gradient(node: NodeDef, shapes: Shapes) -> int:
    return (_window(node) + 1) * math.prod(shapes.inputs[1])


COUNTED: Mapping[str, Formula] = {
    **dict.fromkeys(
        ("Reciprocal", "Square", "Log", "Neg", "AssignSub", "AssignAdd", "BiasAdd"), _per_input(1)
    ),
    "Rsqrt": _per_input(2),
    "Softmax": _per_input(5),
    "L2Loss": _l2_loss,
    **dict.fromkeys(
        ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow"), _per_output(1)
    ),
    **dict.fromkeys(
        ("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual"), _per_output(1)
    ),
    "SquaredDifference": _per_output(2),
    "RsqrtGrad": _per_output(4),
    "Mean": _reduced(1),
    **dict.fromkeys(("Sum", "ArgMax", "ArgMin", "BiasAddGrad"), _reduced(0)),
    "AddN": _sum_of_many,
    "MatMul": _product("transpose_a"),
    **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _product("adj_x")),
    **dict.fromkeys(("Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("DepthwiseConv2dNative", "Dilation2D"), _depthwise),
    "Conv2DBackpropInput": _input_gradient,
    "Conv2DBackpropFilter": _filter_gradient,
    **dict.fromkeys(("AvgPool", "MaxPool", "AvgPool3D", "MaxPool3D"), _pool),
    "AvgPoolGrad": _average_gradient,
    "MaxPoolGrad": _maximum_gradient,
}


# Parameters and floating-point operations, by layer: of what predicts, and of the whole graph.
#
# Layers are name scopes. The operations are those of one run of each node, see above; in a loop,
# of one turn, and of a choice, of each branch.

_TOP = "(no scope)"


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

    def add(self, other: "_Tally") -> None:
        self.parameters += other.parameters
        self.constants += other.constants
        self.flops += other.flops

    def __bool__(self) -> bool:
        return bool(self.parameters or self.constants or self.flops)


@dataclass
class _Part:
    """A part of a graph by layer, with what is not known of it."""

    layers: dict[str, _Tally] = field(default_factory=dict)
    by_op: Counter[str] = field(default_factory=Counter)
    not_counted: Counter[str] = field(default_factory=Counter)
    assumed: Counter[str] = field(default_factory=Counter)

    def add(self, layer: str, tally: _Tally) -> None:
        self.layers.setdefault(layer, _Tally()).add(tally)

    def total(self) -> _Tally:
        total = _Tally()
        for tally in self.layers.values():
            total.add(tally)
        return total


def cost_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `batch_size`; `outputs` (what the inference part predicts); `inference` and `total`, each
    with `parameters`, `constants` and `flops`, those `by_op` (operation -> FLOPs), `not_counted`
    and `assumed` (operation -> nodes whose shapes are not known, and nodes of which one size is
    not known and is taken as 1); `trainable` (parameters; null where the file
    does not say); `layers`, a list of `layer`, `inference`
    and `total` with those three numbers; `problem` (why less than the whole graph is counted; empty
    where all is).
    """
    inference, total = _Part(), _Part()
    names = subject.inference.names
    for path, roots, tally in _held(subject):
        layer = layer_of(path, subject.static.paths, subject.depth)
        for part in (total, inference) if names.intersection(roots) else (total,):
            part.add(layer, tally)
    _add_flops(subject, inference, total)
    none = _Tally()
    return {
        "batch_size": subject.batch_size,
        "outputs": list(subject.inference.outputs),
        "inference": _summary(inference),
        "total": _summary(total),
        "trainable": _trainable(subject),
        "layers": [
            {
                "layer": layer,
                "inference": asdict(inference.layers.get(layer, none)),
                "total": asdict(tally),
            }
            for layer, tally in _ordered(subject, total.layers)
            if tally
        ],
        "problem": subject.static.problem,
    }


def _ordered(subject: Subject, layers: Mapping[str, _Tally]) -> Iterator[tuple[str, _Tally]]:
    """The layers in the order in which the file has their first nodes."""
    flat = subject.static.flat
    paths = (flat.origins[node.name].path for node in flat.graph_def.node)
    first = (layer_of(path, subject.static.paths, subject.depth) for path in paths)
    for layer in dict.fromkeys([*first, *layers]):
        if layer in layers:
            yield layer, layers[layer]


def _summary(part: _Part) -> dict[str, Any]:
    return {
        **asdict(part.total()),
        "by_op": dict(part.by_op),
        "not_counted": dict(part.not_counted),
        "assumed": dict(part.assumed),
    }


def _held(subject: Subject) -> Iterator[tuple[str, Collection[str], _Tally]]:
    """The values that variables and constants hold: a path, nodes of the graph, numbers."""
    for nodes in _variables(subject):
        yield nodes[0].name, [node.name for node in nodes], _Tally(parameters=_size(nodes[0]))
    flat = subject.static.flat
    for node in flat.graph_def.node:
        if node.op == "Const":
            origin = flat.origins[node.name]
            yield origin.path, [origin.root], _Tally(constants=_constant_size(node))


def _variables(subject: Subject) -> Iterable[Sequence[NodeDef]]:
    """The nodes of each variable; handles of one shared name are one variable."""
    found: dict[str, list[NodeDef]] = {}
    for name, node in subject.meta.nodes.items():
        if node.op in VARIABLE_OPS:
            shared = attribute_of(node, "shared_name").s.decode("utf-8", "backslashreplace")
            own = shared if shared and node.op == RESOURCE_VARIABLE else name
            found.setdefault(own, []).append(node)
    return found.values()


def _size(variable: NodeDef) -> int:
    """How many values a variable has; a size that is not known counts as 1."""
    shape = attribute_of(variable, "shape").shape
    return math.prod(dim.size for dim in shape.dim if dim.size >= 0)


def _constant_size(node: NodeDef) -> int:
    tensor = attribute_of(node, "value").tensor
    try:
        is_floating = tf.as_dtype(tensor.dtype).is_floating
    except TypeError:
        return 0
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    return math.prod(sizes) if is_floating and sizes and min(sizes) >= 0 else 0


def _trainable(subject: Subject) -> int | None:
    trainable = trainable_variables(subject)
    sizes = [_size(n[0]) for n in _variables(subject) if any(x.name in trainable for x in n)]
    return sum(sizes) if trainable else None


def _add_flops(subject: Subject, inference: _Part, total: _Part) -> None:
    flat = subject.static.flat
    names = subject.inference.names
    for node in flat.graph_def.node:
        if node.op not in COUNTED:
            continue
        origin = flat.origins[node.name]
        shapes, is_assumed = _shapes(subject, node)
        flops = None if shapes is None else count_flops(node, shapes)
        for part in (total, inference) if origin.root in names else (total,):
            _add_node(subject, part, origin, node.op, flops)
            part.assumed.update([node.op] if is_assumed and flops is not None else [])


def _add_node(subject: Subject, part: _Part, origin: Origin, op: str, flops: int | None) -> None:
    if flops is None:
        part.not_counted[op] += 1
        return
    part.by_op[op] += flops
    part.add(layer_of(origin.path, subject.static.paths, subject.depth), _Tally(flops=flops))


def _shapes(subject: Subject, node: NodeDef) -> tuple[Shapes | None, bool]:
    """The shapes of a node's tensors, None where a rank is not known; whether a size is assumed."""
    known: list[Sizes] = []
    for text in [*data_inputs(node), node.name]:
        found = subject.static.tensor(text)
        if found is None or found[1] is None:
            return None, False
        known.append(found[1])
    whole = [tuple(1 if size is None else size for size in sizes) for sizes in known]
    return Shapes(whole[:-1], whole[-1]), any(None in sizes for sizes in known)


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
    for key in ("inference", "total"):
        result += _unknown("to predict" if key == "inference" else "the whole graph", found[key])
    if found["problem"]:
        result.append(f"  the whole graph cannot be counted: {found['problem']}")
    return result


def _row(name: str, numbers: Mapping[str, int]) -> tuple[str, ...]:
    return (name, *(f"{numbers[key]:,}" for key in ("parameters", "constants", "flops")))


def _unknown(title: str, found: Mapping[str, Any]) -> Iterator[str]:
    if found["not_counted"]:
        yield f"  {title}: not counted, of unknown shapes: {counted(found['not_counted'], 10)}"
    if found["assumed"]:
        yield f"  {title}: counted with 1 for a size not known: {counted(found['assumed'], 10)}"
