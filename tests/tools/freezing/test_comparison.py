"""What counts as the same, and the values that a graph is tried on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from errors import ToolError
from metagraph.meta import read_meta_graph
from tests.tools.freezing import models
from tools.freeze import PartConfig
from tools.frozen_comparison import Reference, largest_difference, run_original
from tools.frozen_graph import plan_of

v1 = tf.compat.v1
NAN, INF = float("nan"), float("inf")


def _difference(expected: Any, found: Any, random: tuple[str, ...] = ()) -> float:
    reference = Reference({}, {"y:0": np.asarray(expected)}, random)
    return largest_difference(reference, {"y:0": np.asarray(found)}, "the other")


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([1.0, NAN, INF], [1.0, NAN, INF], 0),
        ([1.0, 2.0], [1.0 + 5e-7, 2.0], 5e-7),
        ([1000.0], [1000.0009], 9e-4),
        ([1, 2], [1, 2], 0),
        ([b"a", b"b"], [b"a", b"b"], 0),
        (np.zeros([0, 3]), np.zeros([0, 3]), 0),
        (1 + 2j, 1 + 2j, 0),
        (np.ones(2, tf.bfloat16.as_numpy_dtype), np.ones(2, tf.bfloat16.as_numpy_dtype), 0),
    ],
)
def test_what_is_the_same(expected: Any, found: Any, difference: float) -> None:
    assert _difference(expected, found) == pytest.approx(difference, rel=1e-3)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ([1.0], [1.000003]),
        ([0.0], [3e-6]),
        ([NAN], [1.0]),
        ([INF], [-INF]),
        ([1], [2]),
        ([1], [1.0]),
        ([1.0, 1.0], [1.0]),
        ([b"a"], [b"b"]),
        ([True], [False]),
    ],
)
def test_what_is_not(expected: Any, found: Any) -> None:
    with pytest.raises(ToolError, match="the other gives another y:0 than the original"):
        _difference(expected, found)
    assert _difference(expected, found, random=("y:0",)) == 0


def _feeds(folder: Path, build: Any) -> dict[str, Any]:
    def graph() -> None:
        w = v1.get_variable("w", initializer=1.0, use_resource=False)
        tf.add(tf.cast(tf.size(build()), tf.float32), w, name="y")

    meta = read_meta_graph(models.save(folder, graph))
    config = PartConfig(meta.path, "none.pb", outputs=("y",))
    return dict(run_original(plan_of(meta, config), config).feeds)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int64, tf.float16, tf.bfloat16, tf.complex64])
def test_values_are_of_the_inputs_dtype(dtype: tf.DType, tmp_path: Path) -> None:
    feeds = _feeds(tmp_path, lambda: v1.placeholder(dtype, [None, 5], name="x"))
    assert feeds["x:0"].dtype == dtype.as_numpy_dtype
    assert feeds["x:0"].shape == (2, 5)


def test_a_size_that_only_the_graph_knows_is_found(tmp_path: Path) -> None:
    def build() -> tf.Tensor:
        return tf.unique(tf.reshape(v1.placeholder(tf.float32, [None], name="x"), [32]))[0]

    assert _feeds(tmp_path, build)["x:0"].shape == (32,)


def test_numbers_of_rows_stay_within_a_small_table(tmp_path: Path) -> None:
    def build() -> tf.Tensor:
        return tf.gather(tf.constant([7.0]), v1.placeholder(tf.int32, [None], name="x"))

    assert _feeds(tmp_path, build)["x:0"].tolist() == [0, 0]


@pytest.mark.parametrize("parse", [v1.io.parse_example, tf.io.parse_example])
def test_examples_have_the_features_that_are_parsed(parse: Any, tmp_path: Path) -> None:
    def build() -> tf.Tensor:
        texts = v1.placeholder(tf.string, [None], name="x")
        features = {
            "pixels": tf.io.FixedLenFeature([2, 3], tf.float32),
            "label": tf.io.FixedLenFeature([], tf.int64),
            "text": tf.io.FixedLenFeature([], tf.string),
            "words": tf.io.VarLenFeature(tf.string),
        }
        return parse(texts, features)["pixels"]

    (text, _) = _feeds(tmp_path, build)["x:0"]
    example = tf.train.Example.FromString(text)
    assert sorted(example.features.feature) == ["label", "pixels", "text"]


def test_a_graph_that_takes_no_values_is_said(tmp_path: Path) -> None:
    def build() -> tf.Tensor:
        return tf.io.decode_png(v1.placeholder(tf.string, [], name="x"))

    with pytest.raises(ToolError, match=r"takes no values .*x:0 string \[\].*with --inputs"):
        _feeds(tmp_path, build)
