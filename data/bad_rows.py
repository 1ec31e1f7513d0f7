"""What becomes of a batch when some of its examples cannot be read."""

import threading

from absl import logging

from data.batches import ShuffledBatches
from data.errors import BadRowsError, DataError
from data.options import SKIP, STOP
from data.source import Array, Indices, Source


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
        while True:
            indices = self._good_indices(step)
            try:
                return self._source.rows(indices)
            except BadRowsError as bad:
                self._bad.note(indices, bad)

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
        self._lock = threading.Lock()

    def note(self, indices: Indices, bad: BadRowsError) -> None:
        """Takes in what was raised for these rows; logs those that are new.

        Raises:
          DataError: under STOP, what was raised and the flag that goes on without it.
        """
        if self._on_bad != SKIP:
            raise stopped_by(bad) from bad
        with self._lock:
            for position, error in sorted(bad.errors.items()):
                row = int(indices[position])
                if row not in self._rows:
                    self._rows.add(row)
                    logging.warning("skipped: %s", error)

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
