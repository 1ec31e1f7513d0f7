"""All rows of a source, in order: for evaluation and prediction."""

from collections.abc import Iterator

import numpy as np

from data.bad_rows import BadSoFar
from data.errors import DataError
from data.options import STOP
from data.read_ahead import read_ahead
from data.source import Array, Source


def row_batches(
    source: Source, batch_size: int, bad: BadSoFar | None = None, workers: int = 1
) -> Iterator[tuple[Array, ...]]:
    """Yields the rows [0, B), [B, 2B), ...; the last batch may be shorter.

    Args:
      source: where the rows are.
      batch_size: B, 1 or more.
      bad: the rows found bad so far, kept for the next time; under SKIP they are left out, so that
        any batch may be shorter. None is STOP.
      workers: threads that read ahead, 1 or more.

    Raises:
      DataError: a row is bad, under STOP; or none is good.
    """
    bad_so_far = BadSoFar(STOP) if bad is None else bad

    def batch(number: int) -> tuple[Array, ...]:
        first = number * batch_size
        indices = np.arange(first, min(first + batch_size, len(source)))
        indices = np.delete(indices, bad_so_far.positions(indices))
        while (rows := bad_so_far.rows(source, indices)) is None:
            indices = np.delete(indices, bad_so_far.positions(indices))
        return rows

    found_any = False
    count = -(-len(source) // batch_size)
    for arrays in read_ahead(batch, 0, count, depth=workers + 1, workers=workers):
        if len(arrays[0]):
            found_any = True
            yield arrays
    if count and not found_any:
        raise DataError(f"none of the {len(source)} rows can be read")
