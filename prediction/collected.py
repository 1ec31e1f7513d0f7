"""Gathers what the runs over batches of rows fetch, in the rows' order."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from checkpoints.loading.tensor_info import TensorInfo
from prediction.casting import Array
from prediction.errors import PredictionError


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
