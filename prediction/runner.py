"""Runs a restored graph over rows, batch after batch, with the results in the rows' order."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from checkpoints.loading.inference_graph import InferenceGraph
from checkpoints.loading.tensor_info import TensorInfo
from data.read_ahead import read_ahead
from prediction.batching import Batching, choose_batching
from prediction.casting import Array
from prediction.collected import Collected, Kind, Layout
from prediction.fixed_batch import FilledRun, fill_up
from prediction.rows import Rows

FirstRun = Callable[[Sequence[Array], Sequence[Array]], None]


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
    fetches = [*zip(graph.fetches, kinds, strict=True)]
    batching = choose_batching(
        [*zip(graph.feeds, feeds, strict=False)], fetches, batch_size, num_rows
    )
    size, fixed, declared = batching
    collected = None
    with _progress_bar(num_rows) as progress:
        for step, fed in enumerate(_batches(feeds, batching, num_rows)):
            results, rows = graph.run(*fed), min(size, num_rows - step * size)
            if collected is None:
                if first_run is not None:
                    first_run(fed, results)
                first = FilledRun(graph.run, fed, by_rows, results, declared)
                filled = first if fixed and num_rows != size else None
                collected = _collected(fetches, filled, num_rows)
            collected.add(step * size, rows, size if fixed else rows, results)
            progress.update(rows)
    return collected.values if collected else []


def _batches(
    feeds: Sequence[Rows | Array], batching: Batching, num_rows: int
) -> Iterator[list[Array]]:
    """What each run is fed, read while the one before it runs."""

    def batch(step: int) -> list[Array]:
        start = step * batching.size
        stop = min(start + batching.size, num_rows)
        return [_cut(feed, start, stop) for feed in feeds]

    def _cut(feed: Rows | Array, start: int, stop: int) -> Array:
        if isinstance(feed, np.ndarray):
            return feed
        values = feed.batch(start, stop)
        return fill_up(values, batching.size) if batching.fixed else values

    return read_ahead(batch, 0, -(-num_rows // batching.size))


def _collected(
    fetches: Sequence[tuple[TensorInfo, Kind]], filled: FilledRun | None, num_rows: int
) -> Collected:
    """What gathers the results, once it is known where the rows are in each.

    Args:
      fetches: each tensor, with how it goes with the rows.
      filled: the first run of a graph that takes a fixed number of rows, where another number is
        given; None where the rows are as the kinds say.
      num_rows: in all.
    """
    names = [info.name for info, _ in fetches]
    if filled is None:
        return Collected(names, [Layout(kind) for _, kind in fetches], num_rows)
    layouts = [filled.layout(i, info.name, kind) for i, (info, kind) in enumerate(fetches)]
    return Collected(names, layouts, num_rows)


def _progress_bar(num_rows: int) -> "tqdm[NoReturn]":
    """A bar that appears after a second, on a terminal only, and goes when it is full."""
    return tqdm(total=num_rows, unit="row", file=sys.stderr, disable=None, leave=False, delay=1)
