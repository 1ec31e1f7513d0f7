"""Runs a restored graph over rows, batch after batch, with the results in the rows' order."""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from absl import logging
from tqdm import tqdm

from checkpoints.loading.inference_graph import InferenceGraph
from data.read_ahead import read_ahead
from prediction.casting import Array
from prediction.collected import Collected, Kind, Layout
from prediction.errors import PredictionError
from prediction.fixed_batch import FilledRun, fill_up
from prediction.rows import ColumnRows, Rows

DEFAULT_BATCH_SIZE = 256

FirstRun = Callable[[Sequence[Array], Sequence[Array]], None]


class _Batching(NamedTuple):
    """How rows are cut into runs.

    Attributes:
      size: rows a run.
      fixed: whether the graph takes exactly that many, so that a shorter batch is filled up.
      declared: whether it says so by the shape of what is fed.
    """

    size: int
    fixed: bool
    declared: bool = False


def run_rows(
    graph: InferenceGraph,
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    batch_size: int | None = None,
    first_run: FirstRun | None = None,
) -> list[Array]:
    """Runs all rows through the graph.

    Where a tensor that is fed by rows has a fixed first dimension, each run has as many rows: the
    last one is filled up, and its results are cut back.

    Args:
      graph: the restored graph.
      feeds: for each of `graph.feeds`, rows to be fed a batch at a time, or an array to be fed
        as it is in every batch. At least one has rows, and all that have are of equal length.
      kinds: of each of `graph.fetches`.
      batch_size: rows a run; the last batch is simply shorter, unless the graph or one of its
        fetches is made for exactly that many. None is a fast one, or, where a fetched tensor is
        one value over all rows, one run of them all.
      first_run: called with what the first run was fed and what it gave.

    Returns:
      For each fetch: its rows in order, or its value where it has none.

    Raises:
      PredictionError: a value over all rows is asked for in several batches, or in one that is
        filled up; or --batch_size is not the one that the graph takes.
      CheckpointError: the graph fails.
    """
    by_rows = [not isinstance(feed, np.ndarray) for feed in feeds]
    num_rows = len(feeds[by_rows.index(True)])
    size, fixed, declared = _batching(graph, feeds, kinds, batch_size, num_rows)

    def batch(step: int) -> list[Array]:
        start, stop = step * size, min((step + 1) * size, num_rows)
        cut = [f if isinstance(f, np.ndarray) else f.batch(start, stop) for f in feeds]
        if not fixed:
            return cut
        return [fill_up(v, size) if r else v for v, r in zip(cut, by_rows, strict=True)]

    collected = None
    with _progress_bar(num_rows) as progress:
        for step, values in enumerate(read_ahead(batch, 0, -(-num_rows // size))):
            results, rows = graph.run(*values), min(size, num_rows - step * size)
            if collected is None:
                if first_run is not None:
                    first_run(values, results)
                layouts = [*map(Layout, kinds)]
                if fixed and num_rows != size:
                    first = FilledRun(graph.run, values, by_rows, results, declared)
                    layouts = _settled(graph, kinds, first)
                collected = Collected([f.name for f in graph.fetches], layouts, num_rows)
            collected.add(step * size, rows, size if fixed else rows, results)
            progress.update(rows)
    return collected.values if collected else []


def _settled(graph: InferenceGraph, kinds: Sequence[Kind], first: FilledRun) -> list[Layout]:
    """Where the rows are in each result of a graph that takes a fixed number of them."""
    return [
        first.layout(i, info.name, kind)
        for i, (info, kind) in enumerate(zip(graph.fetches, kinds, strict=True))
    ]


def _progress_bar(num_rows: int) -> "tqdm[NoReturn]":
    """A bar that appears after a second, on a terminal only, and goes when it is full."""
    return tqdm(total=num_rows, unit="row", file=sys.stderr, disable=None, leave=False, delay=1)


def _batching(
    graph: InferenceGraph,
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    asked: int | None,
    num_rows: int,
) -> _Batching:
    sizes = {
        info.shape[0]: info.name
        for info, feed in zip(graph.feeds, feeds, strict=False)
        if not isinstance(feed, np.ndarray | ColumnRows) and info.shape and info.shape[0]
    }
    if len(sizes) > 1:
        described = ", ".join(f"{name} {size}" for size, name in sizes.items())
        raise PredictionError(f"the graph takes different numbers of rows a run: {described}")
    for size, name in sizes.items():
        if any(isinstance(feed, ColumnRows) for feed in feeds):
            raise PredictionError(
                f"{name} takes {size} rows a run, which none in columns goes with"
            )
        if asked not in (None, size):
            raise PredictionError(f"{name} takes {size} rows a run: leave out --batch_size")
        return _Batching(size, fixed=True, declared=True)
    whole = [f for f, kind in zip(graph.fetches, kinds, strict=True) if kind is Kind.WHOLE]
    if asked and whole and all(info.shape and info.shape[0] == asked for info in whole):
        return _Batching(asked, fixed=True)  # The graph is made for batches of this very size.
    return _Batching(_batch_size(asked, num_rows, [info.name for info in whole]), fixed=False)


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
