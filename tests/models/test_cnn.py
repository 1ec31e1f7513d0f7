"""The convolutional network against NumPy."""

from collections.abc import Iterator

import numpy as np
import pytest

from models import cnn
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
SCOPES = ("conv1", "conv2", "fc1", "fc2")
IMAGES = np.random.default_rng(1).random((6, 32, 32, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 1, 0])


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


@pytest.fixture
def model() -> ModelGraph:
    return cnn.build(num_classes=4, learning_rate=LEARNING_RATE, seed=2)


@pytest.fixture
def session(model: ModelGraph) -> Iterator[Session]:
    with new_session(model) as session:
        yield session


def test_names_shapes_and_dtypes(model: ModelGraph) -> None:
    expected = """
    x float32 None 32 32 3
    y_ int64 None
    keep_prob float32
    conv1/w float32 3 3 3 32
    conv1/b float32 32
    conv2/w float32 3 3 32 64
    conv2/b float32 64
    fc1/w float32 1024 128
    fc1/b float32 128
    fc2/w float32 128 4
    fc2/b float32 4
    fc2/add float32 None 4
    probabilities float32 None 4
    classes int64 None
    y_labels float32 None 4
    acc float32
    loss float32
    global_step int64
    """
    check_tensors(model, expected, "fc2/add")


@pytest.mark.parametrize(("num_classes", "parameters"), [(4, 151_108), (2, 150_850)])
def test_number_of_parameters(num_classes: int, parameters: int) -> None:
    graph = cnn.build(num_classes=num_classes, learning_rate=LEARNING_RATE, seed=0).graph
    variables = graph.get_collection("trainable_variables")
    assert sum(v.shape.num_elements() for v in variables) == parameters


def test_initial_values(session: Session) -> None:
    variables = trainable(session)
    weights = [variables[f"{scope}/w"] for scope in SCOPES]
    for weight in weights:
        assert np.abs(weight).max() <= 0.2
        assert weight.std() == pytest.approx(0.088, rel=0.1)
    assert len({weight.flat[0] for weight in weights}) == 4
    assert all(np.all(variables[f"{s}/b"] == np.float32(0.1)) for s in SCOPES)


def test_outputs(session: Session) -> None:
    _, logits = _forward(IMAGES, trainable(session))
    names = ["fc2/add:0", "probabilities:0", "classes:0", "y_labels:0", "acc:0", "loss:0"]
    found = dict(zip(names, session.run(names, {"x:0": IMAGES, "y_:0": LABELS}), strict=True))
    np.testing.assert_allclose(found["fc2/add:0"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["probabilities:0"], softmax(logits), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found["classes:0"], logits.argmax(axis=1))
    np.testing.assert_array_equal(found["y_labels:0"], np.eye(4)[LABELS])
    assert found["acc:0"] == pytest.approx(np.mean(logits.argmax(axis=1) == LABELS))
    cross_entropy = -np.log(softmax(logits)[np.arange(len(LABELS)), LABELS]).mean()
    assert found["loss:0"] == pytest.approx(cross_entropy, rel=1e-4)


def test_one_step_of_adam_on_the_last_layer(session: Session, model: ModelGraph) -> None:
    """The gradient of fc2 in closed form; Adam's first step is lr * g / (|g| + eps)."""
    before = trainable(session)
    features, logits = _forward(IMAGES, before)
    train(session, model, IMAGES, LABELS)
    after = trainable(session)

    error = (softmax(logits) - np.eye(4)[LABELS]) / len(LABELS)  # [N, K]
    for name, gradient in (("fc2/w", features.T @ error), ("fc2/b", error.sum(axis=0))):
        # TensorFlow's epsilon stands outside the bias correction (Kingma and Ba, section 2).
        step = LEARNING_RATE * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1 - 0.999))
        np.testing.assert_allclose(after[name], before[name] - step, atol=2e-6)
    assert session.run("global_step:0") == 1
    assert not np.array_equal(before["conv1/w"], after["conv1/w"])


def test_dropout_is_off_unless_it_is_fed(session: Session) -> None:
    plain = session.run("fc2/add:0", {"x:0": IMAGES})
    again, dropped = (
        session.run("fc2/add:0", {"x:0": IMAGES, "keep_prob:0": keep}) for keep in (1.0, 0.5)
    )
    assert plain.tobytes() == again.tobytes()
    assert not np.array_equal(plain, dropped)


def test_masks_follow_from_the_step(session: Session, model: ModelGraph) -> None:
    """Two sessions at the same step draw the same mask; the next step draws another."""

    def run(target: Session) -> Array:
        dropped: Array = target.run("fc2/add:0", {"x:0": IMAGES, "keep_prob:0": 0.5})
        return dropped

    first = run(session)
    with new_session(model) as other:
        assert run(other).tobytes() == first.tobytes()
        assign = model.graph.get_operation_by_name("global_step/Assign")
        other.run(assign, {assign.inputs[1]: 1})
        assert run(other).tobytes() != first.tobytes()
