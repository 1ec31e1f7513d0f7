"""Draws are a function of seed, stream and step alone; the learning rate is one of the step."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from errors import TrainingError
from models import blocks, cnn
from models.blocks import CONSTANT, PLAIN, Part, Recipe, Schedule, scheduled
from tests.models.test_classifiers import Array, Session, new_session, softmax

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


# What a training adds, against NumPy.

RATE = 0.05
X = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
LABELS, CLASSES = np.array([0, 1, 2, 3, 1, 0]), 4
ALL = Recipe(0.2, (1.0, 2.0, 0.5, 3.0), 0.3, 0.1, 0.15)
RECIPES = {
    "nothing": PLAIN,
    "label smoothing": Recipe(label_smoothing=0.2),
    "class weights": Recipe(class_weights=(1.0, 2.0, 0.5, 3.0)),
    "weight decay": Recipe(weight_decay=0.3),
    "clipped": Recipe(clip_norm=0.1),
    "below the norm": Recipe(clip_norm=100.0),
    "moving averages": Recipe(ema_decay=0.15),  # In the first step it is 0.1.
    "all": ALL,
}


def _sgd(gradient: Array, slots: list[Array], number: int) -> Array:
    del slots, number
    return np.asarray(RATE * gradient)


def _adam(gradient: Array, slots: list[Array], number: int) -> Array:
    mean, square = slots or (np.zeros_like(gradient), np.zeros_like(gradient))
    slots[:] = mean * 0.9 + 0.1 * gradient, square * 0.999 + 0.001 * gradient**2
    rate = RATE * np.sqrt(1 - 0.999**number) / (1 - 0.9**number)
    return np.asarray(rate * slots[0] / (np.sqrt(slots[1]) + 1e-8))


def _rms_prop(gradient: Array, slots: list[Array], number: int) -> Array:
    del number
    slots[:] = [0.9 * (slots[0] if slots else np.ones_like(gradient)) + 0.1 * gradient**2]
    return np.asarray(RATE * gradient / np.sqrt(slots[0] + 1e-10))


OPTIMIZERS = {
    "sgd": (tf.compat.v1.train.GradientDescentOptimizer, _sgd),
    "adam": (tf.compat.v1.train.AdamOptimizer, _adam),
    "rms_prop": (lambda rate: tf.compat.v1.train.RMSPropOptimizer(rate, decay=0.9), _rms_prop),
}


def _loss_by_hand(recipe: Recipe, w: Array, b: Array) -> tuple[float, list[Array]]:
    """The loss and its gradients by w and b, in float64."""
    shares = softmax(X.astype(np.float64) @ w + b)
    one_hot = np.eye(CLASSES)[LABELS]
    targets = (1 - recipe.label_smoothing) * one_hot + recipe.label_smoothing / CLASSES
    counts = np.array(recipe.class_weights or [1.0] * CLASSES)[LABELS]
    losses = -(targets * np.log(shares)).sum(axis=1)
    slope = (shares - targets) * counts[:, None] / len(X)
    return float(np.mean(counts * losses)), [X.T @ slope, slope.sum(axis=0)]


def _by_hand(recipe: Recipe, step: Callable[..., Array], w: Array, steps: int) -> dict[str, Array]:
    """The variables after so many steps, and the loss before the last one."""
    values = {"w": w.astype(np.float64), "b": np.zeros(CLASSES)}
    averages = {name: value.copy() for name, value in values.items()}
    slots: dict[str, list[Array]] = {"w": [], "b": []}
    for number in range(1, steps + 1):
        loss, gradients = _loss_by_hand(recipe, **values)
        norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
        scale = min(1.0, recipe.clip_norm / norm) if recipe.clip_norm else 1.0
        values["w"] -= RATE * recipe.weight_decay * values["w"]  # Of b, a bias, there is none.
        decay = min(recipe.ema_decay, number / (9 + number))
        for name, gradient in zip("wb", gradients, strict=True):
            values[name] = values[name] - step(scale * gradient, slots[name], number)
            averages[name] = decay * averages[name] + (1 - decay) * values[name]
    averaged = {f"{name}/ExponentialMovingAverage": value for name, value in averages.items()}
    return {**values, **(averaged if recipe.ema_decay else {}), "loss": np.array(loss)}


@pytest.mark.parametrize("gradients", ["computed", "fed"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_those_of_numpy(name: str, optimizer: str, gradients: str) -> None:
    """Three of them, also where gradients are fed, as with --shards."""
    recipe, (make, step) = RECIPES[name], OPTIMIZERS[optimizer]
    with tf.Graph().as_default() as graph, Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3])
        labels = tf.compat.v1.placeholder(tf.int64, [None])
        count, rate = blocks.global_step(), tf.constant(RATE)
        w = blocks.weight("w", [3, CLASSES], blocks.normal(1.0, 0, 0))
        b = blocks.weight("b", [CLASSES], tf.compat.v1.zeros_initializer())
        loss = blocks.cross_entropy(tf.matmul(x, w) + b, labels, recipe)
        train, by = blocks.minimize(make(rate), loss, count, rate, recipe)
        session.run(tf.compat.v1.global_variables_initializer())
        first, feeds = session.run(w).copy(), {x: X, labels: LABELS}
        for number in range(3):
            if gradients == "fed":
                *values, told = session.run([*by, loss], feeds)
                session.run(train, dict(zip(by, values, strict=True)))
            else:
                told, _ = session.run([loss, train], feeds)
            assert session.run(count) == number + 1
        expected = _by_hand(recipe, step, first, 3)
        assert told == pytest.approx(expected.pop("loss"), rel=1e-5)
        for variable, value in expected.items():
            found = session.run(f"{variable}:0")
            np.testing.assert_allclose(found, value, rtol=2e-5, atol=2e-6, err_msg=variable)
        assert (train.name, graph.get_collection("train_op")) == ("train", [train])
        averages = [v.name for v in graph.get_collection("variables") if "Average" in v.name]
        assert len(averages) == (2 if recipe.ema_decay else 0)


def test_labels_that_are_shares_give_the_same_loss() -> None:
    logits = np.random.default_rng(1).normal(size=(6, CLASSES)).astype(np.float32)
    with tf.Graph().as_default(), Session() as session:
        one_hot = np.eye(CLASSES, dtype=np.float32)[LABELS]
        for recipe in (PLAIN, ALL):
            given = (tf.constant(LABELS), tf.constant(one_hot))
            one, other = (blocks.cross_entropy(tf.constant(logits), y, recipe) for y in given)
            assert session.run(one) == pytest.approx(session.run(other), rel=1e-6)


def test_gradients_of_several_parts_are_clipped_together() -> None:
    with tf.Graph().as_default(), Session() as session:
        step = blocks.global_step()
        variables = [blocks.weight(name, [1], tf.compat.v1.zeros_initializer()) for name in "ab"]
        parts = [
            Part(tf.compat.v1.train.GradientDescentOptimizer(rate), rate, [tf.constant([g])], [v])
            for rate, g, v in ((1.0, 3.0, variables[0]), (2.0, 4.0, variables[1]))
        ]
        train = blocks.update(parts, step, Recipe(clip_norm=1.0))
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(train)
        assert session.run(variables) == [pytest.approx([-0.6]), pytest.approx([-1.6])]


def test_balanced_weights_give_each_class_the_same_part() -> None:
    """A class without an example has no part, and changes no other's."""
    labels = np.array([0, 0, 0, 2])
    for given in (labels, np.eye(4, dtype=np.float32)[labels]):
        recipe = Recipe.of({"class_weights": "balanced", "weight_decay": 0.5}, given, 4)
        assert recipe.class_weights[::2] == pytest.approx((4 / (2 * 3), 4 / (2 * 1)))
        assert len(recipe.class_weights) == 4
        assert recipe.weight_decay == 0.5
    assert Recipe.of({}, labels, 4) == PLAIN


def test_an_average_that_the_model_has_already_is_refused() -> None:
    with tf.Graph().as_default():
        w = blocks.weight("w", [2, 2], tf.compat.v1.zeros_initializer())
        tf.constant(0.0, name="w/ExponentialMovingAverage")
        loss = tf.reduce_sum(w * w)
        optimizer = tf.compat.v1.train.GradientDescentOptimizer(RATE)
        with pytest.raises(TrainingError, match="has a w/ExponentialMovingAverage of its own"):
            blocks.minimize(optimizer, loss, blocks.global_step(), RATE, Recipe(ema_decay=0.9))


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
