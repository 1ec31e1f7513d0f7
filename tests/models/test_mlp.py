"""The perceptron against NumPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from models import mlp
from models.blocks import ModelGraph

v1 = tf.compat.v1
Array = npt.NDArray[Any]
LEARNING_RATE = 1e-3
LABELS = np.array([3, 0, 9, 3, 1, 7])


def _forward(images: Array, variables: dict[str, Array]) -> tuple[Array, Array]:
    """The second hidden layer, [N, 625], and the logits, [N, 10], in double precision."""
    v = {name: value.astype(np.float64) for name, value in variables.items()}
    hidden: Array = np.maximum(np.maximum(images @ v["w_h"], 0) @ v["w_h2"], 0)
    return hidden, hidden @ v["w_o"]


def _softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


@pytest.fixture(scope="module")
def images() -> Array:
    return np.random.default_rng(1).random((6, 784)).astype(np.float32)


@pytest.fixture(scope="module")
def labels() -> Array:
    one_hot: Array = np.eye(10, dtype=np.float32)[LABELS]
    return one_hot


@pytest.fixture
def model() -> ModelGraph:
    return mlp.build(learning_rate=LEARNING_RATE, seed=2)


@pytest.fixture
def session(model: ModelGraph) -> Iterator[tf.compat.v1.Session]:
    with v1.Session(graph=model.graph) as session:
        session.run([v.initializer for v in model.graph.get_collection("variables")])
        yield session


def _variables(session: tf.compat.v1.Session) -> dict[str, Array]:
    trainable = session.graph.get_collection("trainable_variables")
    return {v.op.name: session.run(v.name) for v in trainable}


def test_names_shapes_and_dtypes(model: ModelGraph) -> None:
    expected = {
        "X:0": (tf.float32, [None, 784]),
        "Y:0": (tf.float32, [None, 10]),
        "p_keep_input:0": (tf.float32, []),
        "p_keep_hidden:0": (tf.float32, []),
        "w_h:0": (tf.float32, [784, 625]),
        "w_h2:0": (tf.float32, [625, 625]),
        "w_o:0": (tf.float32, [625, 10]),
        "logits:0": (tf.float32, [None, 10]),
        "probabilities:0": (tf.float32, [None, 10]),
        "predict_op:0": (tf.int64, [None]),
        "acc:0": (tf.float32, []),
        "loss:0": (tf.float32, []),
        "global_step:0": (tf.int64, []),
    }
    for name, (dtype, shape) in expected.items():
        tensor = model.graph.get_tensor_by_name(name)
        assert (tensor.dtype.base_dtype, tensor.shape.as_list()) == (dtype, shape), name
    assert [t.name for t in model.graph.get_collection("predict")] == ["logits:0"]


def test_number_of_parameters(model: ModelGraph) -> None:
    trainable = model.graph.get_collection("trainable_variables")
    assert [v.op.name for v in trainable] == ["w_h", "w_h2", "w_o"]  # No biases.
    assert sum(v.shape.num_elements() for v in trainable) == 886_875


def test_initial_values(session: tf.compat.v1.Session) -> None:
    variables = _variables(session)
    for weight in variables.values():
        assert weight.std() == pytest.approx(0.01, rel=0.03)
        assert abs(weight.mean()) < 5e-4
    assert np.abs(variables["w_h"]).max() > 0.03  # Not cut at two standard deviations.
    assert len({weight.flat[0] for weight in variables.values()}) == 3


def test_outputs(session: tf.compat.v1.Session, images: Array, labels: Array) -> None:
    _, logits = _forward(images, _variables(session))
    names = ["logits:0", "probabilities:0", "predict_op:0", "acc:0", "loss:0"]
    found = dict(zip(names, session.run(names, {"X:0": images, "Y:0": labels}), strict=True))
    np.testing.assert_allclose(found["logits:0"], logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["probabilities:0"], _softmax(logits), rtol=1e-4)
    np.testing.assert_array_equal(found["predict_op:0"], logits.argmax(axis=1))
    assert found["acc:0"] == pytest.approx(np.mean(logits.argmax(axis=1) == LABELS))
    cross_entropy = -np.log(_softmax(logits)[np.arange(len(LABELS)), LABELS]).mean()
    assert found["loss:0"] == pytest.approx(cross_entropy, rel=1e-5)


def test_labels_may_be_shares_of_classes(session: tf.compat.v1.Session, images: Array) -> None:
    _, logits = _forward(images, _variables(session))
    shares = np.random.default_rng(3).dirichlet(np.ones(10), len(images)).astype(np.float32)
    found = session.run("loss:0", {"X:0": images, "Y:0": shares})
    expected = -(shares * np.log(_softmax(logits))).sum(axis=1).mean()
    assert found == pytest.approx(expected, rel=1e-5)


def test_one_step_of_rmsprop_on_the_last_layer(
    session: tf.compat.v1.Session, model: ModelGraph, images: Array, labels: Array
) -> None:
    """The gradient of w_o in closed form; TensorFlow's mean square starts at one."""
    before = _variables(session)
    hidden, logits = _forward(images, before)
    feeds = dict(zip(model.inputs, (images, labels), strict=True))
    session.run(model.train_op, feeds | dict.fromkeys(model.training_feeds, 1.0))
    after = _variables(session)

    gradient = hidden.T @ (_softmax(logits) - labels) / len(labels)
    step = LEARNING_RATE * gradient / np.sqrt(0.9 * 1.0 + 0.1 * gradient**2 + 1e-10)
    assert np.abs(step).max() > 1e-5
    np.testing.assert_allclose(after["w_o"], before["w_o"] - step, rtol=0, atol=1e-8)
    assert session.run("global_step:0") == 1
    assert not np.array_equal(before["w_h"], after["w_h"])


def test_dropout_is_for_training(model: ModelGraph) -> None:
    feeds = {tensor.name: value for tensor, value in model.training_feeds.items()}
    assert feeds == {"p_keep_input:0": 0.8, "p_keep_hidden:0": 0.5}


@pytest.mark.parametrize("switch", ["p_keep_input:0", "p_keep_hidden:0"])
def test_dropout_is_off_unless_it_is_fed(
    session: tf.compat.v1.Session, images: Array, switch: str
) -> None:
    plain = session.run("logits:0", {"X:0": images})
    again, dropped, the_same = (
        session.run("logits:0", {"X:0": images, switch: keep}) for keep in (1.0, 0.5, 0.5)
    )
    assert plain.tobytes() == again.tobytes()
    assert not np.array_equal(plain, dropped)
    assert dropped.tobytes() == the_same.tobytes()  # It follows from the step.


def test_dropout_goes_before_each_layer(session: tf.compat.v1.Session) -> None:
    """With nothing kept of the pixels, or of the units, no logit is left; masks are unlike."""
    ones = np.ones((50, 784), np.float32)
    for switch in ("p_keep_input:0", "p_keep_hidden:0"):
        assert not session.run("logits:0", {"X:0": ones, switch: 1e-30}).any()
    masked = session.run("logits:0", {"X:0": ones, "p_keep_input:0": 0.8})
    assert len(np.unique(masked[:, 0])) == 50
