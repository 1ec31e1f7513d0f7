"""Which examples a step trains on: a pure function of (seed, step)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.random_bits import Stream, permutation


@dataclass(frozen=True)
class ShuffledBatches:
    """Batches of shuffled examples without end.

    The stream of examples is a permutation of all for epoch 0, then another for epoch 1, and so
    on; batch k is its slice [k * batch_size, (k + 1) * batch_size). So each epoch has each example
    once, and a batch may hold the end of one epoch and the start of the next.

    Attributes:
      num_examples: how many there are, 1 or more.
      batch_size: 1 to num_examples.
      seed: the run's seed, 0 or more. The permutation of an epoch follows from (seed, epoch).

    Raises:
      DataError: batch_size is more than num_examples.
    """

    num_examples: int
    batch_size: int
    seed: int
    _permutation: Callable[[int], npt.NDArray[np.int64]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.num_examples < 1 or self.batch_size < 1 or self.seed < 0:
            raise ValueError(f"needs examples, a batch size above 0 and a seed from 0: {self}")
        if self.batch_size > self.num_examples:
            raise DataError(
                f"--batch_size={self.batch_size} is more than the {self.num_examples} training "
                f"examples; give --batch_size={self.num_examples} or less"
            )
        # The two epochs that a batch may span; safe to call from several threads.
        object.__setattr__(self, "_permutation", lru_cache(maxsize=2)(self._draw_permutation))

    def indices(self, step: int) -> npt.NDArray[np.int64]:
        """The numbers of the examples of batch `step`, 0 or more.

        Returns:
          int64 [batch_size], read-only where it lies in one epoch.
        """
        epoch, start = divmod(step * self.batch_size, self.num_examples)
        first = self._permutation(epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(first)
        if not missing:
            return first
        return np.concatenate([first, self._permutation(epoch + 1)[:missing]])

    def example(self, place: int) -> int:
        """The number of the example at a place, 0 or more, of the stream of examples."""
        epoch, offset = divmod(place, self.num_examples)
        return int(self._permutation(epoch)[offset])

    def _draw_permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        drawn = permutation(self.num_examples, self.seed, Stream.EPOCH, epoch)
        drawn.flags.writeable = False  # `indices` hands out views of it.
        return drawn
