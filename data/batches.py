"""Which examples a step is given, a pure function of (seed, step), and how they are read.

They are read ahead of their step, and past those that are bad.
"""

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from absl import logging

from data import SKIP, STOP
from data.files import Array, Indices, Source
from errors import BadRowsError, DataError

# Random numbers that follow from (seed, stream, index) alone, whatever was drawn before: the raw
# output of Philox, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as
# 1, 2, 3", SC 2011). NumPy keeps it the same from version to version, unlike what the methods of
# `np.random.Generator` give (https://numpy.org/doc/stable/reference/random/compatibility.html).


class Stream(IntEnum):
    """What the numbers are for: two streams of one seed share nothing."""

    EPOCH = 0
    HELD_OUT = 1
    POINTS = 2
    AUGMENTATION = 3


def raw_bits(count: int, seed: int, stream: Stream, index: int = 0) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit numbers, uint64 [count]; `index` tells draws of a stream apart, as epochs."""
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, index))
    # Only with a size of None is one int returned.
    return np.asarray(np.random.Philox(sequence).random_raw(count), np.uint64)


def permutation(count: int, seed: int, stream: Stream, index: int = 0) -> Indices:
    """The numbers 0 to count - 1 in random order, int64 [count]."""
    # A stable sort has one answer even where two keys are equal.
    return np.argsort(raw_bits(count, seed, stream, index), kind="stable").astype(np.int64)


# The points that the linear regression is fitted to.

NUM_POINTS = 100


def linear_points(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Points of y = 0.1 x + 0.2: x float32 [100], uniform in [0, 1), and y float32 [100]."""
    # The top 24 bits: as many as a float32 in [0, 1) holds without rounding up to 1.
    bits = raw_bits(NUM_POINTS, seed, Stream.POINTS) >> np.uint64(40)
    x = bits.astype(np.float32) * np.float32(2**-24)
    return x, np.float32(0.1) * x + np.float32(0.2)


