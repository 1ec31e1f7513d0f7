"""The linear model against NumPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from models import linear
from models.blocks import ModelGraph

v1 = tf.compat.v1
Array = npt.NDArray[Any]
Trained = tuple[tf.compat.v1.Session, Array, Array, ModelGraph]

X = np.linspace(0, 1, 7, dtype=np.float32)
TARGET = 0.1 * X + 0.2


@pytest.fixture
def trained() -> Iterator[Trained]:
    """A session on a new graph, its initial w and b, and the model."""
    model = linear.build(learning_rate=0.5, seed=5)
    with v1.Session(graph=model.graph) as session:
        session.run([v.initializer for v in model.graph.get_collection("variables")])
        w, b = session.run(["w:0", "b:0"])
        yield session, w, b, model


def test_names_shapes_and_dtypes() -> None:
    graph = linear.build(learning_rate=0.5, seed=0).graph
    expected = {
        "x:0": (tf.float32, [None]),
        "y_:0": (tf.float32, [None]),
        "w:0": (tf.float32, [1]),
        "b:0": (tf.float32, [1]),
        "y:0": (tf.float32, [None]),
        "loss:0": (tf.float32, []),
        "global_step:0": (tf.int64, []),
    }
    for name, (dtype, shape) in expected.items():
        tensor = graph.get_tensor_by_name(name)
        assert (tensor.dtype.base_dtype, tensor.shape.as_list()) == (dtype, shape), name
    assert [t.name for t in graph.get_collection("predict")] == ["y:0"]


def test_initial_values_lie_in_their_ranges() -> None:
    for seed in range(5):
        model = linear.build(learning_rate=0.5, seed=seed)
        with v1.Session(graph=model.graph) as session:
            session.run([v.initializer for v in model.graph.get_collection("variables")])
            w, b, step = session.run(["w:0", "b:0", "global_step:0"])
        assert -20 <= w[0] < 20
        assert -10 <= b[0] < 10
        assert step == 0


def test_prediction_and_loss(trained: Trained) -> None:
    session, w, b, _ = trained
    y, loss = session.run(["y:0", "loss:0"], {"x:0": X, "y_:0": TARGET})
    np.testing.assert_allclose(y, w * X + b, rtol=1e-6)
    np.testing.assert_allclose(loss, np.mean((w * X + b - TARGET) ** 2), rtol=1e-5)


def test_one_step_of_gradient_descent(trained: Trained) -> None:
    session, w, b, model = trained
    session.run(model.train_op, dict(zip(model.inputs, (X, TARGET), strict=True)))
    error = w * X + b - TARGET
    new_w, new_b, step = session.run(["w:0", "b:0", "global_step:0"])
    np.testing.assert_allclose(new_w, w - 0.5 * np.mean(2 * error * X), rtol=1e-5)
    np.testing.assert_allclose(new_b, b - 0.5 * np.mean(2 * error), rtol=1e-5)
    assert step == 1
