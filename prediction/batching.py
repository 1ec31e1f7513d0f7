"""How rows are cut into the runs of a graph."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from checkpoints.loading.tensor_info import TensorInfo
from prediction.casting import Array
from prediction.collected import Kind
from prediction.errors import PredictionError
from prediction.rows import ColumnRows, Rows

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
