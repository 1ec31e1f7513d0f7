"""The session that trains, against `Session.run`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from models import cnn
from models.blocks import ModelGraph, Schedule
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
        session.initialize()
        yield session


def test_a_step_is_the_step_of_session_run(session: GraphSession, model: ModelGraph) -> None:
    """Five steps, with dropout on, in both ways: equal losses, accuracies and bytes."""
    feeds = {**dict(zip(model.inputs, BATCH, strict=True)), **model.training_feeds}
    with tf.compat.v1.Session(graph=model.graph) as plain:
        variables = model.graph.get_collection("variables")
        plain.run([v.initializer for v in variables])
        for _ in range(5):
            *expected, _ = plain.run([model.loss, model.accuracy, model.train_op], feeds)
            assert session.train_step(BATCH) == (*map(float, expected), None)
        found = session.variables()
        for variable in variables:
            assert found[variable.op.name].tobytes() == plain.run(variable.name).tobytes()


def test_accuracy_weighs_batches_by_their_size(session: GraphSession, model: ModelGraph) -> None:
    """Over batches of 4 and 2 it is the accuracy over the 6, with dropout off."""
    x, y = BATCH
    classes = _classes(session, model, x)
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    assert session.accuracy_on(batches) == pytest.approx(np.mean(classes == y))
    with pytest.raises(ValueError, match="no example"):
        session.accuracy_on([])


def test_equal_shares_are_equal_numbers(session: GraphSession, model: ModelGraph) -> None:
    """However the examples fall into batches, in float32 of which none of these is exact."""
    x, y = np.tile(BATCH[0], (5, 1, 1, 1)), np.tile(BATCH[1], 5)
    y[:7] = _classes(session, model, x)[:7]
    splits = (
        [(x, y)],
        [(x[:7], y[:7]), (x[7:], y[7:])],
        [(x[i : i + 1], y[i : i + 1]) for i in range(30)],
    )
    expected = int(np.sum(_classes(session, model, x) == y)) / 30
    assert [session.accuracy_on(split) for split in splits] == [expected] * 3


def test_a_rate_that_changes_is_told_with_each_step() -> None:
    schedule = Schedule(warmup_steps=2, cosine_to=4)
    model = cnn.build(num_classes=4, learning_rate=1e-3, seed=0, schedule=schedule)
    with GraphSession(model) as session:
        session.initialize()
        rates = [session.train_step(BATCH).learning_rate for _ in range(4)]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])


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
