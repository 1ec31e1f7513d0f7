"""How rows are cut into runs."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from errors import PredictionError
from metagraph.meta import TensorInfo
from prediction import batching
from prediction.batching import DEFAULT_BATCH_SIZE, Batching, Kind, choose_batching
from prediction.rows import ArrayRows, ColumnRows

Y = TensorInfo("y:0", tf.float32, (None,))


def _fed(name: str, *shape: int | None) -> tuple[TensorInfo, Any]:
    info = TensorInfo(f"{name}:0", tf.float32, shape)
    return info, ArrayRows(np.zeros((9, 2), np.float32), info, "here")


FREE, OF_FOUR, OF_FIVE = _fed("free", None, 2), _fed("four", 4, 2), _fed("five", 5, 2)
CONSTANT = (TensorInfo("c:0", tf.float32, (3,)), np.zeros(3, np.float32))
COLUMNS = (FREE[0], ColumnRows(np.zeros((9, 2)), TensorInfo("x:0", tf.float32, (2, None)), "here"))
WORDS = TensorInfo("words:0", tf.string, (None,))
TEXTS = (WORDS, ArrayRows(np.array([b"seven"] * 9, object), WORDS, "here"))
ROWS, MEAN = (Y, Kind.ROWS), (TensorInfo("mean:0", tf.float32, ()), Kind.WHOLE)
SEVEN = (TensorInfo("seven:0", tf.float32, (7, 2)), Kind.WHOLE)


@pytest.mark.parametrize(
    ("feeds", "fetches", "asked", "expected"),
    [
        ([FREE], [ROWS], None, Batching(DEFAULT_BATCH_SIZE, fixed=False)),
        ([FREE, CONSTANT], [ROWS], 3, Batching(3, fixed=False)),
        ([FREE], [ROWS, MEAN], None, Batching(9, fixed=False)),
        ([FREE], [MEAN], 20, Batching(9, fixed=False)),
        ([FREE], [SEVEN], 7, Batching(7, fixed=True)),
        ([FREE, OF_FOUR], [ROWS], None, Batching(4, fixed=True, declared=True)),
        ([OF_FOUR, CONSTANT], [MEAN], 4, Batching(4, fixed=True, declared=True)),
    ],
)
def test_the_graph_decides_and_then_the_user(
    feeds: Any, fetches: Any, asked: int | None, expected: Batching
) -> None:
    assert choose_batching(feeds, fetches, asked, 9) == expected


@pytest.mark.parametrize(
    ("feeds", "limit", "expected"),
    [
        ([FREE], 9 * 8, 9),
        ([FREE], 9 * 8 - 1, 8),
        ([FREE], 7, 1),
        ([FREE, FREE, CONSTANT], 9 * 16 + 15, 9),
        ([COLUMNS], 9 * 8, 9),
        ([TEXTS], 7 * 5, 7),
        ([FREE], 10**9, DEFAULT_BATCH_SIZE),
    ],
)
def test_rows_that_are_large_run_in_fewer_at_once(
    monkeypatch: pytest.MonkeyPatch, feeds: Any, limit: int, expected: int
) -> None:
    monkeypatch.setattr(batching, "DEFAULT_BATCH_BYTES", limit)
    assert choose_batching(feeds, [ROWS], None, 9) == Batching(expected, fixed=False)
    assert choose_batching(feeds, [ROWS], 100, 9).size == 100
    assert choose_batching(feeds, [MEAN], None, 9).size == 9


@pytest.mark.parametrize(
    ("feeds", "fetches", "asked", "message"),
    [
        ([OF_FOUR, OF_FIVE], [ROWS], None, "different numbers of rows a run: four:0 4, five:0 5"),
        ([OF_FOUR], [ROWS], 5, "four:0 takes 4 rows a run: leave out --batch_size"),
        ([OF_FOUR, COLUMNS], [ROWS], None, "four:0 takes 4 rows a run, which none in columns"),
        ([FREE], [MEAN], 8, "mean:0 is one value over all 9 rows.* or give at least 9"),
    ],
)
def test_what_does_not_go_together(
    feeds: Any, fetches: Any, asked: int | None, message: str
) -> None:
    with pytest.raises(PredictionError, match=message):
        choose_batching(feeds, fetches, asked, 9)
