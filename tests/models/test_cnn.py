"""The convolutional network against NumPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from models import cnn
from models.blocks import ModelGraph

v1 = tf.compat.v1
Array = npt.NDArray[Any]
LEARNING_RATE = 1e-3
SCOPES = ("conv1", "conv2", "fc1", "fc2")


def _convolve(images: Array, w: Array, b: Array) -> Array:
    """3x3, SAME: each output is the sum over the nine shifted views."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    views = (padded[:, i : i + height, j : j + width] @ w[i, j] for i in range(3) for j in range(3))
    convolved: Array = sum(views) + b
    return convolved


def _pool(images: Array) -> Array:
    """3x3 maxima with stride 3; SAME pads the odd row before and the odd one after."""
    height, width = (-(-size // 3) * 3 for size in images.shape[1:3])
    extra = height - images.shape[1], width - images.shape[2]
    pads = [(0, 0), *((e // 2, e - e // 2) for e in extra), (0, 0)]
    padded = np.pad(images, pads, constant_values=-np.inf)
    blocks = padded.reshape(len(images), height // 3, 3, width // 3, 3, -1)
    maxima: Array = blocks.max(axis=(2, 4))
    return maxima


def _forward(images: Array, variables: dict[str, Array]) -> tuple[Array, Array]:
    """The features after fc1, [N, 128], and the logits, [N, K], in double precision."""
    v = {name: value.astype(np.float64) for name, value in variables.items()}
    hidden = images.astype(np.float64)
    for scope in ("conv1", "conv2"):
        convolved = _convolve(hidden, v[f"{scope}/w"], v[f"{scope}/b"])
        hidden = _pool(np.maximum(convolved, 0))
    flat = hidden.reshape(len(images), -1)
    features = np.maximum(flat @ v["fc1/w"] + v["fc1/b"], 0)
    return features, features @ v["fc2/w"] + v["fc2/b"]


def _softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


@pytest.fixture(scope="module")
def images() -> Array:
    return np.random.default_rng(1).random((6, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def labels() -> Array:
    return np.array([0, 1, 2, 3, 1, 0])


@pytest.fixture
def model() -> ModelGraph:
    return cnn.build(num_classes=4, learning_rate=LEARNING_RATE, seed=2)


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
        "x:0": (tf.float32, [None, 32, 32, 3]),
        "y_:0": (tf.int64, [None]),
        "keep_prob:0": (tf.float32, []),
        "conv1/w:0": (tf.float32, [3, 3, 3, 32]),
        "conv1/b:0": (tf.float32, [32]),
        "conv2/w:0": (tf.float32, [3, 3, 32, 64]),
        "conv2/b:0": (tf.float32, [64]),
        "fc1/w:0": (tf.float32, [1024, 128]),
        "fc1/b:0": (tf.float32, [128]),
        "fc2/w:0": (tf.float32, [128, 4]),
        "fc2/b:0": (tf.float32, [4]),
        "fc2/add:0": (tf.float32, [None, 4]),
        "probabilities:0": (tf.float32, [None, 4]),
        "classes:0": (tf.int64, [None]),
        "y_labels:0": (tf.float32, [None, 4]),
        "acc:0": (tf.float32, []),
        "loss:0": (tf.float32, []),
        "global_step:0": (tf.int64, []),
    }
    for name, (dtype, shape) in expected.items():
        tensor = model.graph.get_tensor_by_name(name)
        assert (tensor.dtype.base_dtype, tensor.shape.as_list()) == (dtype, shape), name
    assert [t.name for t in model.graph.get_collection("predict")] == ["fc2/add:0"]


@pytest.mark.parametrize(("num_classes", "parameters"), [(4, 151_108), (2, 150_850)])
def test_number_of_parameters(num_classes: int, parameters: int) -> None:
    graph = cnn.build(num_classes=num_classes, learning_rate=LEARNING_RATE, seed=0).graph
    trainable = graph.get_collection("trainable_variables")
    assert sum(v.shape.num_elements() for v in trainable) == parameters


def test_initial_values(session: tf.compat.v1.Session) -> None:
    variables = _variables(session)
    weights = [variables[f"{scope}/w"] for scope in SCOPES]
    for weight in weights:
        assert np.abs(weight).max() <= 0.2
        assert weight.std() == pytest.approx(0.088, rel=0.1)
    assert len({weight.flat[0] for weight in weights}) == 4
    assert all(np.all(variables[f"{s}/b"] == np.float32(0.1)) for s in SCOPES)


def test_outputs(session: tf.compat.v1.Session, images: Array, labels: Array) -> None:
    _, logits = _forward(images, _variables(session))
    names = ["fc2/add:0", "probabilities:0", "classes:0", "y_labels:0", "acc:0", "loss:0"]
    found = dict(zip(names, session.run(names, {"x:0": images, "y_:0": labels}), strict=True))
    np.testing.assert_allclose(found["fc2/add:0"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["probabilities:0"], _softmax(logits), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found["classes:0"], logits.argmax(axis=1))
    np.testing.assert_array_equal(found["y_labels:0"], np.eye(4)[labels])
    assert found["acc:0"] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))
    cross_entropy = -np.log(_softmax(logits)[np.arange(len(labels)), labels]).mean()
    assert found["loss:0"] == pytest.approx(cross_entropy, rel=1e-4)


def test_one_step_of_adam_on_the_last_layer(
    session: tf.compat.v1.Session, model: ModelGraph, images: Array, labels: Array
) -> None:
    """The gradient of fc2 in closed form; Adam's first step is lr * g / (|g| + eps)."""
    before = _variables(session)
    features, logits = _forward(images, before)
    feeds = dict(zip(model.inputs, (images, labels), strict=True))
    session.run(model.train_op, feeds | dict.fromkeys(model.training_feeds, 1.0))
    after = _variables(session)

    error = (_softmax(logits) - np.eye(4)[labels]) / len(labels)  # [N, K]
    for name, gradient in (("fc2/w", features.T @ error), ("fc2/b", error.sum(axis=0))):
        # TensorFlow's epsilon stands outside the bias correction (Kingma and Ba, section 2).
        step = LEARNING_RATE * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1 - 0.999))
        np.testing.assert_allclose(after[name], before[name] - step, atol=2e-6)
    assert session.run("global_step:0") == 1
    assert not np.array_equal(before["conv1/w"], after["conv1/w"])


def test_dropout_is_off_unless_it_is_fed(session: tf.compat.v1.Session, images: Array) -> None:
    plain = session.run("fc2/add:0", {"x:0": images})
    again, dropped = (
        session.run("fc2/add:0", {"x:0": images, "keep_prob:0": keep}) for keep in (1.0, 0.5)
    )
    assert plain.tobytes() == again.tobytes()
    assert not np.array_equal(plain, dropped)


def test_masks_follow_from_the_step(
    session: tf.compat.v1.Session, model: ModelGraph, images: Array
) -> None:
    """Two sessions at the same step draw the same mask; the next step draws another."""

    def run(target: tf.compat.v1.Session) -> Array:
        dropped: Array = target.run("fc2/add:0", {"x:0": images, "keep_prob:0": 0.5})
        return dropped

    first = run(session)
    with v1.Session(graph=model.graph) as other:
        other.run([v.initializer for v in model.graph.get_collection("variables")])
        assert run(other).tobytes() == first.tobytes()
        assign = model.graph.get_operation_by_name("global_step/Assign")
        other.run(assign, {assign.inputs[1]: 1})
        assert run(other).tobytes() != first.tobytes()
