"""The two heads against NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from models import head

Array = npt.NDArray[Any]


def _run(kind: str, features: Array, seed: int = 0) -> list[Array]:
    """The logits, probabilities, classes, w and b on these features."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(tf.float32, [None, *features.shape[1:]])
        with tf.compat.v1.variable_scope("head"):
            head.build(kind, fed, 3, seed)
        session.run(tf.compat.v1.global_variables_initializer())
        names = ("add", "probabilities", "classes", "w", "b")
        return list(session.run([f"head/{name}:0" for name in names], {fed: features}))


@pytest.mark.parametrize("shape", [(5, 4, 2, 3), (5, 24), (5,)])
def test_dense_is_a_matrix_of_all_features(shape: tuple[int, ...]) -> None:
    features = np.random.default_rng(0).random(shape, np.float32)
    logits, probabilities, classes, w, b = _run(head.DENSE, features)
    expected = features.reshape(5, -1) @ w + b
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    shares = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, shares, rtol=1e-5)
    np.testing.assert_array_equal(classes, expected.argmax(axis=1))
    assert classes.dtype == np.int64
    assert b.tolist() == [0, 0, 0]


def test_conv_is_the_mean_of_a_matrix_at_each_position() -> None:
    features = np.random.default_rng(0).random((5, 4, 2, 8), np.float32)
    logits, _, _, w, b = _run(head.CONV, features)
    assert w.shape == (1, 1, 8, 3)
    np.testing.assert_allclose(
        logits, (features @ w[0, 0] + b).mean(axis=(1, 2)), rtol=1e-5, atol=1e-6
    )


def test_weights_follow_from_the_seed_and_are_as_large_as_their_number_asks_for() -> None:
    features = np.zeros((1, 4096), np.float32)
    first, again, other = (_run(head.DENSE, features, seed)[3] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # Cut off at two standard deviations, a normal has 0.88 of its own.
    np.testing.assert_allclose(first.std() * 64, 0.88, atol=0.02)
