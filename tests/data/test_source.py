"""Rows of arrays and of stores, their digests, and stores that are read into memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from data.source import UINT8_SCALE, Array, Indices, LabelledSource, Source, Subset, hold
from errors import BadRowsError, DataError
from tests.data.conftest import error_line

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
LABELS = np.array([3, 0, 1, 2, 1], np.int64)
INDICES = np.array([4, 0, 4], np.int64)
VALUES = np.random.default_rng(0).integers(0, 256, (300, 2, 3), np.uint8)


@dataclass
class Unreliable:
    """The store of VALUES in which some rows are bad."""

    bad: tuple[int, ...] = ()
    workers: int = 1
    shape: tuple[int, ...] = VALUES.shape
    dtype: np.dtype[Any] = VALUES.dtype

    def take(self, indices: Indices) -> Array:
        rows = enumerate(indices.tolist())
        errors = {place: DataError(f"row {row} is bad") for place, row in rows if row in self.bad}
        if errors:
            raise BadRowsError(errors)
        return VALUES[indices]

    def digest(self) -> str:
        return "digest of VALUES"


def test_uint8_rows_are_scaled_in_float32() -> None:
    for features, labels in ((PIXELS, LABELS), (Unreliable(), np.arange(300) % 7)):
        x, y = LabelledSource(features, labels).rows(INDICES)
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        values = features if isinstance(features, np.ndarray) else VALUES
        expected = [row.astype(np.float32) * np.float32(1 / 255) for row in values[INDICES]]
        assert np.array_equal(x, np.stack(expected))
        assert y.tolist() == labels[INDICES].tolist()
    assert UINT8_SCALE * np.uint8(255) == np.float32(1)
    with pytest.raises(IndexError):
        LabelledSource(PIXELS, LABELS).rows(np.array([5]))


def test_float_rows_come_as_they_are_and_are_the_callers_own() -> None:
    features = np.linspace(-3, 7, 10, dtype=np.float32)
    before = features.copy()
    x, y = LabelledSource(features, features * 2).rows(INDICES)
    for values, expected in ((x, before[INDICES]), (y, 2 * before[INDICES])):
        assert values.dtype == np.float32
        assert np.array_equal(values, expected)
    x += 1
    assert np.array_equal(features, before)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="5 features and 4 labels"):
        LabelledSource(np.zeros(5), np.zeros(4))
    with pytest.raises(ValueError, match="300 features and 3 labels"):
        LabelledSource(Unreliable(), np.arange(3))


def test_subset_numbers_its_members_anew() -> None:
    source = LabelledSource(PIXELS, LABELS)
    subset = Subset(source, np.array([3, 1], np.int64))
    assert len(subset) == 2
    for ours, theirs in zip(
        subset.rows(np.array([1, 0, 1])), source.rows(np.array([1, 3, 1])), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_a_source_tells_shapes_and_names_of_what_it_gives() -> None:
    one_hot = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    source = LabelledSource(PIXELS, one_hot, ("a", "b", "c"))
    stored = LabelledSource(Unreliable(workers=3), np.arange(300), ("a", "b", "c"))
    subset = Subset(source, np.array([4, 0]))
    for each, workers in ((source, 1), (subset, 1), (stored, 3)):
        given = each.rows(np.arange(2))
        assert each.specs == tuple((array.shape[1:], array.dtype) for array in given)
        assert (each.class_names, each.workers) == (("a", "b", "c"), workers)
        assert np.array_equal(each.labels[:2], given[1])
    assert subset.labels.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_digest_tells_sources_apart() -> None:
    other_pixel = PIXELS.copy()
    other_pixel.flat[0] ^= 1
    source = LabelledSource(PIXELS, LABELS)
    store, labels = Unreliable(), np.arange(300) % 7
    sources: list[Source] = [
        source,
        LabelledSource(other_pixel, LABELS),
        LabelledSource(PIXELS, LABELS + 1),
        LabelledSource(PIXELS[::-1], LABELS),
        LabelledSource(PIXELS.astype(np.float32), LABELS),
        Subset(source, np.arange(5)),
        Subset(source, np.arange(4)),
        LabelledSource(store, labels),
        LabelledSource(store, labels % 6),
        LabelledSource(store, labels.astype(np.int32)),
    ]
    assert len({each.digest() for each in sources}) == len(sources)
    assert LabelledSource(PIXELS.copy(), LABELS).digest() == source.digest()
    held = hold(store, keep_bad=False)
    assert LabelledSource(held, labels).digest() == LabelledSource(store, labels).digest()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_holding_gives_the_same_whatever_the_number_of_workers(workers: int) -> None:
    held = hold(Unreliable(workers=workers), keep_bad=False)
    assert np.array_equal(held.values, VALUES)
    assert np.array_equal(held.take(INDICES), VALUES[INDICES])
    assert held.workers == 1


def test_the_first_bad_row_stops_holding_unless_it_is_kept() -> None:
    with error_line("^row 100 is bad$"):
        hold(Unreliable(bad=(250, 130, 100), workers=4), keep_bad=False)
    held = hold(Unreliable(bad=(1, 100, 299)), keep_bad=True)
    good = np.array([0, 2, 99, 101, 298])
    assert np.array_equal(held.take(good), VALUES[good])
    with pytest.raises(BadRowsError, match="row 299 is bad") as caught:
        held.take(np.array([5, 299, 6, 1]))
    errors = {position: str(error) for position, error in caught.value.errors.items()}
    assert errors == {1: "row 299 is bad", 3: "row 1 is bad"}
