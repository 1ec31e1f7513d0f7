"""What becomes of a batch when some of its examples cannot be read."""

import threading

from absl import logging

from data.batches import ShuffledBatches
from data.errors import BadRowsError, DataError, RefusedError
from data.options import SKIP, STOP
from data.source import Array, Indices, Source

_MOST_REFUSED = 32  # In a row: with so many, it is no longer the files that are at fault.


class TrainingBatches:
    """The batches of a source, shuffled, with a good example in place of each bad one.

    A bad example is replaced by the next good one in the order of the examples
    (`ShuffledBatches`): all others stay where they are, the batch has its size, and a batch is
    still a pure function of (seed, step), given the data. Each bad one is logged once.
    """

    def __init__(self, source: Source, order: ShuffledBatches, on_bad: str = STOP) -> None:
        """Takes the examples, their order, and what a bad one does: STOP or SKIP."""
        self._source = source
        self._order = order
        self._bad = BadSoFar(on_bad)

    def batch(self, step: int) -> tuple[Array, ...]:
        """The batch of `step`, 0 or more; may be called by several threads at once.

        Raises:
          DataError: an example is bad, under STOP; or none is good.
        """
        rows = None
        while rows is None:
            rows = self._bad.rows(self._source, self._good_indices(step))
        return rows

    def _good_indices(self, step: int) -> Indices:
        indices = self._order.indices(step)
        bad = self._bad.positions(indices)
        if not bad:
            return indices
        indices = indices.copy()
        for position in bad:
            indices[position] = self._next_good(step * len(indices) + position)
        return indices

    def _next_good(self, place: int) -> int:
        # Two epochs from here hold each example, wherever it is in them.
        for later in range(place + 1, place + 2 * len(self._source)):
            index = self._order.example(later)
            if not self._bad.has(index):
                return index
        raise DataError(f"none of the {len(self._source)} training examples can be read")


class BadSoFar:
    """The rows of a source that were found bad; may be used by several threads at once."""

    def __init__(self, on_bad: str) -> None:
        """Takes what the first one does: STOP or SKIP."""
        self._on_bad = on_bad
        self._rows: set[int] = set()
        self._refused_in_a_row = 0
        self._lock = threading.Lock()

    def rows(self, source: Source, indices: Indices) -> tuple[Array, ...] | None:
        """The rows; None where some are bad, which `positions` tells from then on.

        Those that are new are logged.

        Raises:
          DataError: under STOP, what was raised and the flag that goes on without it; under SKIP,
            the file system refuses one file after the other.
        """
        try:
            rows = source.rows(indices)
        except BadRowsError as bad:
            self._note(indices, bad)
            return None
        if len(indices):
            self._refused_in_a_row = 0
        return rows

    def _note(self, indices: Indices, bad: BadRowsError) -> None:
        if self._on_bad != SKIP:
            raise stopped_by(bad) from bad
        with self._lock:
            for position, row in enumerate(indices.tolist()):
                error = bad.errors.get(position)
                if error is None:
                    self._refused_in_a_row = 0
                elif row not in self._rows:
                    self._count_refused(error)
                    self._rows.add(row)
                    logging.warning("skipped: %s", error)

    def _count_refused(self, error: DataError) -> None:
        refused = isinstance(error, RefusedError)
        self._refused_in_a_row = self._refused_in_a_row + 1 if refused else 0
        if self._refused_in_a_row >= _MOST_REFUSED:
            raise DataError(
                f"{error}; {_MOST_REFUSED} in a row cannot be opened: see to the permissions or "
                "the disk, then run the same line again"
            ) from error

    def has(self, row: int) -> bool:
        """Whether this row was found bad."""
        return row in self._rows

    def positions(self, indices: Indices) -> list[int]:
        """Where in `indices` the bad ones are."""
        if not self._rows:
            return []
        return [position for position, row in enumerate(indices.tolist()) if row in self._rows]


def stopped_by(bad: BadRowsError) -> DataError:
    """What the user is told of a bad row: with the flag that goes on without it."""
    return DataError(f"{bad}; --on_bad_image={SKIP} goes on without it")
