"""Parameters and FLOPs per layer, against paper and pencil."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from metagraph.model import read_model
from metagraph.opening import open_model
from tests.tools.graph_inspection.graphs import meta_of, subject_of, variable
from tools import graph_cost
from tools.graph_subject import Subject

v1 = tf.compat.v1


def _subject(path: Path | str, **options: Any) -> Subject:
    meta = open_model(str(path))
    return Subject(meta, read_model(meta), **options)


def _layers(found: dict[str, Any], key: str, number: str) -> dict[str, int]:
    layers = {entry["layer"]: entry[key][number] for entry in found["layers"]}
    return {layer: value for layer, value in layers.items() if value}


def test_the_cnn_by_hand(cnn_run: Path) -> None:
    found = graph_cost.cost_part(_subject(cnn_run))
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


def test_a_batch_costs_its_rows(cnn_run: Path) -> None:
    one, many = (
        graph_cost.cost_part(_subject(cnn_run, batch_size=n))["inference"]["flops"] for n in (1, 12)
    )
    assert many == 12 * one


def test_depth_joins_scopes() -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        with v1.variable_scope("outer/inner"):
            tf.matmul(x, variable("w", [4, 2]), name="y")

    found = [graph_cost.cost_part(subject_of(build, "outer/inner/y", depth=d)) for d in (1, 2)]
    assert [_layers(f, "inference", "flops") for f in found] == [{"outer": 16}, {"outer/inner": 16}]
    assert [_layers(f, "inference", "parameters") for f in found] == [
        {"outer": 8},
        {"outer/inner": 8},
    ]


def test_parts_of_a_variable_are_of_its_layer() -> None:
    def build() -> None:
        with v1.variable_scope("p"):
            v1.get_variable(
                "w", [10, 4], partitioner=v1.fixed_size_partitioner(3), use_resource=True
            )

    assert _layers(graph_cost.cost_part(subject_of(build)), "total", "parameters") == {"p": 40}


def test_a_frozen_graph_has_constants() -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        with v1.name_scope("fc"):
            tf.identity(x @ tf.ones([4, 2]) * 2.0, name="y")

    found = graph_cost.cost_part(subject_of(build, "fc/y"))
    assert _layers(found, "inference", "constants") == {"fc": 8}  # A scalar is no parameter.
    assert "constants" in "\n".join(graph_cost.cost_lines(found, 10))


def test_calls_of_functions_are_told_as_not_counted(tmp_path: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable(tf.ones([4, 2]), name="net/w")
    spec = tf.TensorSpec([None, 4])
    module.f = tf.function(lambda x: tf.matmul(x, module.w), input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures=module.f)
    found = graph_cost.cost_part(_subject(tmp_path))
    assert found["inference"]["flops"] == 0
    assert found["inference"]["not_counted"] == {"StatefulPartitionedCall": 1}
    assert _layers(found, "inference", "parameters") == {"net": 8}


def test_what_the_profiler_does_not_count_is_said() -> None:
    """What has no shape, and channels first."""

    def build() -> None:
        x = v1.placeholder(tf.float32, None, "x")
        tf.add(x, x, name="y")
        rows = v1.placeholder(tf.float32, [None, 2], "rows")
        tf.add(rows, rows, name="z")
        images = v1.placeholder(tf.float32, [1, 3, 8, 8])
        tf.nn.max_pool2d(images, 2, 2, "VALID", "NCHW", name="pool")

    found = graph_cost.cost_part(subject_of(build, "y", "z", "pool", batch_size=6))
    assert found["inference"]["not_counted"] == {"AddV2": 1, "MaxPool": 1}
    assert found["inference"]["flops"] == 6 * 2
    text = "\n".join(graph_cost.cost_lines(found, 10))
    assert "not counted by the profiler: AddV2 1, MaxPool 1" in text


def test_where_the_graph_cannot_have_the_batch_size_it_is_left_open() -> None:
    """Two inputs of which one row of the one goes with two of the other."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        y = v1.placeholder(tf.float32, [None, 2], "y")
        tf.add(tf.concat([x, x], 0), tf.ensure_shape(y, [None, 2]), name="z")

    found = graph_cost.cost_part(subject_of(build, "z", batch_size=6))
    assert found["inference"]["not_counted"] == {"AddV2": 1}


def test_numbers_beyond_64_bits_are_a_line() -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [2**31, 2**31], "x")
        tf.math.squared_difference(x, x, name="y")

    assert "the profiler fails" in graph_cost.cost_part(subject_of(build, "y"))["problem"]


def test_every_operation_counted_is_one_of_tensorflow() -> None:
    assert all(hasattr(tf.raw_ops, op) for op in graph_cost._COUNTED)


def test_an_operation_that_tensorflow_lacks_leaves_the_rest() -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        tf.identity(x @ tf.ones([4, 2]), name="y")
        tf.raw_ops.Abs(x=x, name="strange")

    meta = meta_of(build)
    meta.nodes["strange"].op = "NoSuchOperation"
    found = graph_cost.cost_part(Subject(meta, read_model(meta), ["y"]))
    assert found["inference"]["flops"] == 2 * 4 * 2
    assert "NoSuchOperation" in found["problem"]
    meta.nodes["y"].op = "NoSuchOperation"
    found = graph_cost.cost_part(Subject(meta, read_model(meta), ["y"]))
    assert found["inference"]["flops"] == 0
    assert found["inference"]["not_counted"] == {"MatMul": 1}


def test_hostile_constants_and_variables_take_no_memory() -> None:
    def build() -> None:
        v1.placeholder(tf.float32, [None], "x")
        variable("w", [3])
        tf.constant(np.float32(1), shape=[2], name="c")

    meta = meta_of(build)
    shape = meta.nodes["w"].attr["shape"].shape
    shape.dim[0].size = 2**62
    constant = meta.nodes["c"].attr["value"].tensor
    constant.tensor_content = b""
    constant.tensor_shape.dim[0].size = 2**62
    found = graph_cost.cost_part(Subject(meta, read_model(meta)))
    assert found["total"]["parameters"] == 2**62
    assert "constants take more than" in found["problem"]
