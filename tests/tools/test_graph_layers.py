"""Layers of a graph: parameters and FLOPs against paper and pencil, and their drawing."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from errors import ToolError
from metagraph.opening import open_model
from tests.metagraph.made import of_graph
from tests.tools.conftest import subject_of, variable
from tools import graph_layers
from tools.graph_layers import (
    _COUNTED,
    LayerGraph,
    cost_lines,
    cost_part,
    dot_text,
    layer_graph,
)

v1 = tf.compat.v1


def _layers(found: dict[str, Any], key: str, number: str) -> dict[str, int]:
    layers = {entry["layer"]: entry[key][number] for entry in found["layers"]}
    return {layer: value for layer, value in layers.items() if value}


def test_the_cnn_by_hand(cnn_run: Path) -> None:
    found = cost_part(subject_of(open_model(str(cnn_run))))
    dropout, softmax, argmax = 3 * 128, 5 * 4, 3
    assert _layers(found, "inference", "flops") == {
        "": dropout + softmax + argmax,
        "conv1": 2 * (32 * 32 * 32) * 27 + 11 * 11 * 32 + 9 * (11 * 11 * 32),
        "conv2": 2 * (11 * 11 * 64) * (9 * 32) + 4 * 4 * 64 + 9 * (4 * 4 * 64),
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

    meta = of_graph(build)
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

    meta = of_graph(build)
    meta.nodes["w"].attr["shape"].shape.dim[0].size = 2**62
    constant = meta.nodes["c"].attr["value"].tensor
    constant.tensor_content = b""
    constant.tensor_shape.dim[0].size = 2**62
    found = cost_part(subject_of(meta))
    assert found["total"]["parameters"] == 2**62
    assert "constants take more than" in found["problem"]


# The drawing: what is joined, what is quoted, what Graphviz makes of it.


# The language's own grammar: a quoted string, a name, or a mark. All else is no token.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_0-9]+|->|[{}\[\]=,;]|\s+')
HOSTILE = ['a"]; evil [image="/etc/passwd"', "a\\", 'a\\"', "<b>html</b>", "line\nbreak"]
HOSTILE += ["\x1b[31m", "\\N \\G", "x" * 500]


def test_a_large_graph_is_drawn_by_its_outer_scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [2], "x")
        for number in range(12):
            with v1.name_scope(f"block{number % 2}/inner{number}"):
                x = x + 1.0

    monkeypatch.setattr(graph_layers, "MAX_LAYERS", 5)
    assert set(layer_graph(subject_of(build)).layers) == {"x", "block0", "block1"}
    monkeypatch.setattr(graph_layers, "MAX_LAYERS", 2)
    with pytest.raises(ToolError, match="has 3 layers to draw, expected at most 2: --fetch"):
        layer_graph(subject_of(build))


def _hostile() -> LayerGraph:
    names = {name: Counter([name]) for name in HOSTILE}
    edges = {(HOSTILE[0], name): dict.fromkeys([name, *HOSTILE]) for name in HOSTILE[1:]}
    return LayerGraph(HOSTILE[0], names, edges)


def test_no_name_becomes_part_of_the_language() -> None:
    text = dot_text(_hostile())
    tokens = _TOKEN.findall(text)
    assert "".join(tokens) == text
    bare = {token for token in tokens if not token.startswith('"')}
    assert not bare & {"evil", "image", "html", "N", "G"}
    ids = {token for token in bare if re.fullmatch(r"n\d+", token)}
    assert len(ids) == len(HOSTILE)
    assert tokens.count("->") == len(HOSTILE) - 1
    assert "\x1b" not in text
    assert max(map(len, tokens)) < 500


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz's dot")
def test_graphviz_reads_the_names_as_they_are() -> None:
    """Its own plain output has one node and one edge for each of ours, and no attribute more."""
    ended = subprocess.run(
        ["dot", "-Tplain"],
        input=dot_text(_hostile()).encode(),
        capture_output=True,
        check=True,
        timeout=300,
    )
    lines = ended.stdout.decode().splitlines()
    assert sum(line.startswith("node ") for line in lines) == len(HOSTILE)
    assert sum(line.startswith("edge ") for line in lines) == len(HOSTILE) - 1
    assert ended.stderr == b""
