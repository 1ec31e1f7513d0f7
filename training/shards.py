"""A step in shards: equal parts of the batch, whose gradients are added in a fixed order.

Each shard is a run of the model's own graph on its rows, in one thread, so that its bytes depend on
nothing else. The sum is a tree of additions in pairs over all shards. A worker adds the subtree of
its own shards, the sums of all workers are brought together, and each worker adds them in the same
order: the bytes are those of one worker that has all shards. EasyScale (Li et al., SC 2023) has
the method for GPUs.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from checkpoints.writer import make_fed_callable
from errors import TrainingError
from training.task import Batch, GraphSession, TrainableGraph

Row: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

# Operation -> the one that takes its place in the generator. Both give four numbers for each value
# of the counter: `tensorflow/core/lib/random/random_distributions.h`.
_BY_COUNTER = {
    "StatelessRandomNormal": tf.raw_ops.StatelessRandomNormalV2,
    "StatelessRandomUniform": tf.raw_ops.StatelessRandomUniformV2,
}
_NUMBERS_PER_COUNT = 4
_ALIGNED = 16  # Numbers: 64 bytes.
_PHILOX = 1


def tree_sum(rows: Sequence[Row]) -> Row:
    """The sum of a power of two of rows: of neighbours, then of neighbouring sums, and so on.

    It is in the first one; the others are used up as well.
    """
    while len(rows) > 1:
        rows = [np.add(one, other, one) for one, other in zip(rows[::2], rows[1::2], strict=True)]
    return rows[0]


def _aligned(size: int) -> Row:
    """So many zeros at an address at which TensorFlow takes an array without a copy."""
    room = np.zeros(size + _ALIGNED, np.float32)
    start = -(room.ctypes.data // room.itemsize) % _ALIGNED
    return room[start : start + size]


class Share(NamedTuple):
    """What of a step this process computes."""

    shards: int  # Of the whole batch.
    own: range  # Those of this worker.
    at_once: int  # How many of them are computed side by side.


class ShardedSession(GraphSession):
    """Runs a training graph in shards."""

    def __init__(self, model: TrainableGraph, share: Share, *, bfloat16: bool = False) -> None:
        """Opens a session as `GraphSession` does.

        TrainingError where the model draws or trains what cannot be cut into rows.
        """
        self.part = share
        # The sums of all workers, for that of this one.
        self.exchange: Callable[[Row], Sequence[Row]] = lambda row: [row]
        self._shapes = [tuple(gradient.shape) for gradient in model.gradients]
        sizes = [math.prod(shape) for shape in self._shapes]
        starts = [0, *itertools.accumulate(-(-size // _ALIGNED) * _ALIGNED for size in sizes)]
        self._places = [slice(a, a + size) for a, size in zip(starts, sizes, strict=False)]
        numbers = 1 if model.accuracy is None else 2  # Beside gradients: loss, and accuracy.
        self._places += [slice(at, at + 1) for at in range(starts[-1], starts[-1] + numbers)]
        self._rows = [_aligned(self.row_size) for _ in share.own]
        self._pool = ThreadPoolExecutor(share.at_once) if share.at_once > 1 else None
        super().__init__(model, bfloat16=bfloat16)

    def _prepare(self, model: TrainableGraph) -> None:
        """Makes the callables of a shard, and of the update by the mean gradients."""
        if other := [g.name for g in model.gradients if g.dtype != tf.float32]:
            raise TrainingError(f"--shards takes variables of float32, and {other[0]} is another")
        drawn = [*_drawn_rows(model)]
        with model.graph.as_default():
            place = tf.compat.v1.placeholder(tf.int64, [2])  # The first row, and how many.
            draws = [_rows_of(tensor, place[0], place[1]) for tensor in drawn]
        told = [model.loss] if model.accuracy is None else [model.loss, model.accuracy]
        rate = [] if model.learning_rate is None else [model.learning_rate]
        feeds = [*model.inputs, *model.training_feeds, *drawn]
        make = make_fed_callable
        self._draw = make(self._session, [place], draws) if draws else lambda _: []
        self._shard = make(self._session, feeds, [*model.gradients, *told])
        # No more of the graph runs than what follows from the gradients that are fed.
        self._update = make(self._session, model.gradients, rate, [model.train_op])

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        super().__exit__(*error)

    @property
    def row_size(self) -> int:
        """Numbers in a row: all gradients, each at its place, the loss, and the accuracy."""
        return int(self._places[-1].stop)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """As of `GraphSession`, for the rows of this worker; all workers get the same numbers."""
        own = self.part.own
        size = len(batch[0]) // len(own)

        def row(number: int) -> Row:
            rows = slice(number * size, (number + 1) * size)
            part = [column[rows] for column in batch]
            return self.row(part, (own.start + number) * size, self._rows[number])

        shards = range(len(own))
        rows = [*(map(row, shards) if self._pool is None else self._pool.map(row, shards))]
        mean = tree_sum(self.exchange(tree_sum(rows)))
        mean *= np.float32(1 / self.part.shards)
        parts = [mean[place] for place in self._places]
        gradients = [part.reshape(s) for part, s in zip(parts, self._shapes, strict=False)]
        values = [*parts[len(gradients) :], *self._update(*gradients)]
        return {name: value.item() for name, value in zip(self._told, values, strict=True)}

    def row(self, rows: Sequence[np.ndarray[Any, Any]], first: int, into: Row) -> Row:
        """What the rows from `first` on of a batch give, written `into` an array of `row_size`."""
        draws = self._draw(np.array([first, len(rows[0])], np.int64))
        found = self._shard(*rows, *self._training_values, *draws)
        for place, part in zip(self._places, found, strict=True):
            into[place] = part.ravel()
        return into


def _drawn_rows(model: TrainableGraph) -> Iterator[tf.Tensor]:
    """What a training step draws at random with a row for each example, such as dropout masks."""
    for operation in _needed([model.loss.op, *(gradient.op for gradient in model.gradients)]):
        if not operation.type.startswith("Stateless"):
            continue
        (drawn,) = operation.outputs
        if drawn.shape.is_fully_defined():
            continue  # The same for any number of rows.
        is_known = drawn.shape.rank is not None and drawn.shape[1:].is_fully_defined()
        if operation.type not in _BY_COUNTER or drawn.dtype != tf.float32 or not is_known:
            raise TrainingError(
                f"--shards cannot draw the rows of a part of the batch for {operation.name} "
                f"({operation.type}, {drawn.dtype.name} {drawn.shape}): train with --shards=1"
            )
        yield drawn


def _needed(operations: Sequence[tf.Operation]) -> list[tf.Operation]:
    """These operations and all that they need, in the order of their names."""
    found = {operation.name: operation for operation in operations}
    waiting = [*found.values()]
    while waiting:
        operation = waiting.pop()
        for before in (*(tensor.op for tensor in operation.inputs), *operation.control_inputs):
            if before.name not in found:
                found[before.name] = before
                waiting.append(before)
    return [found[name] for name in sorted(found)]


def _rows_of(drawn: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The rows [first, first + count) of what is drawn for a whole batch, to the bit.

    The generator counts; so the counter is set to where the first row begins, or up to three
    numbers before.
    """
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=drawn.op.inputs[1])
    width = drawn.shape[1:].num_elements()
    start = first * width
    counter += tf.cast(tf.stack([start // _NUMBERS_PER_COUNT, 0]), tf.uint64)
    early = start % _NUMBERS_PER_COUNT
    draw = _BY_COUNTER[drawn.op.type]
    numbers = draw(shape=[early + count * width], key=key, counter=counter, alg=_PHILOX)
    return tf.reshape(numbers[early:], [count, *drawn.shape[1:]])
