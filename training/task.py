"""What the training loop is given: a graph, its batches, and where the run ends."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from training.initial_values import InitialValues

# The arrays that the graph's inputs are fed, in their order, each with the batch first.
Batch: TypeAlias = tuple[np.ndarray[Any, Any], ...]


class TrainableGraph(Protocol):
    """The handles that the loop runs, such as a `models.model_graph.ModelGraph`."""

    @property
    def graph(self) -> tf.Graph:
        """Holds everything below."""
        ...

    @property
    def inputs(self) -> tuple[tf.Tensor, ...]:
        """What a batch is fed to, in its order."""
        ...

    @property
    def training_feeds(self) -> Mapping[tf.Tensor, Any]:
        """What else is fed in a training step."""
        ...

    @property
    def loss(self) -> tf.Tensor:
        """float32 [], the batch's loss before the update."""
        ...

    @property
    def accuracy(self) -> tf.Tensor | None:
        """float32 [], the share of the batch that is right; None where there is none."""
        ...

    @property
    def learning_rate(self) -> tf.Tensor | None:
        """float32 [], of the step's update; None where it is the same in all steps."""
        ...

    @property
    def train_op(self) -> tf.Operation:
        """One update of the weights and of `global_step`."""
        ...


class Task(NamedTuple):
    """One run's work.

    Attributes:
      model: what is trained.
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
