"""What the training loop is given: a graph, its batches, what it begins with, where it ends.

`GraphSession` runs the graph: batches in, losses and the values of variables out. `Alone` stands
in for the workers of a run that has no others.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from checkpoints.bundle import VariableSpec
from checkpoints.layout import AVERAGE, PREDICT_COLLECTION
from checkpoints.reader import Array
from checkpoints.writer import make_fed_callable
from data import BUILT_IN, files
from training.config import DataConfig, RunConfig
from training.workers import Place

if TYPE_CHECKING:
    from typing_extensions import Self

    from data.image_data import ImageData

_MOST_CLASSES = 256  # Of more, nobody reads a confusion.
_MOST_LINES = 40  # Of more variables, those of a scope are told of together.


class InitialValues(NamedTuple):
    """Values for some variables of a run that starts at step 0, by the variable's name."""

    values: Mapping[str, np.ndarray[Any, Any]]  # Of the variable's very shape and dtype.
    origins: Mapping[str, str]  # Where each comes from, as `model1/my-model-200 as conv1/w`.

    def digest(self) -> str:
        """A SHA-256 of all names and values, in hex."""
        digest = hashlib.sha256()
        for name, value in sorted(self.values.items()):
            digest.update(f"{name} {value.dtype.str} {value.shape} ".encode())
            digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()


NONE = InitialValues({}, {})


def log_origins(variables: Collection[str], initial: InitialValues) -> None:
    """Logs where each variable's value comes from, unless all are new.

    A line is `conv1/w: restored from ...` or `w: new`.
    """
    if not initial.values:
        return
    told_together: dict[tuple[str, bool], list[str]] = {}
    for name in variables:
        told_as = name if len(variables) <= _MOST_LINES else name.partition("/")[0]
        told_together.setdefault((told_as, name in initial.values), []).append(name)
    for (told_as, is_restored), (name, *others) in told_together.items():
        more = f" and {len(others)} more of {told_as}" if others else ""
        origin = f"restored from {initial.origins[name]}" if is_restored else "new"
        logging.info("%s%s: %s", name, more, origin)


# The arrays that the graph's inputs are fed, in their order, each with the batch first.
Batch: TypeAlias = tuple[Array, ...]


class TrainableGraph(Protocol):
    """The handles that the loop runs, as `models.blocks.ModelGraph` explains them."""

    graph: tf.Graph
    inputs: tuple[tf.Tensor, ...]
    training_feeds: Mapping[tf.Tensor, Any]
    loss: tf.Tensor
    accuracy: tf.Tensor | None
    learning_rate: tf.Tensor | None
    train_op: tf.Operation
    gradients: tuple[tf.Tensor, ...]


class Task(NamedTuple):
    """One run's work.

    Attributes:
      meta_graph: the model's serialized MetaGraphDef, saved with each checkpoint.
      batches: gives the batches of the steps [start, stop), each a function of its step alone. Of
        each it gives this worker's rows, or those that a slice, its third argument, asks for.
      batch_size: examples in each of them.
      examples: what an example is called in the log, such as "images".
      test_batches: gives the batches of the whole test split; None where there is none.
      last_step: updates done when the run is finished.
      log_every_steps: the interval between two log lines; a part of a step is rounded up.
      identity: what the run's numbers follow from (model, data, seed, ...); JSON values.
      epoch_steps: the steps of one epoch. A run whose config does not say when to save is saved
        after each; with None, only at its end.
      initial_values: reads the values that variables begin with in place of initial ones.
      logged_variables: names of variables of one number each, whose values stand in each log line,
        and before the first step in one of their own.
      write_data: puts the examples into the run's folder, once that is locked and known to be of
        this run; None for nothing to put.
      predict_with: the flags that the line "predict with" adds; none where predict.py has rows of
        its own to show.
    """

    model: TrainableGraph
    meta_graph: bytes
    batches: Callable[..., Generator[Batch, None, None]]
    batch_size: int
    examples: str
    test_batches: Callable[[], Iterable[Batch]] | None
    last_step: int
    log_every_steps: int | Fraction
    identity: Mapping[str, Any]
    epoch_steps: Fraction | None = None
    initial_values: Callable[[], InitialValues] = lambda: NONE
    logged_variables: Sequence[str] = ()
    write_data: Callable[[], None] | None = None
    predict_with: Sequence[str] = ()

    def save_interval(self, asked_for: int | None) -> int | Fraction:
        """The steps between two checkpoints; `asked_for` is what the run's config says."""
        return asked_for or self.epoch_steps or self.last_step


