"""The session that trains, against `Session.run`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from models import cnn
from models.blocks import ModelGraph
from training.task import GraphSession

Array = npt.NDArray[Any]

BATCH = (
    np.random.default_rng(0).random((6, 32, 32, 3)).astype(np.float32),
    np.array([0, 1, 2, 3, 0, 1]),
)


@pytest.fixture
def model() -> ModelGraph:
    return cnn.build(num_classes=4, learning_rate=1e-3, seed=0)


@pytest.fixture
def session(model: ModelGraph) -> Iterator[GraphSession]:
    with GraphSession(model) as session:
        session.initialize({})
        yield session


def test_a_step_is_the_step_of_session_run(session: GraphSession, model: ModelGraph) -> None:
    """Five steps, with dropout on, in both ways: equal losses, accuracies and bytes."""
    feeds = {**dict(zip(model.inputs, BATCH, strict=True)), **model.training_feeds}
    with tf.compat.v1.Session(graph=model.graph) as plain:
        variables = model.graph.get_collection("variables")
        plain.run([v.initializer for v in variables])
        for _ in range(5):
            *expected, _ = plain.run([model.loss, model.accuracy, model.train_op], feeds)
            assert [*session.train_step(BATCH).values()] == [*map(float, expected)]
        found = session.variables()
        for variable in variables:
            assert found[variable.op.name].tobytes() == plain.run(variable.name).tobytes()


def test_the_accuracy_is_that_of_all_examples_however_they_fall_into_batches(
    session: GraphSession, model: ModelGraph
) -> None:
    """With dropout off, and to the last bit, though in float32 no batch's accuracy is exact."""
    x, y = np.tile(BATCH[0], (5, 1, 1, 1)), np.tile(BATCH[1], 5)
    y[:7] = _classes(session, model, x)[:7]
    splits = (
        [(x, y)],
        [(x[:7], y[:7]), (x[7:], y[7:])],
        [(x[i : i + 1], y[i : i + 1]) for i in range(30)],
    )
    expected = int(np.sum(_classes(session, model, x) == y)) / 30
    assert [session.accuracy_on(split) for split in splits] == [expected] * 3
    with pytest.raises(ValueError, match="no example"):
        session.accuracy_on([])


def _classes(session: GraphSession, model: ModelGraph, x: Array) -> Array:
    values = session.variables()
    with tf.compat.v1.Session(graph=model.graph) as plain:
        assigns = {v.initializer: v for v in model.graph.get_collection("variables")}
        plain.run(list(assigns), {op.inputs[1]: values[v.op.name] for op, v in assigns.items()})
        classes: Array = plain.run("classes:0", {"x:0": x})
        return classes


@pytest.mark.usefixtures("session")
def test_the_graph_is_final(model: ModelGraph) -> None:
    with pytest.raises(RuntimeError, match="finalized"), model.graph.as_default():
        tf.constant(1)
