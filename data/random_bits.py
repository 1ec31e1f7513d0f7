"""Random numbers that follow from (seed, stream, index) alone, whatever was drawn before.

They are the raw output of Philox, a counter-based generator (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011). NumPy keeps the raw output of a bit generator the same from
version to version; of the methods of `np.random.Generator` it promises that only within one
version (https://numpy.org/doc/stable/reference/random/compatibility.html), so a run resumed after
an update would see other batches.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Stream(IntEnum):
    """What the numbers are for: two streams of one seed share nothing."""

    EPOCH = 0
    HELD_OUT = 1
    POINTS = 2
    AUGMENTATION = 3


def raw_bits(count: int, seed: int, stream: Stream, index: int = 0) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit numbers.

    Args:
      count: how many.
      seed: the run's seed, 0 or more.
      stream: what they are for.
      index: tells several draws of a stream apart, 0 or more: an epoch, say.

    Returns:
      uint64 [count].
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, index))
    # Only with a size of None is one int returned.
    return np.asarray(np.random.Philox(sequence).random_raw(count), np.uint64)


def permutation(count: int, seed: int, stream: Stream, index: int = 0) -> npt.NDArray[np.int64]:
    """The numbers 0 to count - 1 in random order; arguments as of `raw_bits`.

    Returns:
      int64 [count].
    """
    # A stable sort has one answer even where two keys are equal.
    return np.argsort(raw_bits(count, seed, stream, index), kind="stable").astype(np.int64)
