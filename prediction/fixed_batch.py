"""Where the rows are in the results of a graph that takes a fixed number of rows a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from absl import logging

from prediction.casting import Array
from prediction.collected import Kind, Layout
from prediction.errors import PredictionError


def fill_up(batch: Array, size: int) -> Array:
    """A batch of `size` rows: the last row again and again after those that are there.

    Not zeros: a row of the input is what the graph is made for, while a zero may be divided by,
    and an empty string is no image or record that a graph could decode.
    """
    missing = size - len(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch


@dataclass(frozen=True, eq=False)
class FilledRun:
    """The first run of a graph that takes a fixed number of rows.

    Attributes:
      run: runs the graph.
      fed: what it was fed.
      by_rows: for each of `fed`, whether its first dimension is the row's.
      results: what it gave.
      declared: whether the graph itself says that it takes as many rows, by the shape of what is
        fed; else that is only what was asked for.
    """

    run: Callable[..., list[Array]]
    fed: Sequence[Array]
    by_rows: Sequence[bool]
    results: Sequence[Array]
    declared: bool = True

    def layout(self, fetch: int, name: str, kind: Kind) -> Layout:
        """Where the rows are in the result `fetch`.

        A first dimension of as many entries as the graph declares that it takes is the rows'. One
        of a multiple, such as the 49 positions of each image one after the other, is so where an
        experiment shows it: with one row changed, that row's entries change and no others. In a
        run of a single row, all of the value is that row's.

        Args:
          fetch: the index of the result.
          name: of the tensor, for an error line.
          kind: what is known of it from its shape.

        Raises:
          PredictionError: the rows cannot be told apart in it.
        """
        result, size = self.results[fetch], len(self.fed[self.by_rows.index(True)])
        if kind in (Kind.CONSTANT, Kind.COLUMNS):
            return Layout(kind)
        if self.declared and result.shape[:1] == (size,):
            self._warn_unless_apart(fetch, name)
            return Layout(Kind.ROWS)
        if size == 1:
            return Layout(Kind.ENTRY)
        if result.ndim and len(result) and len(result) % size == 0:
            entries = len(result) // size
            if all(self._is_own(row, fetch, entries) for row in (0, size - 1)):
                return Layout(Kind.ROWS, entries)
        raise PredictionError(
            f"{name} has shape {list(result.shape)} for the {size} rows that the graph takes a "
            f"run, and no row's own part can be told in it: give exactly {size} rows"
        )

    def _warn_unless_apart(self, fetch: int, name: str) -> None:
        """Says so where a row's result is not that row's alone, as with a norm over the batch."""
        rows = [row for row in (0, len(self.results[fetch]) - 1) if self._unlike(row) is not None]
        if not all(self._is_own(row, fetch, 1) for row in rows):
            logging.warning(
                "%s is not worked out row by row: what else is in a run changes a row's result, "
                "and in the last run the last row is there again and again",
                name,
            )

    def _is_own(self, row: int, fetch: int, entries: int) -> bool:
        """Whether another row in the place of `row` changes that row's entries and no others."""
        other = self._unlike(row)
        if other is None:
            return False
        fed = [
            _replaced(values, row, other) if rows else values
            for values, rows in zip(self.fed, self.by_rows, strict=True)
        ]
        changed, result = self.run(*fed)[fetch], self.results[fetch]
        if changed.shape != result.shape:
            return False
        found = np.flatnonzero((changed != result).reshape(len(result), -1).any(axis=1))
        first, end = row * entries, (row + 1) * entries
        return bool(len(found) and found[0] >= first and found[-1] < end)

    def _unlike(self, row: int) -> int | None:
        """A row that is fed something else than `row`; None where all are the same."""
        batches = [values for values, rows in zip(self.fed, self.by_rows, strict=True) if rows]
        for other in range(len(batches[0])):
            if any(not np.array_equal(batch[other], batch[row]) for batch in batches):
                return other
        return None


def _replaced(values: Array, row: int, other: int) -> Array:
    copy = values.copy()
    copy[row] = values[other]
    return copy
