"""Examples whose features are kept outside: on disk, or read from there into memory."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from data.errors import BadRowsError, DataError
from data.source import SAMPLED, Array, Features, Indices, LabelledSource, digest_of

# A future costs tens of microseconds, about as much as a small image.
_ROWS_PER_TASK = 64


class Store(Features, Protocol):
    """The features of N examples; `take` may be called by several threads at once."""

    @property
    def workers(self) -> int:
        """How many threads that call `take` get the most examples a second."""
        ...

    def take(self, indices: Indices) -> Array:
        """The features of these examples, [B, ...], new.

        Raises:
          BadRowsError: some cannot be read, or are no numbers.
        """
        ...

    def digest(self) -> str:
        """Tells these features from others: a SHA-256 in hex, in a time that has a bound."""
        ...


@dataclass(frozen=True, eq=False)
class StoredSource(LabelledSource[Store]):
    """Examples with features in a store."""

    @property
    def workers(self) -> int:
        """See `Source.workers`."""
        return self.features.workers

    def digest(self) -> str:
        """See `Source.digest`: the same whether the features are held in memory or not."""
        return SAMPLED + digest_of([self.labels], before=self.features.digest().encode())

    def _take(self, indices: Indices) -> Array:
        return self.features.take(indices)


@dataclass(frozen=True, eq=False)
class HeldStore:
    """What another store has, in memory.

    Attributes:
      values: its features, [N, ...]; those of bad rows are zeros.
      errors: what is wrong with its bad rows, by number.
      origin: the other store, for its digest.
    """

    values: Array
    errors: Mapping[int, DataError]
    origin: Store

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Store.shape`."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Store.dtype`."""
        return self.values.dtype

    @property
    def workers(self) -> int:
        """See `Store.workers`."""
        return 1

    def take(self, indices: Indices) -> Array:
        """See `Store.take`."""
        if self.errors:
            bad = {
                position: self.errors[index]
                for position, index in enumerate(indices.tolist())
                if index in self.errors
            }
            if bad:
                raise BadRowsError(bad)
        return self.values.take(indices, axis=0)

    def digest(self) -> str:
        """See `Store.digest`."""
        return self.origin.digest()


def hold(store: Store, *, keep_bad: bool) -> HeldStore:
    """Reads a store into memory.

    Args:
      store: what is read.
      keep_bad: bad rows are raised when they are asked for, not at once.

    Raises:
      BadRowsError: the first bad row, unless keep_bad.
    """
    values = np.zeros(store.shape, store.dtype)
    errors: dict[int, DataError] = {}

    def read_some(first: int) -> None:
        rows = np.arange(first, min(first + _ROWS_PER_TASK, len(values)))
        try:
            values[rows] = store.take(rows)
        except BadRowsError as bad:
            if not keep_bad:
                raise
            errors.update({int(rows[position]): bad.errors[position] for position in bad.errors})
            good = np.delete(rows, list(bad.errors))
            values[good] = store.take(good)

    executor = ThreadPoolExecutor(store.workers, thread_name_prefix="hold")
    try:
        for _ in executor.map(read_some, range(0, len(values), _ROWS_PER_TASK)):
            pass  # In order, so that the error is of the first bad row.
    finally:
        executor.shutdown(cancel_futures=True)
    return HeldStore(values, errors, store)
