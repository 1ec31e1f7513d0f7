"""Runs a restored graph over rows, batch after batch, with the results in the rows' order."""

import sys
from collections.abc import Sequence
from enum import Enum, auto
from typing import NoReturn

import numpy as np
from absl import logging
from tqdm import tqdm

from checkpoints.inference_graph import InferenceGraph, TensorInfo
from data.read_ahead import read_ahead
from prediction.casting import Array
from prediction.errors import PredictionError
from prediction.rows import Rows

DEFAULT_BATCH_SIZE = 256


class Kind(Enum):
    """How a fetched tensor goes with the rows."""

    ROWS = auto()  # its first dimension is the row's
    CONSTANT = auto()  # it does not depend on the rows
    WHOLE = auto()  # one value over all rows, such as a mean


def kind_of(info: TensorInfo, depends_on_rows: bool) -> Kind:
    """The kind of a fetched tensor, as far as it can be told before the run."""
    if not depends_on_rows:
        return Kind.CONSTANT
    if info.shape is None or (info.shape and info.shape[0] is None):
        return Kind.ROWS
    return Kind.WHOLE


def run_rows(
    graph: InferenceGraph,
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    batch_size: int | None = None,
) -> list[Array]:
    """Runs all rows through the graph.

    Args:
      graph: the restored graph.
      feeds: for each of `graph.feeds`, rows to be fed a batch at a time, or an array to be fed
        as it is in every batch. At least one has rows, and all that have are of equal length.
      kinds: of each of `graph.fetches`.
      batch_size: rows a run; the last batch is simply shorter. None is a fast one, or, where a
        fetched tensor is one value over all rows, one run of them all.

    Returns:
      For each fetch: its rows in order, or its value where it has none.

    Raises:
      PredictionError: a value over all rows is asked for in several batches.
      CheckpointError: the graph fails.
    """
    num_rows = next(len(feed) for feed in feeds if not isinstance(feed, np.ndarray))
    whole = [f.name for f, kind in zip(graph.fetches, kinds, strict=True) if kind is Kind.WHOLE]
    size = _batch_size(batch_size, num_rows, whole)

    def batch(step: int) -> list[Array]:
        start, stop = step * size, min((step + 1) * size, num_rows)
        return [f if isinstance(f, np.ndarray) else f.batch(start, stop) for f in feeds]

    collected = _Collected(graph, kinds, num_rows)
    with _progress_bar(num_rows) as progress:
        for step, values in enumerate(read_ahead(batch, 0, -(-num_rows // size))):
            rows = min(size, num_rows - step * size)
            collected.add(step * size, rows, graph.run(*values))
            progress.update(rows)
    return collected.values


def _progress_bar(num_rows: int) -> "tqdm[NoReturn]":
    """A bar that appears after a second, on a terminal only, and goes when it is full."""
    return tqdm(total=num_rows, unit="row", file=sys.stderr, disable=None, leave=False, delay=1)


def _batch_size(asked: int | None, num_rows: int, whole: Sequence[str]) -> int:
    """The rows of one run."""
    if not whole:
        return asked or DEFAULT_BATCH_SIZE
    if asked is not None and asked < num_rows:
        raise PredictionError(
            f"{whole[0]} is one value over all {num_rows} rows, not one a row: leave out "
            f"--batch_size, or give at least {num_rows}"
        )
    if num_rows > DEFAULT_BATCH_SIZE:
        logging.info("%s is one value over all %d rows: they run at once", whole[0], num_rows)
    return num_rows


class _Collected:
    """The results so far."""

    def __init__(self, graph: InferenceGraph, kinds: Sequence[Kind], num_rows: int) -> None:
        self.values: list[Array] = []
        self._names = [info.name for info in graph.fetches]
        self._kinds = kinds
        self._num_rows = num_rows

    def add(self, start: int, rows: int, results: list[Array]) -> None:
        """Takes the results of the rows [start, start + rows)."""
        if rows == self._num_rows:
            self.values = results
            return
        if not self.values:
            self.values = [self._room(i, result) for i, result in enumerate(results)]
        for i, result in enumerate(results):
            if self._kinds[i] is Kind.ROWS:
                self._check(i, rows, result)
                self.values[i][start : start + rows] = result

    def _room(self, i: int, first: Array) -> Array:
        """An array for all results of fetch `i`, given those of the first batch."""
        if self._kinds[i] is not Kind.ROWS:
            return first
        return np.empty((self._num_rows, *first.shape[1:]), first.dtype)

    def _check(self, i: int, rows: int, result: Array) -> None:
        if result.shape[:1] != (rows,) or result.shape[1:] != self.values[i].shape[1:]:
            raise PredictionError(
                f"{self._names[i]} has shape {list(result.shape)} for {rows} rows, not one entry a "
                f"row: run all of them at once with --batch_size={self._num_rows}"
            )
