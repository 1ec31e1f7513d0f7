"""The convolutional network and the perceptron against NumPy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from models import cnn, mlp
from models.blocks import ModelGraph

Array = npt.NDArray[Any]
Session: TypeAlias = tf.compat.v1.Session

LEARNING_RATE = 1e-3
RNG = np.random.default_rng(1)


@contextmanager
def new_session(model: ModelGraph) -> Iterator[Session]:
    """A session in which all variables have their initial values."""
    with Session(graph=model.graph) as session:
        session.run([v.initializer for v in model.graph.get_collection("variables")])
        yield session


def trainable(session: Session) -> dict[str, Array]:
    """The values of the trainable variables, by name."""
    variables = session.graph.get_collection("trainable_variables")
    return {v.op.name: session.run(v.name) for v in variables}


def train(session: Session, model: ModelGraph, *batch: Array) -> None:
    """One step without dropout."""
    feeds = dict(zip(model.inputs, batch, strict=True))
    session.run(model.train_op, feeds | dict.fromkeys(model.training_feeds, 1.0))


def softmax(logits: Array) -> Array:
    """Of each row."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


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


def _forward_cnn(images: Array, v: dict[str, Array]) -> tuple[Array, Array]:
    hidden = images
    for scope in ("conv1", "conv2"):
        hidden = _pool(np.maximum(_convolve(hidden, v[f"{scope}/w"], v[f"{scope}/b"]), 0))
    flat = hidden.reshape(len(images), -1)
    features = np.maximum(flat @ v["fc1/w"] + v["fc1/b"], 0)
    return features, features @ v["fc2/w"] + v["fc2/b"]


def _forward_mlp(images: Array, v: dict[str, Array]) -> tuple[Array, Array]:
    hidden: Array = np.maximum(np.maximum(images @ v["w_h"], 0) @ v["w_h2"], 0)
    return hidden, hidden @ v["w_o"]


def _adam(gradient: Array) -> Array:
    # TensorFlow's epsilon stands outside the bias correction (Kingma and Ba, section 2).
    step: Array = LEARNING_RATE * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1 - 0.999))
    return step


def _rms_prop(gradient: Array) -> Array:
    # TensorFlow's mean square starts at one.
    step: Array = LEARNING_RATE * gradient / np.sqrt(0.9 * 1.0 + 0.1 * gradient**2 + 1e-10)
    return step


class Case(NamedTuple):
    """A model, and what it should be."""

    build: Callable[[], ModelGraph]
    tensors: str  # Names, dtypes and shapes, each a line such as `x float32 None 32`.
    parameters: int
    images: Array
    labels: Array  # As they are fed.
    classes: Array
    names: tuple[str, ...]  # Of images, labels, logits and classes.
    switches: dict[str, float]  # The keep probabilities in training.
    forward: Callable[[Array, dict[str, Array]], tuple[Array, Array]]  # The last features, logits.
    first_step: Callable[[Array], Array]
    last_layer: tuple[str, ...]  # Its weights and perhaps biases.
    tolerance: float  # Of the first step.


CNN_CLASSES, MLP_CLASSES = np.array([0, 1, 2, 3, 1, 0]), np.array([3, 0, 9, 3, 1, 7])
CNN = Case(
    build=lambda: cnn.build(num_classes=4, learning_rate=LEARNING_RATE, seed=2),
    tensors="""
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
    """,
    parameters=151_108,
    images=RNG.random((6, 32, 32, 3)).astype(np.float32),
    labels=CNN_CLASSES,
    classes=CNN_CLASSES,
    names=("x:0", "y_:0", "fc2/add:0", "classes:0"),
    switches={"keep_prob:0": 0.5},
    forward=_forward_cnn,
    first_step=_adam,
    last_layer=("fc2/w", "fc2/b"),
    tolerance=2e-6,
)
MLP = Case(
    build=lambda: mlp.build(learning_rate=LEARNING_RATE, seed=2),
    tensors="""
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
    """,
    parameters=886_875,
    images=RNG.random((6, 784)).astype(np.float32),
    labels=np.eye(10, dtype=np.float32)[MLP_CLASSES],
    classes=MLP_CLASSES,
    names=("X:0", "Y:0", "logits:0", "predict_op:0"),
    switches={"p_keep_input:0": 0.8, "p_keep_hidden:0": 0.5},
    forward=_forward_mlp,
    first_step=_rms_prop,
    last_layer=("w_o",),
    tolerance=1e-8,
)
BOTH = pytest.mark.parametrize("case", [CNN, MLP], ids=["cnn", "mlp"])


@pytest.fixture
def model(case: Case) -> ModelGraph:
    return case.build()


@pytest.fixture
def session(model: ModelGraph) -> Iterator[Session]:
    with new_session(model) as session:
        yield session


@BOTH
def test_names_shapes_dtypes_and_number_of_parameters(case: Case, model: ModelGraph) -> None:
    for line in case.tensors.strip().splitlines():
        name, dtype, *shape = line.split()
        tensor = model.graph.get_tensor_by_name(f"{name}:0")
        found = [str(size) for size in tensor.shape.as_list()]
        assert (tensor.dtype.base_dtype.name, found) == (dtype, shape), name
    assert [t.name for t in model.graph.get_collection("predict")] == [case.names[2]]
    variables = model.graph.get_collection("trainable_variables")
    assert sum(v.shape.num_elements() for v in variables) == case.parameters
    feeds = {tensor.name: value for tensor, value in model.training_feeds.items()}
    assert feeds == case.switches


