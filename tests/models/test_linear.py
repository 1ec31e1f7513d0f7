"""The linear model against NumPy."""

import numpy as np

from models import linear
from tests.models.numpy_models import check_tensors, new_session, train

X = np.linspace(0, 1, 7, dtype=np.float32)
TARGET = 0.1 * X + 0.2


def test_names_shapes_and_dtypes() -> None:
    expected = """
    x float32 None
    y_ float32 None
    w float32 1
    b float32 1
    y float32 None
    loss float32
    global_step int64
    """
    check_tensors(linear.build(learning_rate=0.5, seed=0), expected, "y")


def test_initial_values_lie_in_their_ranges() -> None:
    for seed in range(5):
        with new_session(linear.build(learning_rate=0.5, seed=seed)) as session:
            w, b, step = session.run(["w:0", "b:0", "global_step:0"])
        assert -20 <= w[0] < 20
        assert -10 <= b[0] < 10
        assert step == 0


def test_prediction_loss_and_one_step_of_gradient_descent() -> None:
    model = linear.build(learning_rate=0.5, seed=5)
    with new_session(model) as session:
        w, b, y, loss = session.run(["w:0", "b:0", "y:0", "loss:0"], {"x:0": X, "y_:0": TARGET})
        np.testing.assert_allclose(y, w * X + b, rtol=1e-6)
        error = w * X + b - TARGET
        np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-5)
        train(session, model, X, TARGET)
        new_w, new_b, step = session.run(["w:0", "b:0", "global_step:0"])
    np.testing.assert_allclose(new_w, w - 0.5 * np.mean(2 * error * X), rtol=1e-5)
    np.testing.assert_allclose(new_b, b - 0.5 * np.mean(2 * error), rtol=1e-5)
    assert step == 1
