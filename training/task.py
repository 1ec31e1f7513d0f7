"""What the training loop is given: a graph, its batches, what it begins with, where it ends."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import tensorflow as tf
from absl import logging

_MOST_LINES = 40  # Of more variables, those of a scope are told of together.
NEW = "new"


class InitialValues(NamedTuple):
    """Values for some variables of a run that starts at step 0.

    Both are by the variable's name. An origin says where a value comes from.
    """

    values: Mapping[str, np.ndarray[Any, Any]]  # Of the variable's very shape and dtype.
    origins: Mapping[str, str]  # Such as `model1/my-model-200 as conv1/w`.

    def digest(self) -> str:
        """Tells these values, of variables of these names, from others: a SHA-256 in hex."""
        digest = hashlib.sha256()
        for name, value in sorted(self.values.items()):
            digest.update(f"{name} {value.dtype.str} {value.shape} ".encode())
            digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()


NONE = InitialValues({}, {})


def log_origins(variables: Iterable[str], initial: InitialValues) -> None:
    """Logs where each variable's value comes from: `conv1/w: restored from ...` or `w: new`.

    Where all are new, there is nothing to tell.
    """
    if not initial.values:
        return
    origins = {name: _origin(name, initial) for name in variables}
    if len(origins) <= _MOST_LINES:
        for name, origin in origins.items():
            logging.info("%s: %s", name, origin)
        return
    scopes: dict[tuple[str, bool], list[str]] = {}
    for name in origins:
        scopes.setdefault((name.partition("/")[0], name in initial.values), []).append(name)
    for (scope, _), names in scopes.items():
        more = f" and {len(names) - 1} more of {scope}" if len(names) > 1 else ""
        logging.info("%s%s: %s", names[0], more, origins[names[0]])


def _origin(name: str, initial: InitialValues) -> str:
    return f"restored from {initial.origins[name]}" if name in initial.values else NEW


# The arrays that the graph's inputs are fed, in their order, each with the batch first.
Batch: TypeAlias = tuple[np.ndarray[Any, Any], ...]


class TrainableGraph(Protocol):
    """The handles that the loop runs, such as a `models.blocks.ModelGraph`."""

    @property
    def graph(self) -> tf.Graph:
        """Holds everything below."""

    @property
    def inputs(self) -> tuple[tf.Tensor, ...]:
        """What a batch is fed to, in its order."""

    @property
    def training_feeds(self) -> Mapping[tf.Tensor, Any]:
        """What else is fed in a training step."""

    @property
    def loss(self) -> tf.Tensor:
        """float32 [], the batch's loss before the update."""

    @property
    def accuracy(self) -> tf.Tensor | None:
        """float32 [], the share of the batch that is right; None where there is none."""

    @property
    def learning_rate(self) -> tf.Tensor | None:
        """float32 [], of the step's update; None where it is the same in all steps."""

    @property
    def train_op(self) -> tf.Operation:
        """One update of the weights and of `global_step`."""


class Task(NamedTuple):
    """One run's work.

    Attributes:
      meta_graph: the model's serialized MetaGraphDef, saved with each checkpoint.
      batches: gives the batches of the steps [start, stop), each a function of its step alone.
      batch_size: examples in each of them.
      examples: what an example is called in the log, such as "images".
      test_batches: gives the batches of the whole test split; None where there is none.
      last_step: updates done when the run is finished.
      log_every_steps: the interval between two log lines; a part of a step is rounded up.
      identity: what the run's numbers follow from (model, data, seed, ...); JSON values.
      epoch_steps: the interval between two checkpoints where the run's config leaves it open, the
        steps of one pass over the examples; None saves only at the end then.
      initial_values: reads the values that variables begin with in place of initial ones; None
        where there are none.
      logged_variables: names of variables of one number each, whose values stand in each log line,
        and before the first step in one of their own.
      write_data: puts the examples into the run's folder, where they are not there; called once
        the folder is locked and it is clear that the run is this one. None for nothing to put.
    """

    model: TrainableGraph
    meta_graph: bytes
    batches: Callable[[int, int], Generator[Batch, None, None]]
    batch_size: int
    examples: str
    test_batches: Callable[[], Iterable[Batch]] | None
    last_step: int
    log_every_steps: int | Fraction
    identity: Mapping[str, Any]
    epoch_steps: Fraction | None = None
    initial_values: Callable[[], InitialValues] | None = None
    logged_variables: Sequence[str] = ()
    write_data: Callable[[], None] | None = None

    def save_interval(self, asked_for: int | None) -> int | Fraction:
        """The steps between two checkpoints; `asked_for` is what the run's config says."""
        return asked_for or self.epoch_steps or self.last_step
