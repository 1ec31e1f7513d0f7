import numpy as np
import pytest

from data.batches import row_batches
from data.source import ArraySource


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [(1, [[0], [1], [2], [3], [4]]), (2, [[0, 1], [2, 3], [4]]), (5, [[0, 1, 2, 3, 4]]), (9, None)],
)
def test_every_row_comes_once_in_order(batch_size: int, expected: list[list[int]] | None) -> None:
    source = ArraySource(np.zeros((5, 2), np.float32), np.arange(5))
    batches = [y.tolist() for _, y in row_batches(source, batch_size)]
    assert batches == (expected or [[0, 1, 2, 3, 4]])
