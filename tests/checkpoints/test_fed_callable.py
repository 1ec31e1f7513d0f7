"""The short way into a session, against `Session.run`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from checkpoints.bundle import make_fed_callable

v1 = tf.compat.v1


@pytest.fixture
def session() -> Iterator[tf.compat.v1.Session]:
    """A graph that adds x to a counter, and doubles it."""
    with tf.Graph().as_default(), v1.Session() as session:
        count = v1.get_variable("count", initializer=1.0, use_resource=False)
        x = v1.placeholder(tf.float32, [None], name="x")
        tf.multiply(x, 2.0, name="double")
        v1.assign_add(count, tf.reduce_sum(x), name="add")
        session.run(count.initializer)
        yield session


def _tensor(session: tf.compat.v1.Session, name: str) -> tf.Tensor:
    return session.graph.get_tensor_by_name(name)


def test_it_fetches_what_run_fetches(session: tf.compat.v1.Session) -> None:
    x = np.arange(5, dtype=np.float32)
    call = make_fed_callable(session, [_tensor(session, "x:0")], [_tensor(session, "double:0")])
    (found,) = call(x)
    assert found.tobytes() == session.run("double:0", {"x:0": x}).tobytes()


def test_targets_run(session: tf.compat.v1.Session) -> None:
    add = session.graph.get_operation_by_name("add")
    call = make_fed_callable(session, [_tensor(session, "x:0")], [], [add])
    assert call(np.ones(3, np.float32)) == []
    assert session.run("count:0") == 4.0


@pytest.mark.parametrize("value", [np.ones(2), np.ones((2, 2), np.float32) > 0])
def test_another_dtype_is_an_error(session: tf.compat.v1.Session, value: npt.NDArray[Any]) -> None:
    call = make_fed_callable(session, [_tensor(session, "x:0")], [_tensor(session, "double:0")])
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(value)
