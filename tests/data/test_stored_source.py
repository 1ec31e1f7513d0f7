import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from data.source import Array, HeldStore, Indices, RowSpec, StoredSource, hold
from errors import BadRowsError, DataError
from tests.data.conftest import DataErrorLine

VALUES = np.random.default_rng(0).integers(0, 256, (300, 2, 3), np.uint8)


@dataclass
class Unreliable:
    """The store of VALUES in which some rows are bad; notes the threads that read."""

    bad: tuple[int, ...] = ()
    workers: int = 1
    shape: tuple[int, ...] = VALUES.shape
    dtype: np.dtype[Any] = VALUES.dtype

    def __post_init__(self) -> None:
        self.threads: set[int] = set()

    def take(self, indices: Indices) -> Array:
        self.threads.add(threading.get_ident())
        errors = {
            position: DataError(f"row {row} is bad")
            for position, row in enumerate(indices.tolist())
            if row in self.bad
        }
        if errors:
            raise BadRowsError(errors)
        return VALUES[indices]

    def digest(self) -> str:
        return "digest of VALUES"


def test_rows_are_scaled_and_labelled() -> None:
    source = StoredSource(Unreliable(), np.arange(300) % 7, ("a", "b"))
    x, y = source.rows(np.array([5, 2, 5]))
    assert np.array_equal(x, VALUES[[5, 2, 5]] * np.float32(1 / 255))
    assert y.tolist() == [5, 2, 5]
    assert len(source) == 300
    assert source.specs == (
        RowSpec((2, 3), np.dtype(np.float32)),
        RowSpec((), np.dtype(np.int64)),
    )
    assert (source.specs[0].dtype, source.specs[1].dtype) == (x.dtype, y.dtype)
    assert source.class_names == ("a", "b")


def test_counts_must_agree() -> None:
    with pytest.raises(ValueError, match="300 features and 3 labels"):
        StoredSource(Unreliable(), np.arange(3))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_holding_gives_the_same_whatever_the_number_of_workers(workers: int) -> None:
    held = hold(Unreliable(workers=workers), keep_bad=False)
    assert np.array_equal(held.values, VALUES)
    indices = np.array([299, 0, 7])
    assert np.array_equal(held.take(indices), VALUES[indices])
    assert held.workers == 1


def test_the_first_bad_row_stops_holding(data_error_line: DataErrorLine) -> None:
    with data_error_line("^row 100 is bad$"):
        hold(Unreliable(bad=(250, 130, 100), workers=4), keep_bad=False)


def test_bad_rows_that_are_kept_are_raised_when_asked_for() -> None:
    held = hold(Unreliable(bad=(1, 100, 299)), keep_bad=True)
    good = np.array([0, 2, 99, 101, 298])
    assert np.array_equal(held.take(good), VALUES[good])
    with pytest.raises(BadRowsError, match="row 299 is bad") as caught:
        held.take(np.array([5, 299, 6, 1]))
    assert {position: str(e) for position, e in caught.value.errors.items()} == {
        1: "row 299 is bad",
        3: "row 1 is bad",
    }


def test_the_digest_is_the_same_held_or_not_and_tells_labels_apart() -> None:
    store, labels = Unreliable(), np.arange(300) % 7
    held = hold(store, keep_bad=False)
    assert isinstance(held, HeldStore)
    digest = StoredSource(store, labels).digest()
    assert StoredSource(held, labels).digest() == digest
    assert StoredSource(store, labels % 6).digest() != digest
    assert StoredSource(store, labels.astype(np.int32)).digest() != digest
