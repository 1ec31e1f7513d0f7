"""Where the rows are in the results of a graph that takes a fixed number of rows a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from checkpoints.errors import CheckpointError
from prediction.casting import Array, as_numpy_dtype
from prediction.collected import Kind, Layout
from prediction.errors import PredictionError

BoolArray = npt.NDArray[np.bool_]


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
            if all(self._is_own(trial, fetch, entries) for trial in self._trials):
                return Layout(Kind.ROWS, entries)
        raise PredictionError(
            f"{name} has shape {list(result.shape)} for the {size} rows that the graph takes a "
            f"run, and no row's own part can be told in it: give exactly {size} rows"
        )

    def _warn_unless_apart(self, fetch: int, name: str) -> None:
        """Says so where a row's result is not that row's alone, as with a norm over the batch."""
        size = len(self.results[fetch])
        if size == 1:
            return  # Nothing else is ever in its run.
        tested = [trial for trial in self._trials if trial.results is not None]
        if any(self._reaches_others(trial, fetch) for trial in tested):
            logging.warning(
                "%s is not worked out row by row: what else is in a run changes a row's result, "
                "and in the last run the last row is there again and again",
                name,
            )
        elif not tested:
            logging.warning(
                "%s: the graph takes %d rows a run, and whether those that fill it up change a "
                "row's result could not be tested, as there is no second row to try",
                name,
                size,
            )

    def _reaches_others(self, trial: "_Trial", fetch: int) -> bool:
        """Whether it changed entries of other rows; its own may well stay, as a class does."""
        changed = self._changed(trial, fetch)
        return changed is None or bool(np.delete(changed, trial.row).any())

    def _is_own(self, trial: "_Trial", fetch: int, entries: int) -> bool:
        """Whether it changed entries of its own row, and no others."""
        changed = self._changed(trial, fetch)
        if changed is None:
            return False
        found = np.flatnonzero(changed)
        first, end = trial.row * entries, (trial.row + 1) * entries
        return bool(len(found) and found[0] >= first and found[-1] < end)

    def _changed(self, trial: "_Trial", fetch: int) -> BoolArray | None:
        """Which entries of a result it changed, bool [entries]; None where that cannot be said."""
        if trial.results is None or trial.results[fetch].shape != self.results[fetch].shape:
            return None
        before, after = map(as_numpy_dtype, (self.results[fetch], trial.results[fetch]))
        both_nan = np.not_equal(before, before) & np.not_equal(after, after)
        different = np.asarray(np.not_equal(before, after) & ~both_nan, bool)
        return np.asarray(different.reshape(len(before), -1).any(axis=1))

    @cached_property
    def _trials(self) -> "tuple[_Trial, ...]":
        """The first and the last row, each tried with another one in its place."""
        batches = [values for values, rows in zip(self.fed, self.by_rows, strict=True) if rows]
        last = len(batches[0]) - 1
        return tuple(_Trial(row, self._with_another(row, batches)) for row in (0, last))

    def _with_another(self, row: int, batches: Sequence[Array]) -> Sequence[Array] | None:
        """The results with another row in the place of `row`: a fed one, or else a made one."""
        others = _another_fed(row, batches)
        is_made = others is None
        others = others or [_another_made(batch[row : row + 1])[0] for batch in batches]
        if all(np.array_equal(o, b[row]) for o, b in zip(others, batches, strict=True)):
            return None
        waiting = iter(others)
        fed = [
            _replaced(values, row, next(waiting)) if rows else values
            for values, rows in zip(self.fed, self.by_rows, strict=True)
        ]
        try:
            return self.run(*fed)
        except CheckpointError:
            if is_made:  # A number that the graph does not know, as of a word.
                return None
            raise


class _Trial(NamedTuple):
    """A run like the first one, but for one row.

    Attributes:
      row: the one that was replaced.
      results: what it gave; None where there was nothing to put in, or the graph refused it.
    """

    row: int
    results: Sequence[Array] | None


def _another_fed(row: int, batches: Sequence[Array]) -> list[Array] | None:
    """The first row that is fed something else than `row`; None where all are the same."""
    for other in range(len(batches[0])):
        if any(not np.array_equal(batch[other], batch[row]) for batch in batches):
            return [batch[other] for batch in batches]
    return None


def _another_made(values: Array) -> Array:
    """Other values in the place of a row's, [1, ...], where they are numbers; else the same.

    Integers may be the numbers of words or classes: they become 0 or 1, which any such list has.
    Floats stay in the range [0, 1] of images, with another mean and another spread.
    """
    if values.dtype.kind in "iub":
        made = np.zeros_like(values)
        return np.ones_like(values) if np.array_equal(made, values) else made
    if values.dtype.kind == "O" or values.dtype.names or not _is_float(values):
        return values
    with np.errstate(all="ignore"):  # Infinities stay what they are.
        made = np.asarray((1 - values) / 2).astype(values.dtype)
    return np.asarray(values / 2).astype(values.dtype) if np.array_equal(made, values) else made


def _is_float(values: Array) -> bool:
    dtype = tf.as_dtype(values.dtype)
    return bool(dtype.is_floating or dtype.is_complex)


def _replaced(values: Array, row: int, other: Array) -> Array:
    copy = values.copy()
    copy[row] = other
    return copy