def open_images(
    config: DataConfig,
    run: RunConfig,
    image_shape: tuple[int, ...],
    scale: np.float32 = files.UINT8_SCALE,
) -> "ImageData":
    """Opens the images that a run's flags name, for a model that takes them in this shape.

    uint8 pixels are multiplied by `scale`. DataError where they are missing or cannot be used.
    """
    from data import image_data, named  # What has no images does without.

    options = image_data.ReadOptions(
        config.classes,
        config.data_memory_mb,
        config.on_bad_image,
        image_shape,
        scale,
        config.ignore_exif,
    )
    return image_data.open_image_data(
        config.data,
        ramp_path=os.path.join(run.ckpt_dir, named.RAMP_FILE),
        validation_fraction=config.validation_fraction,
        seed=run.seed,
        options=options,
    )


def predict_with(data_set: str) -> tuple[str, ...]:
    """The flags with which predict.py takes the images that --data names, those to test on first.

    A model that was trained on built-in images needs none.
    """
    if data_set in BUILT_IN:
        return ()
    to_test = os.path.join(data_set, "test")
    found = [path for path in (to_test, data_set) if files.exists(path)]
    return (f"--input={found[0] if found else 'image.png'}",)


class Evaluation(NamedTuple):
    """How a model does on examples."""

    accuracy: float  # In [0, 1].
    confusion: Array | None = None  # int64 [true class, predicted class]; None without classes.


