"""Each formula gives what TensorFlow's own profiler gives, and what paper and pencil give."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import tensorflow as tf

from tests.tools.graph_inspection.graphs import subject_of
from tools import graph_cost
from tools.graph_cost import COUNTED, Shapes, count_flops

v1 = tf.compat.v1


def _images(*shape: int) -> tf.Tensor:
    return v1.placeholder(tf.float32, shape)


def _training() -> None:
    """A network of convolutions and its gradient: the formulas of the profiler's own tests."""
    x, filters = _images(2, 9, 9, 3), tf.ones([3, 3, 3, 4])
    y = tf.nn.conv2d(x, filters, strides=2, padding="SAME")
    y = tf.nn.max_pool2d(tf.nn.bias_add(y, tf.ones([4])), 2, 1, "VALID")
    y = tf.nn.avg_pool2d(y, 2, 1, "SAME")
    y = tf.nn.depthwise_conv2d(y, tf.ones([2, 2, 4, 3]), [1, 1, 1, 1], "SAME")
    logits = tf.reshape(y, [2, 192]) @ tf.ones([192, 5])
    loss = tf.reduce_mean(tf.reduce_sum(tf.nn.softmax(logits) ** 2, 1)) + tf.nn.l2_loss(filters)
    v1.gradients(loss, [filters, x])


def _elementwise() -> None:
    x, y = _images(4, 5), _images(5)
    unary = [tf.math.reciprocal(x), tf.square(x), tf.math.rsqrt(x), tf.math.log(x), -x]
    binary = [x + y, x - y, x * y, x / y, tf.maximum(x, y), tf.minimum(x, y), tf.pow(x, y)]
    compared = [x < y, x <= y, x > y, x >= y, tf.equal(x, y), tf.not_equal(x, y)]
    tf.math.squared_difference(x, y)
    tf.argmax(x, 1), tf.argmin(x, 0), tf.reduce_mean(x), tf.reduce_sum(x, 0)
    tf.add_n([*unary, *binary])
    assert compared


def _products() -> None:
    tf.matmul(_images(3, 4), _images(5, 4), transpose_b=True)
    tf.matmul(_images(4, 3), _images(4, 5), transpose_a=True)
    tf.matmul(_images(2, 3, 4), _images(2, 4, 5))
    tf.nn.conv3d(_images(1, 4, 5, 6, 2), tf.ones([2, 3, 3, 2, 7]), [1, 1, 1, 1, 1], "VALID")
    tf.nn.conv2d_transpose(_images(1, 4, 4, 6), tf.ones([3, 3, 2, 6]), [1, 8, 8, 2], 2)
    tf.nn.dilation2d(_images(1, 8, 8, 2), tf.ones([3, 3, 2]), [1, 1, 1, 1], "SAME", "NHWC", [1] * 4)


@pytest.mark.parametrize("build", [_training, _elementwise, _products])
def test_as_tensorflows_profiler_counts(build: Callable[[], None]) -> None:
    with tf.Graph().as_default() as graph:
        build()
    options = v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    theirs = v1.profiler.profile(graph, options=options).total_float_ops
    found = graph_cost.cost_part(subject_of(build))["total"]
    assert found["not_counted"] == found["assumed"] == {}
    assert found["flops"] == theirs > 0


def _by_op(build: Callable[[], object]) -> Mapping[str, int]:
    found: Mapping[str, int] = graph_cost.cost_part(subject_of(build))["total"]["by_op"]
    return found


def test_a_product_with_an_adjoint_by_hand() -> None:
    """[2, 3, 4] and [2, 3, 5]: 2 results of [4, 5], each of 3 multiplications and additions."""
    counted = _by_op(lambda: tf.linalg.matmul(_images(2, 3, 4), _images(2, 3, 5), adjoint_a=True))
    assert counted["BatchMatMulV2"] == 2 * 3 * (2 * 4 * 5)


def test_channels_first_by_hand() -> None:
    """The channels in are of the filter, wherever the image has its own."""

    def build() -> None:
        tf.nn.conv2d(_images(1, 3, 8, 8), tf.ones([3, 3, 3, 4]), 1, "SAME", "NCHW")
        tf.nn.max_pool2d(_images(1, 3, 8, 8), 2, 2, "VALID", "NCHW")

    assert _by_op(build) == {"Conv2D": 2 * (4 * 8 * 8) * (3 * 3 * 3), "MaxPool": 4 * (3 * 4 * 4)}


def test_channels_first_gradients_are_those_of_channels_last() -> None:
    def build(order: str, image: list[int], output: list[int]) -> Mapping[str, int]:
        def gradients() -> None:
            strides = [1, 2, 2, 1] if order == "NHWC" else [1, 1, 2, 2]
            options = {"strides": strides, "padding": "SAME", "data_format": order}
            out, filters = _images(*output), tf.ones([3, 3, 3, 4])
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=image, filter=filters, out_backprop=out, **options
            )
            tf.raw_ops.Conv2DBackpropFilter(
                input=_images(*image), filter_sizes=[3, 3, 3, 4], out_backprop=out, **options
            )

        return _by_op(gradients)

    last = build("NHWC", [1, 8, 8, 3], [1, 4, 4, 4])
    assert build("NCHW", [1, 3, 8, 8], [1, 4, 4, 4]) == last
    assert last["Conv2DBackpropInput"] == 2 * (8 * 8 // 4) * 4 * (3 * 3 * 3)


def test_pools_of_three_dimensions_by_hand() -> None:
    counted = _by_op(lambda: tf.nn.max_pool3d(_images(1, 4, 4, 4, 2), 2, 2, "VALID"))
    assert counted == {"MaxPool3D": 8 * (2 * 2 * 2 * 2)}


def test_shapes_that_do_not_fit_are_not_counted() -> None:
    with tf.Graph().as_default():
        node = tf.nn.conv2d(_images(1, 8, 8, 3), tf.ones([3, 3, 3, 4]), 1, "SAME").op.node_def
    node.op = "Conv2DBackpropInput"
    node.attr["strides"].list.i[:] = [0, 0, 0, 0]
    assert count_flops(node, Shapes([(4,), (3, 3, 3, 4)], (1, 8, 8, 3))) is None
    assert count_flops(node, Shapes([], ())) is None


def test_every_operation_counted_is_one_of_tensorflow() -> None:
    assert all(hasattr(tf.raw_ops, op) for op in COUNTED)


def test_numbers_are_exact_beyond_64_bits() -> None:
    node = tf.compat.v1.NodeDef(op="Add")
    assert count_flops(node, Shapes([], (2**40, 2**40))) == 2**80
    assert np.iinfo(np.int64).max < 2**80
