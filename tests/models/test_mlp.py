"""The perceptron against NumPy."""

from collections.abc import Iterator

import numpy as np
import pytest

from models import mlp
from models.blocks import ModelGraph
from tests.models.numpy_models import (
    Array,
    Session,
    check_tensors,
    new_session,
    softmax,
    train,
    trainable,
)

LEARNING_RATE = 1e-3
LABELS = np.array([3, 0, 9, 3, 1, 7])
ONE_HOT = np.eye(10, dtype=np.float32)[LABELS]
IMAGES = np.random.default_rng(1).random((6, 784)).astype(np.float32)


def _forward(images: Array, variables: dict[str, Array]) -> tuple[Array, Array]:
    """The second hidden layer, [N, 625], and the logits, [N, 10], in double precision."""
    v = {name: value.astype(np.float64) for name, value in variables.items()}
    hidden: Array = np.maximum(np.maximum(images @ v["w_h"], 0) @ v["w_h2"], 0)
    return hidden, hidden @ v["w_o"]


@pytest.fixture
def model() -> ModelGraph:
    return mlp.build(learning_rate=LEARNING_RATE, seed=2)


@pytest.fixture
def session(model: ModelGraph) -> Iterator[Session]:
    with new_session(model) as session:
        yield session


def test_names_shapes_and_dtypes(model: ModelGraph) -> None:
    expected = """
    X float32 None 784
    Y float32 None 10
    p_keep_input float32
    p_keep_hidden float32
    w_h float32 784 625
    w_h2 float32 625 625
    w_o float32 625 10
    logits float32 None 10
    probabilities float32 None 10
    predict_op int64 None
    acc float32
    loss float32
    global_step int64
    """
    check_tensors(model, expected, "logits")


def test_number_of_parameters(model: ModelGraph) -> None:
    variables = model.graph.get_collection("trainable_variables")
    assert [v.op.name for v in variables] == ["w_h", "w_h2", "w_o"]  # No biases.
    assert sum(v.shape.num_elements() for v in variables) == 886_875


def test_initial_values(session: Session) -> None:
    variables = trainable(session)
    for weight in variables.values():
        assert weight.std() == pytest.approx(0.01, rel=0.03)
        assert abs(weight.mean()) < 5e-4
    assert np.abs(variables["w_h"]).max() > 0.03  # Not cut at two standard deviations.
    assert len({weight.flat[0] for weight in variables.values()}) == 3


def test_outputs(session: Session) -> None:
    _, logits = _forward(IMAGES, trainable(session))
    names = ["logits:0", "probabilities:0", "predict_op:0", "acc:0", "loss:0"]
    found = dict(zip(names, session.run(names, {"X:0": IMAGES, "Y:0": ONE_HOT}), strict=True))
    np.testing.assert_allclose(found["logits:0"], logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["probabilities:0"], softmax(logits), rtol=1e-4)
    np.testing.assert_array_equal(found["predict_op:0"], logits.argmax(axis=1))
    assert found["acc:0"] == pytest.approx(np.mean(logits.argmax(axis=1) == LABELS))
    cross_entropy = -np.log(softmax(logits)[np.arange(len(LABELS)), LABELS]).mean()
    assert found["loss:0"] == pytest.approx(cross_entropy, rel=1e-5)


def test_labels_may_be_shares_of_classes(session: Session) -> None:
    _, logits = _forward(IMAGES, trainable(session))
    shares = np.random.default_rng(3).dirichlet(np.ones(10), len(IMAGES)).astype(np.float32)
    found = session.run("loss:0", {"X:0": IMAGES, "Y:0": shares})
    expected = -(shares * np.log(softmax(logits))).sum(axis=1).mean()
    assert found == pytest.approx(expected, rel=1e-5)


def test_one_step_of_rmsprop_on_the_last_layer(session: Session, model: ModelGraph) -> None:
    """The gradient of w_o in closed form; TensorFlow's mean square starts at one."""
    before = trainable(session)
    hidden, logits = _forward(IMAGES, before)
    train(session, model, IMAGES, ONE_HOT)
    after = trainable(session)

    gradient = hidden.T @ (softmax(logits) - ONE_HOT) / len(ONE_HOT)
    step = LEARNING_RATE * gradient / np.sqrt(0.9 * 1.0 + 0.1 * gradient**2 + 1e-10)
    assert np.abs(step).max() > 1e-5
    np.testing.assert_allclose(after["w_o"], before["w_o"] - step, rtol=0, atol=1e-8)
    assert session.run("global_step:0") == 1
    assert not np.array_equal(before["w_h"], after["w_h"])


def test_dropout_is_for_training(model: ModelGraph) -> None:
    feeds = {tensor.name: value for tensor, value in model.training_feeds.items()}
    assert feeds == {"p_keep_input:0": 0.8, "p_keep_hidden:0": 0.5}


@pytest.mark.parametrize("switch", ["p_keep_input:0", "p_keep_hidden:0"])
def test_dropout_is_off_unless_it_is_fed(session: Session, switch: str) -> None:
    plain = session.run("logits:0", {"X:0": IMAGES})
    again, dropped, the_same = (
        session.run("logits:0", {"X:0": IMAGES, switch: keep}) for keep in (1.0, 0.5, 0.5)
    )
    assert plain.tobytes() == again.tobytes()
    assert not np.array_equal(plain, dropped)
    assert dropped.tobytes() == the_same.tobytes()  # It follows from the step.


def test_dropout_goes_before_each_layer(session: Session) -> None:
    """With nothing kept of the pixels, or of the units, no logit is left; masks are unlike."""
    ones = np.ones((50, 784), np.float32)
    for switch in ("p_keep_input:0", "p_keep_hidden:0"):
        assert not session.run("logits:0", {"X:0": ones, switch: 1e-30}).any()
    masked = session.run("logits:0", {"X:0": ones, "p_keep_input:0": 0.8})
    assert len(np.unique(masked[:, 0])) == 50
