"""Parameters and FLOPs per layer, against paper and pencil."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metagraph.opening import open_model
from tests.tools.graph_inspection.graphs import meta_of, subject_of, variable
from tools.graph_layers import _COUNTED, cost_lines, cost_part

v1 = tf.compat.v1


def _layers(found: dict[str, Any], key: str, number: str) -> dict[str, int]:
    layers = {entry["layer"]: entry[key][number] for entry in found["layers"]}
    return {layer: value for layer, value in layers.items() if value}


def test_the_cnn_by_hand(cnn_run: Path) -> None:
    found = cost_part(subject_of(open_model(str(cnn_run))))
    dropout, softmax, argmax = 3 * 128, 5 * 4, 3
    assert _layers(found, "inference", "flops") == {
        "": dropout + softmax + argmax,
        "conv1": 2 * (32 * 32 * 32) * 27 + 32 * 32 * 32 + 9 * (11 * 11 * 32),
        "conv2": 2 * (11 * 11 * 64) * (9 * 32) + 11 * 11 * 64 + 9 * (4 * 4 * 64),
        "fc1": 2 * 1024 * 128 + 128,
        "fc2": 2 * 128 * 4 + 4,
    }
    assert _layers(found, "inference", "parameters") == {
        "": 1,  # The global step, which the dropout's random numbers follow from.
        "conv1": 3 * 3 * 3 * 32 + 32,
        "conv2": 3 * 3 * 32 * 64 + 64,
        "fc1": 1024 * 128 + 128,
        "fc2": 128 * 4 + 4,
    }
    assert found["trainable"] == 896 + 18496 + 131200 + 516
    assert found["total"]["parameters"] == 3 * found["trainable"] + 3  # Adam: m, v, two powers.
    assert found["inference"]["not_counted"] == {}
    many = cost_part(subject_of(open_model(str(cnn_run)), batch_size=12))
    assert many["inference"]["flops"] == 12 * found["inference"]["flops"]


@pytest.mark.parametrize(("depth", "layer"), [(1, "outer"), (2, "outer/inner")])
def test_depth_joins_scopes(depth: int, layer: str) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        with v1.variable_scope("outer/inner"):
            tf.matmul(x, variable("w", [4, 2]), name="y")

    found = cost_part(subject_of(build, "outer/inner/y", depth=depth))
    assert _layers(found, "inference", "flops") == {layer: 16}
    assert _layers(found, "inference", "parameters") == {layer: 8}


def test_parts_of_a_variable_are_of_its_layer_and_constants_are_parameters() -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        with v1.name_scope("fc"):
            tf.identity(x @ tf.ones([4, 2]) * 2.0, name="y")
        with v1.variable_scope("p", partitioner=v1.fixed_size_partitioner(3)):
            v1.get_variable("w", [10, 4], use_resource=True)

    found = cost_part(subject_of(build, "fc/y"))
    assert _layers(found, "total", "parameters") == {"p": 40}
    assert _layers(found, "inference", "constants") == {"fc": 8}  # A scalar is no parameter.
    assert "constants" in "\n".join(cost_lines(found, 10))


def _shapeless() -> None:
    x = v1.placeholder(tf.float32, None, "x")
    rows = v1.placeholder(tf.float32, [None, 2], "rows")
    images = v1.placeholder(tf.float32, [1, 3, 8, 8])
    tf.add(x, x, name="a")
    tf.add(rows, rows, name="b")
    tf.nn.max_pool2d(images, 2, 2, "VALID", "NCHW", name="c")


def _unequal_batches() -> None:
    """One row of the one goes with two of the other: the batch size is left open."""
    x = v1.placeholder(tf.float32, [None, 2], "x")
    y = v1.placeholder(tf.float32, [None, 2], "y")
    tf.add(tf.concat([x, x], 0), tf.ensure_shape(y, [None, 2]), name="a")


def _calling() -> None:
    w = variable("w", [4, 2])
    y = tf.function(lambda x: x @ w, autograph=False)(v1.placeholder(tf.float32, [None, 4]))
    tf.identity(y, name="a")


@pytest.mark.parametrize(
    ("build", "fetch", "flops", "not_counted"),
    [
        (_shapeless, "abc", 6 * 2, {"AddV2": 1, "MaxPool": 1}),
        (_unequal_batches, "a", 0, {"AddV2": 1}),
        (_calling, "a", 0, {"StatefulPartitionedCall": 1}),
    ],
)
def test_what_the_profiler_does_not_count_is_said(
    build: Callable[[], None], fetch: str, flops: int, not_counted: dict[str, int]
) -> None:
    found = cost_part(subject_of(build, *fetch, batch_size=6))
    assert found["inference"]["flops"] == flops
    assert found["inference"]["not_counted"] == not_counted
    told = ", ".join(f"{op} {count}" for op, count in not_counted.items())
    assert f"to predict: not counted by the profiler: {told}" in "\n".join(cost_lines(found, 10))


def test_every_operation_counted_is_one_of_tensorflow() -> None:
    assert all(hasattr(tf.raw_ops, op) for op in _COUNTED)


def test_numbers_beyond_64_bits_are_a_line() -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [2**31, 2**31], "x")
        tf.math.squared_difference(x, x, name="y")

    assert "the profiler fails" in cost_part(subject_of(build, "y"))["problem"]


def test_an_operation_that_tensorflow_lacks_leaves_the_rest() -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        tf.identity(x @ tf.ones([4, 2]), name="y")
        tf.raw_ops.Abs(x=x, name="strange")

    meta = meta_of(build)
    for lacking, flops, not_counted in (("strange", 16, {}), ("y", 0, {"MatMul": 1})):
        meta.nodes[lacking].op = "NoSuchOperation"
        found = cost_part(subject_of(meta, "y"))
        assert found["inference"]["flops"] == flops
        assert found["inference"]["not_counted"] == not_counted
        assert "NoSuchOperation" in found["problem"]


def test_hostile_constants_and_variables_take_no_memory() -> None:
    def build() -> None:
        v1.placeholder(tf.float32, [None], "x")
        variable("w", [3])
        tf.constant(np.float32(1), shape=[2], name="c")

    meta = meta_of(build)
    meta.nodes["w"].attr["shape"].shape.dim[0].size = 2**62
    constant = meta.nodes["c"].attr["value"].tensor
    constant.tensor_content = b""
    constant.tensor_shape.dim[0].size = 2**62
    found = cost_part(subject_of(meta))
    assert found["total"]["parameters"] == 2**62
    assert "constants take more than" in found["problem"]
