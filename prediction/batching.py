"""How rows are cut into the runs of a graph."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from checkpoints.loading.inference_graph import TensorInfo
from prediction.casting import Array
from prediction.collected import Kind
from prediction.errors import PredictionError
from prediction.rows import ColumnRows, Rows

DEFAULT_BATCH_SIZE = 256


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
    return Batching(_free_size(asked, num_rows, [info.name for info in whole]), fixed=False)


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


def _free_size(asked: int | None, num_rows: int, whole: Sequence[str]) -> int:
    """The rows of one run, where the graph takes any number of them."""
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
