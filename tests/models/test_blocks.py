"""Draws are a function of seed, stream and step alone; the learning rate is one of the step."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from models import blocks, cnn
from models.blocks import CONSTANT, Schedule, scheduled
from tests.models.test_classifiers import Array, Session, new_session

PEAK = 0.25


def _draw(initializer: Callable[..., tf.Tensor], count: int = 100_000) -> Array:
    with tf.Graph().as_default(), Session() as session:
        drawn: Array = session.run(initializer([count]))
        assert drawn.dtype == np.float32
        return drawn


def _dropout(keep_prob: float, seed: int = 0, stream: int = 0, step: int = 0) -> Array:
    with tf.Graph().as_default(), Session() as session:
        values = tf.ones((100, 100))
        mask = blocks.dropout(values, tf.constant(keep_prob), seed, stream, tf.constant(step))
        masked: Array = session.run(mask)
        return masked


def test_draws_have_their_distributions() -> None:
    uniform = _draw(blocks.uniform(-20.0, 20.0, seed=3, stream=0))
    assert -20.0 <= uniform.min() < -19.0
    assert 19.0 < uniform.max() < 20.0
    assert abs(uniform.mean()) < 0.5
    cut = _draw(blocks.truncated_normal(0.1, seed=3, stream=0))
    assert np.abs(cut).max() <= 0.2
    # The standard deviation of a normal cut at 2 sigma is 0.8796 sigma.
    assert cut.std() == pytest.approx(0.08796, rel=0.01)
    normal = _draw(blocks.normal(0.1, seed=3, stream=0))
    assert normal.std() == pytest.approx(0.1, rel=0.01)
    assert np.mean(np.abs(normal) > 0.2) == pytest.approx(0.0455, rel=0.1)


def test_draws_differ_by_seed_and_stream_and_masks_by_step_too() -> None:
    first, again, *others = (
        _draw(blocks.uniform(0.0, 1.0, seed, stream), 10)
        for seed, stream in ((3, 0), (3, 0), (3, 1), (4, 0))
    )
    assert np.array_equal(first, again)
    assert not any(np.array_equal(first, other) for other in others)
    first, again, *others = (
        _dropout(0.5, **changed) for changed in ({}, {}, {"seed": 1}, {"stream": 1}, {"step": 1})
    )
    assert np.array_equal(first, again)
    assert not any(np.array_equal(first, other) for other in others)


def test_the_largest_seed_and_a_stream_keep_their_bits() -> None:
    with tf.Graph().as_default(), Session() as session:
        first, second = session.run([blocks.key(2**32 - 1, 100, 5), blocks.key(0, 101, 5)])
    assert first.tolist() == [100 * 2**32 + 2**32 - 1, 5]
    assert second.tolist() == [101 * 2**32, 5]


def test_dropout_keeps_a_share_and_scales_it_or_changes_no_bit() -> None:
    kept = _dropout(0.8)
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1) / np.float32(0.8)}
    assert np.count_nonzero(kept) / kept.size == pytest.approx(0.8, abs=0.02)
    with tf.Graph().as_default(), Session() as session:
        values = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
        out = blocks.dropout(tf.constant(values), tf.constant(1.0), 0, 0, tf.constant(0))
        assert session.run(out).tobytes() == values.tobytes()


def _rates(schedule: Schedule, steps: list[int]) -> list[float]:
    """What the graph computes where `global_step` has these values."""
    with tf.Graph().as_default(), Session() as session:
        step = blocks.global_step()
        rate = scheduled(PEAK, schedule, step)
        assert isinstance(rate, tf.Tensor)
        assert (rate.name, rate.dtype, rate.shape.as_list()) == ("learning_rate:0", tf.float32, [])
        found = []
        for number in steps:
            session.run(step.initializer, {step.initializer.inputs[1]: number})
            found.append(float(session.run(rate)))
        return found


def _cosine(steps: int) -> list[float]:
    return [PEAK * 0.5 * (1 + math.cos(math.pi * k / steps)) for k in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (Schedule(cosine_to=8), range(12), [*_cosine(8), 0, 0, 0, 0]),
        (Schedule(4, cosine_to=12), range(12), [PEAK / 4, PEAK / 2, 0.1875, PEAK, *_cosine(8)]),
        (Schedule(4), [0, 1, 2, 3, 4, 10**12], [PEAK / 4, PEAK / 2, 0.1875, PEAK, PEAK, PEAK]),
    ],
    ids=["cosine", "warm-up", "constant after a warm-up"],
)
def test_the_rate_of_each_step(schedule: Schedule, steps: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(_rates(schedule, list(steps)), expected, rtol=1e-6)


def test_steps_beyond_float32_are_told_apart() -> None:
    last = 10**12
    found = _rates(Schedule(cosine_to=last), [last // 2 - 10**5, last // 2, last // 2 + 10**5])
    assert found[0] > found[1] > found[2]


def test_identities_tell_schedules_apart_and_constant_adds_nothing_to_the_graph() -> None:
    with tf.Graph().as_default() as graph:
        step = blocks.global_step()
        before = graph.as_graph_def()
        assert scheduled(PEAK, CONSTANT, step) is PEAK
        assert graph.as_graph_def() == before
    schedules = [CONSTANT, Schedule(3), Schedule(3, 9), Schedule(0, 9), Schedule(3, 10)]
    identities = [schedule.identity() for schedule in schedules]
    assert identities[0] == {}
    assert all(identities.count(identity) == 1 for identity in identities)


def test_adam_takes_the_rate_of_its_step() -> None:
    """Adam's first step is as long as its rate, so it tells which one it took."""
    model = cnn.build(num_classes=2, learning_rate=0.01, seed=0, schedule=Schedule(4, 12))
    images = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    with new_session(model) as session:
        before = session.run("fc2/b:0")
        feeds = dict(zip(model.inputs, (images, np.array([0, 0, 0, 1])), strict=True))
        rate, _ = session.run([model.learning_rate, model.train_op], feeds)
        after = session.run("fc2/b:0")
    assert rate == np.float32(0.0025)
    np.testing.assert_allclose(np.abs(after - before), 0.0025, rtol=1e-3)