class GraphSession:
    """Runs a training graph; after `__init__` the graph is final, so that no loop makes it grow."""

    def __init__(self, model: TrainableGraph, *, bfloat16: bool = False) -> None:
        """Opens a session on the model's graph; the variables have no value yet.

        With `bfloat16`, TensorFlow rewrites the graph as it runs it, see docs/measurements.md; the
        graph that is saved stays as it is.
        """
        found = model.graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
        self._variables: dict[str, tf.Variable] = {v.op.name: v for v in found}
        # -1 runs the operations in the calling thread, one after another. Side by side, small
        # batches gain a tenth and lose it where a save keeps a processor busy; and in some graphs
        # what reads a variable would be beside what writes it.
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        if bfloat16:
            rewrites = config.graph_options.rewrite_options
            rewrites.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON
        self._session = tf.compat.v1.Session(graph=model.graph, config=config)
        averaged = model.graph.get_collection(tf.compat.v1.GraphKeys.MOVING_AVERAGE_VARIABLES)
        # The moving average of each variable that has one, both by name.
        self.averages: dict[str, str] = {v.op.name: v.op.name + AVERAGE for v in averaged}
        told = {name: getattr(model, name) for name in ("loss", "accuracy", "learning_rate")}
        self._told = {name: tensor for name, tensor in told.items() if tensor is not None}
        self._prepare(model)
        self._training_values = [
            np.asarray(value, tensor.dtype.as_numpy_dtype)
            for tensor, value in model.training_feeds.items()
        ]
        values = [_value_of(variable) for variable in self._variables.values()]
        self._read_variables = make_fed_callable(self._session, [], values)
        predicted = model.graph.get_collection(PREDICT_COLLECTION)[:1]
        classes = predicted[0].shape[-1] if predicted and predicted[0].shape.rank else 0
        self._num_classes = classes if classes and classes <= _MOST_CLASSES else 0
        self._evaluate = None
        if model.accuracy is not None:
            results = [model.accuracy, *predicted]
            self._evaluate = make_fed_callable(self._session, model.inputs, results)
        model.graph.finalize()

    def _prepare(self, model: TrainableGraph) -> None:
        """Makes the callable of a step, before the graph is final."""
        feeds = [*model.inputs, *model.training_feeds]
        self._train_step = make_fed_callable(
            self._session, feeds, [*self._told.values()], [model.train_op]
        )

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    @property
    def specs(self) -> dict[str, VariableSpec]:
        """Name -> shape and dtype of every variable, optimizer slots included."""
        return {
            name: VariableSpec(tuple(v.shape), v.dtype.base_dtype.name)
            for name, v in self._variables.items()
        }

    def initialize(
        self, given: Mapping[str, np.ndarray[Any, Any]], names: Iterable[str] | None = None
    ) -> None:
        """Gives every variable, or some, the value under its name, or else its initial one."""
        # An initializer is an assignment; its second input is the value, which is fed.
        names = self._variables if names is None else names
        initializers = {name: self._variables[name].initializer for name in names}
        feeds = {op.inputs[1]: given[name] for name, op in initializers.items() if name in given}
        self._session.run([*initializers.values()], feeds)

    def variables(self) -> dict[str, np.ndarray[Any, Any]]:
        """Every variable by name, until the next step: the arrays are the graph's own memory."""
        return dict(zip(self._variables, self._read_variables(), strict=True))

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One update; returns what `Metrics` has of the batch, before it and with dropout on."""
        values = self._train_step(*batch, *self._training_values)
        return dict(zip(self._told, map(float, values), strict=True))

    def evaluate(self, batches: Iterable[Batch]) -> Evaluation:
        """Evaluates on all examples of `batches`, with dropout off.

        It is the moving averages that are evaluated, where there are some. ValueError where the
        model has no accuracy, or there is no example.
        """
        if self._evaluate is None:
            raise ValueError("this model has no accuracy")
        correct, count, classes = 0, 0, self._num_classes
        confusion = np.zeros((classes, classes), np.int64) if classes else None
        with self._averaged():
            for batch in batches:
                accuracy, *logits = self._evaluate(*batch)
                # A whole number, so that the result does not depend on the size of batches.
                correct += round(float(accuracy) * len(batch[0]))
                count += len(batch[0])
                if confusion is not None:
                    labels = batch[-1] if batch[-1].ndim == 1 else batch[-1].argmax(axis=1)
                    np.add.at(confusion, (labels, logits[0].argmax(axis=1)), 1)
        if count == 0:
            raise ValueError("there is no example to take the accuracy of")
        return Evaluation(correct / count, confusion)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """While entered, variables have the values of their moving averages."""
        if not self.averages:
            yield
            return
        values = self.variables()
        # Copies: what is fed may become the variable's own memory.
        own = {name: values[name].copy() for name in self.averages}
        averaged = {name: values[key].copy() for name, key in self.averages.items()}
        self.initialize(averaged, averaged)
        try:
            yield
        finally:
            self.initialize(own, own)


class Alone:
    """A run of one worker, which has nobody to ask; it stands where a `training.team.Team` does."""

    place = Place()

    def __init__(self, stop: Callable[[], int | None]) -> None:
        """Takes what gives the signal that asks this process to stop."""
        self._stop = stop

    @property
    def stopping(self) -> int | None:
        """The signal that ends the run after this step, or None."""
        return self._stop()

    def begin(self, task: Task) -> None:
        """Nobody is to begin with the same values."""

    def compare(self, digest: Callable[[], bytes], what: str) -> None:
        """Compares nothing."""

    def share(self, content: bytes) -> bytes:
        """Gives the content back."""
        return content


@contextmanager
def whole_session(
    task: Task, config: RunConfig, stop: Callable[[], int | None]
) -> Iterator[tuple[GraphSession, Alone]]:
    """The session whose step takes the whole batch at once, which no other worker shares."""
    with GraphSession(task.model, bfloat16=config.bfloat16) as session:
        yield session, Alone(stop)


def digest_of(variables: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A SHA-256 of all values, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(variables):
        digest.update(np.ascontiguousarray(variables[name]).data)
    return digest.digest()


def _value_of(variable: tf.Variable) -> tf.Tensor:
    """The tensor of a variable's value: that of its name, unless that is a handle."""
    tensor = variable.graph.get_tensor_by_name(variable.name)
    if tensor.dtype != tf.resource:
        return tensor
    with variable.graph.as_default():
        return variable.read_value()
