"""What the tests of models share: a session on a new model, its variables, softmax in NumPy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.blocks import ModelGraph

Array = npt.NDArray[Any]
Session: TypeAlias = tf.compat.v1.Session


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


def check_tensors(model: ModelGraph, expected: str, prediction: str) -> None:
    """Compares names, dtypes and shapes, each a line such as `x float32 None 32`."""
    for line in expected.strip().splitlines():
        name, dtype, *shape = line.split()
        tensor = model.graph.get_tensor_by_name(f"{name}:0")
        found = [str(size) for size in tensor.shape.as_list()]
        assert (tensor.dtype.base_dtype.name, found) == (dtype, shape), name
    assert [t.name for t in model.graph.get_collection("predict")] == [f"{prediction}:0"]
