"""What counts as the same, and the values that a graph is tried on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from checkpoints.reader import Array
from errors import CheckpointError, ToolError
from metagraph.description import TensorInfo
from metagraph.meta import read_meta_graph
from tests.tools.freezing import models
from tools.freeze import PartConfig
from tools.freezing import Reference, largest_difference, run_original, try_batches
from tools.frozen_graph import plan_freeze

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
        (np.array([b"a"], object), np.array([b"a"], object), 0),
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
        (np.array([b"a"], object), np.array([b"b"], object)),
        ([True], [False]),
    ],
)
def test_what_is_not(expected: Any, found: Any) -> None:
    with pytest.raises(ToolError, match="the other gives another y:0 than the original"):
        _difference(expected, found)
    assert _difference(expected, found, random=("y:0",)) == 0


def _values(*infos: TensorInfo) -> list[Array]:
    """The first that are tried."""
    return try_batches(infos, len)[0]


@pytest.mark.parametrize(
    "dtype",
    [tf.float16, tf.bfloat16, tf.float64, tf.uint8, tf.int8, tf.int64, tf.bool, tf.complex64],
    ids=lambda dtype: dtype.name,
)
def test_values_are_of_the_dtype_and_within_what_models_take(dtype: tf.DType) -> None:
    (value,) = _values(TensorInfo("x:0", dtype, (None, 5, None)))
    assert value.shape == (2, 5, 8)
    assert tf.as_dtype(value.dtype) == dtype
    numbers = np.abs(value.astype(np.complex128))
    assert numbers.max() <= (255 if dtype == tf.uint8 else 1.5)
    assert (numbers.max() > 200) == (dtype == tf.uint8)
    assert np.unique(value).size > 1


def test_texts_are_empty_bools_off_and_unknown_ranks_rows() -> None:
    text, row, one, *switches = _values(
        TensorInfo("a:0", tf.string, (None, 1)),
        TensorInfo("b:0", tf.float32, None),
        TensorInfo("c:0", tf.float32, ()),
        *(TensorInfo("d:0", tf.bool, shape) for shape in ((), None)),
    )
    assert text.tolist() == [[b""], [b""]]
    assert (row.shape, one.shape) == ((2,), ())
    assert [switch.tolist() for switch in switches] == [False, False]
    with pytest.raises(ToolError, match="x:0 is a resource"):
        _values(TensorInfo("x:0", tf.resource, ()))


def test_they_are_the_same_each_time_and_the_first_refusal_is_the_reason() -> None:
    infos = [TensorInfo(name, tf.float32, (None, 3)) for name in ("x:0", "z:0")]
    first, second = _values(*infos), _values(*infos)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])

    def refuse(values: Any) -> None:
        raise CheckpointError(f"refused {values[0].shape}")

    with pytest.raises(CheckpointError, match=r"refused \(2, 3\)"):
        try_batches(infos, refuse)


def _feeds(folder: Path, build: Callable[[], tf.Tensor]) -> dict[str, Any]:
    def graph() -> None:
        w = v1.get_variable("w", initializer=1.0, use_resource=False)
        tf.add(tf.cast(tf.size(build()), tf.float32), w, name="y")

    meta = read_meta_graph(models.save(folder, graph))
    config = PartConfig(meta.path, "none.pb", outputs=("y",))
    return dict(run_original(plan_freeze(meta, config), config).feeds)


def test_sizes_and_limits_that_only_the_graph_knows_are_found(tmp_path: Path) -> None:
    def build() -> tf.Tensor:
        rows = tf.reshape(v1.placeholder(tf.float32, [None], name="rows"), [32])
        number = tf.gather(tf.constant([7.0]), v1.placeholder(tf.int32, [None], name="number"))
        return tf.concat([rows, number], 0)

    feeds = _feeds(tmp_path, build)
    assert feeds["rows:0"].shape == (32,)
    assert not feeds["number:0"].any()


def test_a_graph_that_takes_no_values_is_said(tmp_path: Path) -> None:
    def build() -> tf.Tensor:
        return tf.io.decode_png(v1.placeholder(tf.string, [], name="x"))

    with pytest.raises(ToolError, match=r"takes no values .*x:0 string \[\].*with --inputs"):
        _feeds(tmp_path, build)
