"""Draws are a function of seed, stream and step alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from models import blocks

v1 = tf.compat.v1
Array = npt.NDArray[Any]


def _draw(initializer: Callable[..., tf.Tensor], shape: list[int]) -> Array:
    with tf.Graph().as_default(), v1.Session() as session:
        drawn: Array = session.run(initializer(shape))
        return drawn


def _dropout(keep_prob: float, seed: int = 0, stream: int = 0, step: int = 0) -> Array:
    with tf.Graph().as_default(), v1.Session() as session:
        values = tf.ones((100, 100))
        mask = blocks.dropout(values, tf.constant(keep_prob), seed, stream, tf.constant(step))
        masked: Array = session.run(mask)
        return masked


def test_uniform_fills_its_range() -> None:
    drawn = _draw(blocks.uniform(-20.0, 20.0, seed=3, stream=0), [10_000])
    assert drawn.dtype == np.float32
    assert -20.0 <= drawn.min() < -19.0
    assert 19.0 < drawn.max() < 20.0
    assert abs(drawn.mean()) < 0.5


def test_truncated_normal_has_its_deviation_and_bounds() -> None:
    drawn = _draw(blocks.truncated_normal(0.1, seed=3, stream=0), [100_000])
    assert np.abs(drawn).max() <= 0.2
    # The standard deviation of a normal cut at 2 sigma is 0.8796 sigma.
    assert drawn.std() == pytest.approx(0.08796, rel=0.01)


def test_normal_has_its_deviation_and_no_bounds() -> None:
    drawn = _draw(blocks.normal(0.1, seed=3, stream=0), [100_000])
    assert drawn.dtype == np.float32
    assert drawn.std() == pytest.approx(0.1, rel=0.01)
    assert np.mean(np.abs(drawn) > 0.2) == pytest.approx(0.0455, rel=0.1)


@pytest.mark.parametrize(("seed", "stream"), [(3, 1), (4, 0)])
def test_initial_values_differ_by_seed_and_stream(seed: int, stream: int) -> None:
    first = _draw(blocks.uniform(0.0, 1.0, seed=3, stream=0), [10])
    assert np.array_equal(first, _draw(blocks.uniform(0.0, 1.0, seed=3, stream=0), [10]))
    assert not np.array_equal(first, _draw(blocks.uniform(0.0, 1.0, seed, stream), [10]))


def test_the_largest_seed_and_a_stream_keep_their_bits() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        first, second = session.run([blocks.key(2**32 - 1, 100, 5), blocks.key(0, 101, 5)])
    assert first.tolist() == [100 * 2**32 + 2**32 - 1, 5]
    assert second.tolist() == [101 * 2**32, 5]


def test_dropout_keeps_a_share_and_scales_it() -> None:
    kept = _dropout(0.8)
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1) / np.float32(0.8)}
    assert np.count_nonzero(kept) / kept.size == pytest.approx(0.8, abs=0.02)


def test_dropout_of_nothing_changes_no_bit() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        values = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
        out = blocks.dropout(tf.constant(values), tf.constant(1.0), 0, 0, tf.constant(0))
        assert session.run(out).tobytes() == values.tobytes()


@pytest.mark.parametrize("other", [{"seed": 1}, {"stream": 1}, {"step": 1}])
def test_dropout_masks_differ_by_seed_stream_and_step(other: dict[str, int]) -> None:
    assert np.array_equal(_dropout(0.5), _dropout(0.5))
    assert not np.array_equal(_dropout(0.5), _dropout(0.5, **other))
