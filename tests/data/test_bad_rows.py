import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from data.batches import BadSoFar, ShuffledBatches, TrainingBatches, read_ahead, row_batches
from data.options import SKIP, STOP
from data.source import Array, Indices, StoredSource
from errors import BadRowsError, DataError, RefusedError
from tests.data.conftest import DataErrorLine

COUNT, SEED = 11, 3


@dataclass
class Numbers:
    """Row i holds the number i; some rows are bad, and reading takes a random time."""

    bad: frozenset[int] = frozenset()
    workers: int = 1
    shape: tuple[int, ...] = (COUNT,)
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    error: type[DataError] = DataError

    def take(self, indices: Indices) -> Array:
        time.sleep(random.random() / 500)
        errors = {
            position: self.error(f"{row}.png: is bad")
            for position, row in enumerate(indices.tolist())
            if row in self.bad
        }
        if errors:
            raise BadRowsError(errors)
        return indices.astype(np.float32)

    def digest(self) -> str:
        return ""


def batches(bad: frozenset[int], on_bad: str = SKIP, batch_size: int = 4) -> TrainingBatches:
    source = StoredSource(Numbers(bad), np.arange(COUNT))
    return TrainingBatches(source, ShuffledBatches(COUNT, batch_size, SEED), on_bad)


def expected(step: int, bad: frozenset[int], batch_size: int = 4) -> list[int]:
    """By the rule: of the stream of examples, each bad one becomes the next good one."""
    order = ShuffledBatches(COUNT, 1, SEED)
    stream = [int(order.indices(place)[0]) for place in range(20 * COUNT)]
    return [
        next(example for example in stream[place:] if example not in bad)
        for place in range(step * batch_size, (step + 1) * batch_size)
    ]


@pytest.mark.parametrize("bad", [(), (5,), (0, 1, 2), tuple(range(10))])
def test_a_bad_example_is_replaced_by_the_next_good_one(bad: tuple[int, ...]) -> None:
    given = batches(frozenset(bad))
    for step in range(12):
        x, y = given.batch(step)
        assert y.tolist() == x.tolist() == expected(step, frozenset(bad))


def test_the_good_examples_stay_where_they_are() -> None:
    bad = frozenset({2, 8})
    skipped, whole = batches(bad), batches(frozenset())
    for step in range(12):
        _, found = skipped.batch(step)
        _, all_good = whole.batch(step)
        is_good = ~np.isin(all_good, list(bad))
        assert np.array_equal(found[is_good], all_good[is_good])


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    bad = frozenset({1, 4, 7})
    in_order = batches(bad)
    one_after_the_other = [in_order.batch(step)[1].tolist() for step in range(9)]
    backwards = batches(bad)
    assert [backwards.batch(step)[1].tolist() for step in range(8, -1, -1)] == (
        one_after_the_other[::-1]
    )
    assert batches(bad).batch(5)[1].tolist() == one_after_the_other[5]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_order_does_not_depend_on_the_number_of_workers(workers: int) -> None:
    bad = frozenset({1, 4, 7})
    given = batches(bad)
    found = read_ahead(given.batch, 0, 30, depth=workers + 1, workers=workers)
    assert [y.tolist() for _, y in found] == [expected(step, bad) for step in range(30)]


def test_a_bad_file_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    given = batches(frozenset({2, 8}))
    for step in range(12):
        given.batch(step)
    assert sorted(caplog.messages) == ["skipped: 2.png: is bad", "skipped: 8.png: is bad"]


def test_several_threads_warn_once_too(caplog: pytest.LogCaptureFixture) -> None:
    given = batches(frozenset(range(0, COUNT, 2)))
    threads = [threading.Thread(target=given.batch, args=(step % 3,)) for step in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(caplog.messages) == len({*caplog.messages}) <= 6


def test_stop_names_the_first_bad_file_and_the_flag(data_error_line: DataErrorLine) -> None:
    given = batches(frozenset(range(COUNT)), STOP)
    first = expected(0, frozenset())[0]
    with data_error_line(rf"^{first}\.png: is bad; --on_bad_image=skip goes on without it$"):
        given.batch(0)


def test_no_good_example_at_all_is_said(data_error_line: DataErrorLine) -> None:
    with data_error_line("none of the 11 training examples can be read"):
        batches(frozenset(range(COUNT))).batch(0)


@pytest.mark.parametrize("workers", [1, 3])
def test_evaluation_leaves_bad_rows_out(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    source = StoredSource(Numbers(frozenset({1, 4, 5, 6, 7})), np.arange(COUNT))
    bad = BadSoFar(SKIP)
    for _ in range(2):
        found = [y.tolist() for _, y in row_batches(source, 4, bad, workers)]
        assert found == [[0, 2, 3], [8, 9, 10]]
    assert len(caplog.messages) == 5  # Once a row, in two evaluations.


def test_evaluation_stops_at_a_bad_row(data_error_line: DataErrorLine) -> None:
    source = StoredSource(Numbers(frozenset({6, 9})), np.arange(COUNT))
    given = iter(row_batches(source, 4))
    assert next(given)[1].tolist() == [0, 1, 2, 3]
    with data_error_line(r"^6\.png: is bad; --on_bad_image=skip"):
        next(given)


def test_evaluation_on_nothing_good_is_said(data_error_line: DataErrorLine) -> None:
    source = StoredSource(Numbers(frozenset(range(COUNT))), np.arange(COUNT))
    with data_error_line("none of the 11 rows can be read"):
        list(row_batches(source, 4, BadSoFar(SKIP)))


def refusing(bad: range, batch_size: int, error: type[DataError] = RefusedError) -> TrainingBatches:
    source = StoredSource(Numbers(frozenset(bad), 1, (80,), error=error), np.arange(80))
    return TrainingBatches(source, ShuffledBatches(80, batch_size, SEED), SKIP)


@pytest.mark.parametrize("batch_size", [1, 7, 80])
def test_files_that_are_refused_one_after_the_other_stop_the_run(
    batch_size: int, data_error_line: DataErrorLine, caplog: pytest.LogCaptureFixture
) -> None:
    with data_error_line(
        r"^\d+\.png: is bad; 32 in a row cannot be opened: see to the permissions"
    ):
        refusing(range(80), batch_size).batch(0)
    assert len(caplog.messages) == 31
    with data_error_line("none of the 80 training examples can be read"):
        refusing(range(80), batch_size, DataError).batch(0)  # Each seen, and no image.


@pytest.mark.parametrize("batch_size", [1, 7])
def test_files_that_are_refused_among_good_ones_are_skipped(batch_size: int) -> None:
    given = refusing(range(0, 80, 2), batch_size)
    found = [given.batch(step)[1] for step in range(80 // batch_size)]
    assert {*np.concatenate(found).tolist()} <= {*range(1, 80, 2)}


def test_evaluation_stops_at_files_that_are_refused(data_error_line: DataErrorLine) -> None:
    numbers = Numbers(frozenset(range(10, 50)), 1, (80,), error=RefusedError)
    given = row_batches(StoredSource(numbers, np.arange(80)), 60, BadSoFar(SKIP))
    with data_error_line(r"^41\.png: is bad; 32 in a row cannot be opened"):
        list(given)