def split_rows(labels: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Holds out the same fraction, in (0, 1), of each class, to the nearest whole example.

    Gives the numbers of the examples to train on, at least one of each class, and of those held
    out, int64, both ascending. A greater fraction holds out the same ones and more. DataError where
    none is held out.
    """
    shuffled = permutation(len(labels), seed, Stream.HELD_OUT)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, counts = np.unique(labels, return_counts=True)
    is_held_out = np.zeros(len(labels), bool)
    for members in np.split(by_class, np.cumsum(counts)[:-1]):
        count = min(round(fraction * len(members)), len(members) - 1)
        is_held_out[members[:count]] = True
    if not is_held_out.any():
        raise DataError(
            f"--validation_fraction={fraction:g} of {len(labels)} images holds out none; "
            "give a larger fraction, or 0 for no validation"
        )
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


class ShuffledBatches:
    """Which examples each step trains on; several threads may ask at once.

    Examples come without end: in a permutation of all for epoch 0, another for epoch 1, and so on,
    each from (seed, epoch). Batch k is the slice [k * batch_size, (k + 1) * batch_size) of them.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        """DataError where a batch is more than all examples."""
        if batch_size > num_examples:
            raise DataError(
                f"--batch_size={batch_size} is more than the {num_examples} training "
                f"examples; give --batch_size={num_examples} or less"
            )
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        # The two epochs that a batch may span.
        self._permutation = functools.lru_cache(maxsize=2)(self._draw_permutation)

    def indices(self, step: int) -> Indices:
        """The numbers of the examples of a batch, int64 [batch_size]; they may be read-only."""
        epoch, start = divmod(step * self.batch_size, self.num_examples)
        first = self._permutation(epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(first)
        if not missing:
            return first
        return np.concatenate([first, self._permutation(epoch + 1)[:missing]])

    def example(self, place: int) -> int:
        """The number of the example at a place among all that come."""
        epoch, offset = divmod(place, self.num_examples)
        return int(self._permutation(epoch)[offset])

    def _draw_permutation(self, epoch: int) -> Indices:
        drawn = permutation(self.num_examples, self.seed, Stream.EPOCH, epoch)
        drawn.flags.writeable = False  # `indices` hands out views of it.
        return drawn


MAX_SHIFT = 4  # pixels


def augment(images: Array, seed: int, step: int, first: int = 0) -> Array:
    """Shifts each image by up to `MAX_SHIFT` pixels along both axes, and mirrors it or does not.

    All outcomes are as likely, and follow from (seed, step, place in the batch): the augmentation
    of He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2, with the
    image's edge repeated in place of zeros. Takes the images of a batch from `first` on, [B, H, W,
    C] of any dtype, and gives new ones.
    """
    count, height, width, channels = images.shape
    bits = raw_bits(first + count, seed, Stream.AUGMENTATION, step)[first:]
    rows = _shifted(height, bits & 0xFFFF_FFFF)  # [B, H]
    columns = _shifted(width, bits >> 32 & 0x7FFF_FFFF)  # [B, W]
    mirrored = (bits >> 63).astype(bool)
    columns[mirrored] = columns[mirrored, ::-1]
    first_rows = np.arange(count)[:, np.newaxis] * height
    pixels = ((first_rows + rows) * width)[:, :, np.newaxis] + columns[:, np.newaxis]  # [B, H, W]
    return images.reshape(-1, channels).take(pixels, axis=0)


def _shifted(size: int, bits: Array) -> Indices:
    """Where along an axis each pixel comes from, [B, size]; beyond the edge, from the edge."""
    shifts = (bits % (2 * MAX_SHIFT + 1)).astype(np.int64) - MAX_SHIFT
    return np.clip(np.arange(size) + shifts[:, np.newaxis], 0, size - 1)


T = TypeVar("T")


def read_ahead(
    batch_of_step: Callable[[int], T], start: int, stop: int, workers: int = 1
) -> Generator[T, None, None]:
    """Yields batch_of_step(k) for k in [start, stop), in this order, made in `workers` threads.

    What it raises is raised at its step. One more batch than there are threads is made ahead. The
    threads end with the generator, after the batches that they are at.
    """
    executor = ThreadPoolExecutor(workers, thread_name_prefix="read-ahead")
    try:
        batches = (executor.submit(batch_of_step, step) for step in range(start, stop))
        pending = deque(itertools.islice(batches, workers + 1))
        while pending:
            batch = pending.popleft().result()
            pending.extend(itertools.islice(batches, 1))
            yield batch
    finally:
        executor.shutdown(cancel_futures=True)


# What becomes of a batch when some of its examples cannot be read.


def stopped_by(bad: BadRowsError) -> DataError:
    """What the user is told of a bad row: with the flag that goes on without it."""
    return DataError(f"{bad}; --on_bad_image={SKIP} goes on without it")


class BadSoFar:
    """The rows of a source that were found bad; may be used by several threads at once."""

    def __init__(self, on_bad: str) -> None:
        """Takes what a bad row does: STOP or SKIP."""
        self.rows: set[int] = set()
        self._on_bad = on_bad
        self._lock = threading.Lock()

    def positions(self, indices: Indices) -> list[int]:
        """Where in `indices` the bad ones are."""
        if not self.rows:  # As nearly always, in each step.
            return []
        return [position for position, row in enumerate(indices.tolist()) if row in self.rows]

    def read(self, source: Source, good_indices: Callable[[], Indices]) -> tuple[Array, ...]:
        """The rows of good indices, asked for anew each time that some prove to be bad."""
        while True:
            indices = good_indices()
            try:
                return source.rows(indices)
            except BadRowsError as bad:
                if self._on_bad != SKIP:
                    raise stopped_by(bad) from bad
                with self._lock:
                    for position, error in sorted(bad.errors.items()):
                        if indices[position] not in self.rows:
                            self.rows.add(int(indices[position]))
                            logging.warning("skipped: %s", error)


_ALL = slice(None)


class TrainingBatches:
    """The batches of a source, shuffled; in place of a bad example is the next good one.

    All others stay where they are, and a batch is a pure function of (seed, step) and the data.
    """

    def __init__(
        self,
        source: Source,
        order: ShuffledBatches,
        on_bad: str = STOP,
        *,
        own: slice = _ALL,
        augmented: bool = False,
    ) -> None:
        """`own` are this worker's rows of a batch; images may be `augmented`, as `augment` does."""
        self._source, self._order, self._own = source, order, own
        self._bad, self._is_augmented = BadSoFar(on_bad), augmented

    def of_steps(
        self, start: int, stop: int, rows: slice | None = None
    ) -> Generator[tuple[Array, ...], None, None]:
        """Yields the own rows, or those asked for, of the batches of steps [start, stop)."""
        taken = self._own if rows is None else rows
        return read_ahead(lambda k: self.batch(k, taken), start, stop, self._source.workers)

    def batch(self, step: int, rows: slice = _ALL) -> tuple[Array, ...]:
        """The batch of a step, or some rows of it; DataError for a bad one under STOP, or all."""
        values = self._bad.read(self._source, lambda: self._good_indices(step, rows))
        if not self._is_augmented:
            return values
        return augment(values[0], self._order.seed, step, rows.start or 0), *values[1:]

    def _good_indices(self, step: int, rows: slice) -> Indices:
        indices = self._order.indices(step)[rows]
        bad = self._bad.positions(indices)
        if bad:
            indices = indices.copy()
            first = step * self._order.batch_size + (rows.start or 0)
            indices[bad] = [self._next_good(first + position) for position in bad]
        return indices

    def _next_good(self, place: int) -> int:
        # Two epochs from here hold each example, wherever it is in them.
        for later in range(place + 1, place + 2 * len(self._source)):
            index = self._order.example(later)
            if index not in self._bad.rows:
                return index
        raise DataError(f"none of the {len(self._source)} training examples can be read")


_NONE_IS_BAD = BadSoFar(STOP)


def row_batches(
    source: Source, batch_size: int, bad: BadSoFar = _NONE_IS_BAD, workers: int = 1
) -> Iterator[tuple[Array, ...]]:
    """Yields the rows [0, B), [B, 2B), ... of a source without bad ones, which `bad` keeps.

    The last batch may be shorter, and any that had bad ones. DataError where a row is bad under
    STOP, or all are.
    """

    def batch(number: int) -> tuple[Array, ...]:
        first = number * batch_size
        indices = np.arange(first, min(first + batch_size, len(source)))
        return bad.read(source, lambda: np.delete(indices, bad.positions(indices)))

    found_any = False
    count = -(-len(source) // batch_size)
    for arrays in read_ahead(batch, 0, count, workers):
        if len(arrays[0]):
            found_any = True
            yield arrays
    if count and not found_any:
        raise DataError(f"none of the {len(source)} rows can be read")


_TEST_BATCH_SIZE = 250  # Images at once: their activations in train_cnn.py's model take 40 MB.


def evaluation_batches(
    test: Source | None, on_bad: str, only_size: int | None = None
) -> Callable[[], Iterator[tuple[Array, ...]]] | None:
    """The batches of the test split, as often as they are asked for; None where there is none.

    Of a model that takes only so many images at once, the rest of them is left out.
    """
    if test is None:
        return None
    bad = BadSoFar(on_bad)
    if only_size is None:
        return lambda: row_batches(test, _TEST_BATCH_SIZE, bad, test.workers)
    count, rest = len(test), len(test) % only_size
    if rest:
        left_out = "%d of the %d test images are left out: the model takes %d at once"
        logging.warning(left_out, rest, count, only_size)
    if rest == count:
        return None
    found = functools.partial(row_batches, test, only_size, bad, test.workers)
    return lambda: (batch for batch in found() if len(batch[0]) == only_size)
