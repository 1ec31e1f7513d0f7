"""The learning rate of each step, against its formula in plain Python."""

import math

import numpy as np
import pytest
import tensorflow as tf

from models import blocks, cnn
from models.blocks import CONSTANT, Schedule, scheduled

v1 = tf.compat.v1
PEAK = 0.25


def _rates(schedule: Schedule, steps: list[int]) -> list[float]:
    """What the graph computes where `global_step` has these values."""
    with tf.Graph().as_default(), v1.Session() as session:
        step = blocks.global_step()
        rate = scheduled(PEAK, schedule, step)
        assert isinstance(rate, tf.Tensor)
        assert (rate.name, rate.dtype, rate.shape.as_list()) == ("learning_rate:0", tf.float32, [])
        assign, value = step.initializer, step.initializer.inputs[1]
        found = []
        for number in steps:
            session.run(assign, {value: number})
            found.append(float(session.run(rate)))
        return found


def test_a_cosine_falls_from_the_peak_to_zero() -> None:
    found = _rates(Schedule(cosine_to=8), list(range(12)))
    expected = [PEAK * 0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    np.testing.assert_allclose(found[:8], expected, rtol=1e-6)
    assert found[0] == PEAK
    assert found[4] == pytest.approx(PEAK / 2)
    assert found[8:] == [0, 0, 0, 0]


def test_the_warm_up_comes_first() -> None:
    found = _rates(Schedule(warmup_steps=4, cosine_to=12), list(range(12)))
    np.testing.assert_allclose(found[:4], [PEAK * k / 4 for k in (1, 2, 3, 4)], rtol=1e-6)
    expected = [PEAK * 0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    np.testing.assert_allclose(found[4:], expected, rtol=1e-6)


def test_a_constant_rate_may_be_warmed_up_too() -> None:
    found = _rates(Schedule(warmup_steps=4), [0, 1, 2, 3, 4, 10**12])
    assert found == [PEAK / 4, PEAK / 2, PEAK * 3 / 4, PEAK, PEAK, PEAK]


def test_steps_beyond_float32_are_told_apart() -> None:
    last = 10**12
    found = _rates(Schedule(cosine_to=last), [last // 2 - 10**5, last // 2, last // 2 + 10**5])
    assert found[0] > found[1] > found[2]


def test_constant_adds_nothing_to_the_graph() -> None:
    with tf.Graph().as_default() as graph:
        step = blocks.global_step()
        before = graph.as_graph_def()
        assert scheduled(PEAK, CONSTANT, step) is PEAK
        assert graph.as_graph_def() == before
    assert CONSTANT.identity() == {}


@pytest.mark.parametrize(("warmup_steps", "cosine_to"), [(-1, None), (5, 5), (0, 0)])
def test_what_cannot_be_is_refused(warmup_steps: int, cosine_to: int | None) -> None:
    with pytest.raises(ValueError, match="warm-up"):
        Schedule(warmup_steps, cosine_to)


def test_identities_tell_schedules_apart() -> None:
    schedules = [CONSTANT, Schedule(3), Schedule(3, 9), Schedule(0, 9), Schedule(3, 10)]
    identities = [schedule.identity() for schedule in schedules]
    assert all(identities.count(identity) == 1 for identity in identities)


def test_adam_takes_the_rate_of_its_step() -> None:
    """Adam's first step is as long as its rate, so it tells which one it took."""
    model = cnn.build(num_classes=2, learning_rate=0.01, seed=0, schedule=Schedule(4, 12))
    images = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    with v1.Session(graph=model.graph) as session:
        session.run([v.initializer for v in model.graph.get_collection("variables")])
        before = session.run("fc2/b:0")
        feeds = dict(zip(model.inputs, (images, np.array([0, 0, 0, 1])), strict=True))
        rate, _ = session.run([model.learning_rate, model.train_op], feeds)
        after = session.run("fc2/b:0")
    assert rate == np.float32(0.0025)
    np.testing.assert_allclose(np.abs(after - before), 0.0025, rtol=1e-3)
