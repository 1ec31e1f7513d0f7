"""How rows are cut into the runs of a graph, and what these fetch is put back into the rows' order.

Also where the rows are in the results of a graph that takes a fixed number of rows a run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from errors import CheckpointError, PredictionError
from metagraph.casting import Array, as_numpy_dtype
from metagraph.meta import TensorInfo
from prediction.rows import ColumnRows, Rows


class Kind(Enum):
    """How a fetched tensor goes with the rows."""

    ROWS = auto()  # its first dimension is the row's
    COLUMNS = auto()  # its last dimension is the row's
    ENTRY = auto()  # in runs of a single row: all of it belongs to that row
    CONSTANT = auto()  # it does not depend on the rows
    WHOLE = auto()  # one value over all rows, such as a mean


def kind_of(info: TensorInfo, depends_on_rows: bool, columns: bool = False) -> Kind:
    """The kind of a fetched tensor, as far as it can be told before the run.

    Args:
      info: the tensor.
      depends_on_rows: whether it is computed from what is fed by rows.
      columns: whether the rows are fed as columns (see `prediction.rows.ColumnRows`).
    """
    shape = info.shape
    if not depends_on_rows:
        return Kind.CONSTANT
    if columns and shape is not None and len(shape) > 1 and shape[-1] is None:
        return Kind.COLUMNS
    if shape is None or (shape and shape[0] is None):
        return Kind.ROWS
    return Kind.WHOLE


@dataclass(frozen=True)
class Layout:
    """Where the rows are in the value of a fetched tensor.

    Attributes:
      kind: as above.
      entries: of the first dimension that each row has, one after the other; 1 as a rule.
    """

    kind: Kind
    entries: int = 1


class Collected:
    """The results so far.

    Attributes:
      values: of each fetch: its rows in order, or its value where it has none. Complete once
        `add` has been given all rows.
    """

    def __init__(self, names: Sequence[str], layouts: Sequence[Layout], num_rows: int) -> None:
        self.values: list[Array] = []
        self._names = names
        self._layouts = layouts
        self._num_rows = num_rows

    def add(self, start: int, rows: int, fed: int, results: Sequence[Array]) -> None:
        """Takes the results of the rows [start, start + rows).

        Args:
          start: the first row.
          rows: how many there are.
          fed: how many were in the run: those after the first `rows` only filled it up.
          results: one for each fetch.

        Raises:
          PredictionError: a result has not one entry a row.
        """
        turned = [
            _rows_first(layout, result)
            for layout, result in zip(self._layouts, results, strict=True)
        ]
        if rows == fed == self._num_rows:  # One run of all rows: its values as they are.
            self.values = turned
            return
        if not self.values:
            self.values = [self._room(i, result) for i, result in enumerate(turned)]
        for i, result in enumerate(turned):
            layout = self._layouts[i]
            if layout.kind not in (Kind.CONSTANT, Kind.WHOLE):
                self._check(i, fed * layout.entries, result)
                stop = (start + rows) * layout.entries
                self.values[i][start * layout.entries : stop] = result[: rows * layout.entries]

    def _room(self, i: int, first: Array) -> Array:
        """An array for all results of fetch `i`, given those of the first batch."""
        layout = self._layouts[i]
        if layout.kind in (Kind.CONSTANT, Kind.WHOLE):
            return first
        return np.empty((self._num_rows * layout.entries, *first.shape[1:]), first.dtype)

    def _check(self, i: int, expected: int, result: Array) -> None:
        if result.shape[:1] != (expected,) or result.shape[1:] != self.values[i].shape[1:]:
            raise PredictionError(
                f"{self._names[i]} has shape {list(result.shape)} for {expected} rows, not one "
                f"entry a row: run all of them at once with --batch_size={self._num_rows}"
            )


def _rows_first(layout: Layout, result: Array) -> Array:
    if layout.kind is Kind.COLUMNS:
        return np.moveaxis(result, -1, 0)
    return result[np.newaxis] if layout.kind is Kind.ENTRY else result


# How rows are cut into the runs of a graph.

DEFAULT_BATCH_SIZE = 256
DEFAULT_BATCH_BYTES = 2**28  # That the rows of such a batch have at most.


class Batching(NamedTuple):
    """How rows are cut into runs.

    Attributes:
      size: rows a run.
      fixed: whether the graph takes exactly that many, so that a shorter batch is filled up.
      declared: whether it says so by the shape of what is fed.
    """

    size: int
    fixed: bool
    declared: bool = False


def choose_batching(
    feeds: Sequence[tuple[TensorInfo, Rows | Array]],
    fetches: Sequence[tuple[TensorInfo, Kind]],
    asked: int | None,
    num_rows: int,
) -> Batching:
    """Cuts rows as the graph takes them, or else as was asked for, or else into fast runs.

    Args:
      feeds: each tensor, with its rows or the array that it is fed in every run.
      fetches: each tensor, with how it goes with the rows.
      asked: rows a run, None for a fast number.
      num_rows: in all.

    Raises:
      PredictionError: what the graph takes and what is asked for do not go together.
    """
    declared = _declared_size(feeds)
    if declared is not None:
        name, size = declared
        if asked not in (None, size):
            raise PredictionError(f"{name} takes {size} rows a run: leave out --batch_size")
        return Batching(size, fixed=True, declared=True)
    whole = [info for info, kind in fetches if kind is Kind.WHOLE]
    if asked and whole and all(info.shape and info.shape[0] == asked for info in whole):
        return Batching(asked, fixed=True)  # The graph is made for batches of this very size.
    if not whole:
        return Batching(asked or _default_size([feed for _, feed in feeds]), fixed=False)
    return Batching(_size_of_all(asked, num_rows, whole[0].name), fixed=False)


def _declared_size(feeds: Sequence[tuple[TensorInfo, Rows | Array]]) -> tuple[str, int] | None:
    """A tensor of a fixed number of rows, and that number; None where any number goes."""
    sizes = {
        info.shape[0]: info.name
        for info, feed in feeds
        if not isinstance(feed, np.ndarray | ColumnRows) and info.shape and info.shape[0]
    }
    if not sizes:
        return None
    if len(sizes) > 1:
        described = ", ".join(f"{name} {size}" for size, name in sizes.items())
        raise PredictionError(f"the graph takes different numbers of rows a run: {described}")
    ((size, name),) = sizes.items()
    if any(isinstance(feed, ColumnRows) for _, feed in feeds):
        raise PredictionError(f"{name} takes {size} rows a run, which none in columns goes with")
    return name, size


def _default_size(feeds: Sequence[Rows | Array]) -> int:
    """The rows of one run where nobody asks for a number: fewer where they are large."""
    row_bytes = sum(_first_row_bytes(feed) for feed in feeds if not isinstance(feed, np.ndarray))
    return max(1, min(DEFAULT_BATCH_SIZE, DEFAULT_BATCH_BYTES // max(1, row_bytes)))


def _first_row_bytes(rows: Rows) -> int:
    """Bytes of the first row as it is fed; of strings, their own."""
    first = rows.batch(0, 1)
    return sum(map(len, first.flat)) if first.dtype.kind == "O" else first.nbytes


def _size_of_all(asked: int | None, num_rows: int, whole: str) -> int:
    """The rows of one run, where the tensor `whole` is one value over all of them."""
    if asked is not None and asked < num_rows:
        raise PredictionError(
            f"{whole} is one value over all {num_rows} rows, not one a row: leave out "
            f"--batch_size, or give at least {num_rows}"
        )
    if num_rows > DEFAULT_BATCH_SIZE:
        logging.info("%s is one value over all %d rows: they run at once", whole, num_rows)
    return num_rows


# Where the rows are in the results of a graph that takes a fixed number of rows a run.

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
