"""Floating-point operations of a node, by the static shapes of what it takes and gives.

A multiplication and the addition after it count as two. Source: the statistics "flops" of
TensorFlow's own profiler, `tensorflow/python/profiler/internal/flops_registry.py` and
`tensorflow/python/ops/nn_ops.py`, whose operations and formulas these are; in NCHW as well as in
NHWC, of the 3-D pools too, and of the adjoints of a batched product. What the profiler counts as
nothing, such as copies, comparisons with zero (Relu) and random numbers, is nothing here.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import attribute

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
        inner: int = shapes.inputs[0][-2 if attribute(node, transpose).b else -1]
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
    channels_first = attribute(node, "data_format").s == b"NCHW"
    channels = image[1 if channels_first else -1]
    strides = _product_of(attribute(node, "strides").list.i)
    return 2 * math.prod(image) * math.prod(kernel) // (channels * strides)


def _input_gradient(node: NodeDef, shapes: Shapes) -> int:
    return _convolution_gradient(node, shapes.output, shapes.inputs[1])


def _filter_gradient(node: NodeDef, shapes: Shapes) -> int:
    return _convolution_gradient(node, shapes.inputs[0], shapes.output)


def _window(node: NodeDef) -> int:
    return _product_of(attribute(node, "ksize").list.i)


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
