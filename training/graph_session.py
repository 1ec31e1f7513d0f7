"""The session that trains: steps in, losses and the variables out."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.bundle import VariableSpec, make_fed_callable
from training.task import Batch, TrainableGraph


class StepValues(NamedTuple):
    """What a training step tells of its batch, before the update and with dropout on."""

    loss: float
    accuracy: float | None = None  # In [0, 1]; None where the model has none.
    learning_rate: float | None = None  # Of the update; None where it is the same in all steps.


class GraphSession:
    """Runs a training graph; after `__init__` the graph is final, so that no loop makes it grow."""

    def __init__(self, model: TrainableGraph) -> None:
        """Opens a session on the model's graph; the variables have no value yet."""
        self._variables: list[tf.Variable] = model.graph.get_collection(
            tf.compat.v1.GraphKeys.GLOBAL_VARIABLES
        )
        # Operations one after another in the calling thread: handing them to other threads gains
        # nothing here, and waits where a save keeps a processor busy.
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        self._session = tf.compat.v1.Session(graph=model.graph, config=config)
        told = StepValues(model.loss, model.accuracy, model.learning_rate)._asdict()
        self._told = [name for name, tensor in told.items() if tensor is not None]
        self._train_step = make_fed_callable(
            self._session,
            [*model.inputs, *model.training_feeds],
            [told[name] for name in self._told],
            [model.train_op],
        )
        self._training_values = [
            np.asarray(value, tensor.dtype.as_numpy_dtype)
            for tensor, value in model.training_feeds.items()
        ]
        self._names = [v.op.name for v in self._variables]
        values = [_value_of(variable) for variable in self._variables]
        self._read_variables = make_fed_callable(self._session, [], values)
        self._accuracy = (
            None
            if model.accuracy is None
            else make_fed_callable(self._session, model.inputs, [model.accuracy])
        )
        model.graph.finalize()

    def __enter__(self) -> "GraphSession":
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    @property
    def specs(self) -> dict[str, VariableSpec]:
        """Name -> shape and dtype of every variable, optimizer slots included."""
        return {
            v.op.name: VariableSpec(tuple(v.shape), v.dtype.base_dtype.name)
            for v in self._variables
        }

    def initialize(self, given: Mapping[str, np.ndarray[Any, Any]] = MappingProxyType({})) -> None:
        """Gives every variable the value under its name, or, where there is none, its initial one.

        No initializer runs of a variable whose value is given.
        """
        self._session.run(
            [v.initializer for v in self._variables],
            # An initializer is an assignment; its second input is the value.
            {
                v.initializer.inputs[1]: given[v.op.name]
                for v in self._variables
                if v.op.name in given
            },
        )

    def assign(self, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Gives every variable the value under its name, in place of its initial one."""
        self.initialize({v.op.name: values[v.op.name] for v in self._variables})

    def variables(self) -> dict[str, np.ndarray[Any, Any]]:
        """Every variable by name, good until the next step: the arrays are its very memory."""
        return dict(zip(self._names, self._read_variables(), strict=True))

    def train_step(self, batch: Batch) -> StepValues:
        """One update."""
        values = self._train_step(*batch, *self._training_values)
        return StepValues(**dict(zip(self._told, map(float, values), strict=True)))

    def accuracy_on(self, batches: Iterable[Batch]) -> float:
        """The accuracy over all examples of `batches`, with dropout off; in [0, 1].

        Raises:
          ValueError: the model has no accuracy, or there is no example.
        """
        if self._accuracy is None:
            raise ValueError("this model has no accuracy")
        correct, count = 0, 0
        for batch in batches:
            (accuracy,) = self._accuracy(*batch)
            correct += round(float(accuracy) * len(batch[0]))  # Whole, so that equals are equal.
            count += len(batch[0])
        if count == 0:
            raise ValueError("there is no example to take the accuracy of")
        return correct / count


def _value_of(variable: tf.Variable) -> tf.Tensor:
    """The tensor of a variable's value: that of its name, unless that is a handle."""
    tensor = variable.graph.get_tensor_by_name(variable.name)
    if tensor.dtype != tf.resource:
        return tensor
    with variable.graph.as_default():
        return variable.read_value()
