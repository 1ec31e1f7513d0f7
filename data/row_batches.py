"""All rows of a source, in order: for evaluation and prediction."""

from collections.abc import Iterator

import numpy as np

from data.source import Array, Source


def row_batches(source: Source, batch_size: int) -> Iterator[tuple[Array, ...]]:
    """Yields the rows [0, B), [B, 2B), ...; the last batch may be shorter.

    Args:
      source: where the rows are.
      batch_size: B, 1 or more.
    """
    for first in range(0, len(source), batch_size):
        yield source.rows(np.arange(first, min(first + batch_size, len(source))))