@pytest.mark.parametrize("case", [CNN])
def test_initial_values_of_the_cnn(session: Session) -> None:
    variables = trainable(session)
    for name, value in variables.items():
        if name.endswith("/w"):
            assert np.abs(value).max() <= 0.2
            assert value.std() == pytest.approx(0.088, rel=0.1)
        else:
            assert np.all(value == np.float32(0.1))
    assert len({value.flat[0] for value in variables.values()}) == 4 + 1  # The biases are alike.


@pytest.mark.parametrize("case", [MLP])
def test_initial_values_of_the_perceptron(session: Session) -> None:
    variables = trainable(session)
    assert [*variables] == ["w_h", "w_h2", "w_o"]  # No biases.
    for weight in variables.values():
        assert weight.std() == pytest.approx(0.01, rel=0.03)
        assert abs(weight.mean()) < 5e-4
    assert np.abs(variables["w_h"]).max() > 0.03  # Not cut at two standard deviations.
    assert len({weight.flat[0] for weight in variables.values()}) == 3


def _forward(case: Case, variables: dict[str, Array]) -> tuple[Array, Array]:
    """The features before the last layer, and the logits, in double precision."""
    values = {name: value.astype(np.float64) for name, value in variables.items()}
    return case.forward(case.images.astype(np.float64), values)


@BOTH
def test_outputs(case: Case, session: Session) -> None:
    _, logits = _forward(case, trainable(session))
    x, y, logits_name, classes_name = case.names
    names = [logits_name, "probabilities:0", classes_name, "acc:0", "loss:0"]
    fed = {x: case.images, y: case.labels}
    found, probabilities, classes, accuracy, loss = session.run(names, fed)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4 if case is CNN else 1e-6)
    np.testing.assert_allclose(probabilities, softmax(logits), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(classes, logits.argmax(axis=1))
    assert accuracy == pytest.approx(np.mean(logits.argmax(axis=1) == case.classes))
    cross_entropy = -np.log(softmax(logits)[np.arange(6), case.classes]).mean()
    assert loss == pytest.approx(cross_entropy, rel=1e-4 if case is CNN else 1e-5)
    if case is CNN:
        np.testing.assert_array_equal(session.run("y_labels:0", fed), np.eye(4)[CNN_CLASSES])


@pytest.mark.parametrize("case", [MLP])
def test_labels_may_be_shares_of_classes(case: Case, session: Session) -> None:
    _, logits = _forward(case, trainable(session))
    shares = np.random.default_rng(3).dirichlet(np.ones(10), 6).astype(np.float32)
    found = session.run("loss:0", {"X:0": case.images, "Y:0": shares})
    assert found == pytest.approx(-(shares * np.log(softmax(logits))).sum(axis=1).mean(), rel=1e-5)


@BOTH
def test_one_step_on_the_last_layer(case: Case, session: Session, model: ModelGraph) -> None:
    """Its gradient in closed form."""
    before = trainable(session)
    features, logits = _forward(case, before)
    train(session, model, case.images, case.labels)
    after = trainable(session)
    error = (softmax(logits) - np.eye(logits.shape[1])[case.classes]) / 6  # [N, K]
    gradients = (features.T @ error, error.sum(axis=0))
    for name, gradient in zip(case.last_layer, gradients, strict=False):
        step = case.first_step(gradient)
        assert np.abs(step).max() > 1e-5
        np.testing.assert_allclose(after[name], before[name] - step, rtol=0, atol=case.tolerance)
    assert session.run("global_step:0") == 1
    assert not any(np.array_equal(before[name], after[name]) for name in before)


@BOTH
def test_dropout_follows_feed_and_step(case: Case, session: Session, model: ModelGraph) -> None:
    x, _, logits, _ = case.names

    def run(target: Session, **feeds: float) -> bytes:
        fed = {f"{name}:0": value for name, value in feeds.items()}
        return bytes(target.run(logits, {x: case.images, **fed}).tobytes())

    for switch in (name.removesuffix(":0") for name in case.switches):
        assert run(session) == run(session, **{switch: 1.0})
        dropped = run(session, **{switch: 0.5})
        assert dropped == run(session, **{switch: 0.5}) != run(session)
        with new_session(model) as other:
            assert run(other, **{switch: 0.5}) == dropped
            assign = model.graph.get_operation_by_name("global_step/Assign")
            other.run(assign, {assign.inputs[1]: 1})
            assert run(other, **{switch: 0.5}) != dropped


@pytest.mark.parametrize("case", [MLP])
def test_dropout_goes_before_each_layer(session: Session) -> None:
    """With nothing kept of the pixels, or of the units, no logit is left; masks are unlike."""
    ones = np.ones((50, 784), np.float32)
    for switch in ("p_keep_input:0", "p_keep_hidden:0"):
        assert not session.run("logits:0", {"X:0": ones, switch: 1e-30}).any()
    masked = session.run("logits:0", {"X:0": ones, "p_keep_input:0": 0.8})
    assert len(np.unique(masked[:, 0])) == 50