# The two heads, against NumPy.


def _run(kind: str, features: Array, seed: int = 0) -> list[Array]:
    """The logits, probabilities, classes, w and b on these features."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(tf.float32, [None, *features.shape[1:]])
        with tf.compat.v1.variable_scope("head"):
            blocks.head(kind, fed, 3, seed)
        session.run(tf.compat.v1.global_variables_initializer())
        names = ("add", "probabilities", "classes", "w", "b")
        return list(session.run([f"head/{name}:0" for name in names], {fed: features}))


@pytest.mark.parametrize("shape", [(5, 4, 2, 3), (5, 24), (5,)])
def test_dense_is_a_matrix_of_all_features(shape: tuple[int, ...]) -> None:
    features = np.random.default_rng(0).random(shape, np.float32)
    logits, probabilities, classes, w, b = _run(blocks.DENSE, features)
    expected = features.reshape(5, -1) @ w + b
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    shares = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, shares, rtol=1e-5)
    np.testing.assert_array_equal(classes, expected.argmax(axis=1))
    assert classes.dtype == np.int64
    assert b.tolist() == [0, 0, 0]


def test_conv_is_the_mean_of_a_matrix_at_each_position() -> None:
    features = np.random.default_rng(0).random((5, 4, 2, 8), np.float32)
    logits, _, _, w, b = _run(blocks.CONV, features)
    assert w.shape == (1, 1, 8, 3)
    np.testing.assert_allclose(
        logits, (features @ w[0, 0] + b).mean(axis=(1, 2)), rtol=1e-5, atol=1e-6
    )


def test_weights_follow_from_the_seed_and_are_as_large_as_their_number_asks_for() -> None:
    features = np.zeros((1, 4096), np.float32)
    first, again, other = (_run(blocks.DENSE, features, seed)[3] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # Cut off at two standard deviations, a normal has 0.88 of its own.
    np.testing.assert_allclose(first.std() * 64, 0.88, atol=0.02)
