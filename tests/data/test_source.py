"""Rows of arrays and of stores, their digests, and stores that are read into memory."""

import numpy as np
import pytest

from data.source import UINT8_SCALE, HeldStore, LabelledSource, Source, Subset
from errors import BadRowsError
from tests.data.conftest import BadRows, error_line

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
LABELS = np.array([3, 0, 1, 2, 1], np.int64)
INDICES = np.array([4, 0, 4], np.int64)
VALUES = np.random.default_rng(0).integers(0, 256, (300, 2, 3), np.uint8)


def test_uint8_rows_are_scaled_in_float32() -> None:
    for features, labels in ((PIXELS, LABELS), (BadRows(VALUES), np.arange(300) % 7)):
        x, y = LabelledSource(features, labels).rows(INDICES)
        values = features if isinstance(features, np.ndarray) else VALUES
        expected = values[INDICES].astype(np.float32) * np.float32(1 / 255)
        np.testing.assert_array_equal(x, expected, strict=True)
        np.testing.assert_array_equal(y, labels[INDICES], strict=True)
    assert UINT8_SCALE * np.uint8(255) == np.float32(1)
    with pytest.raises(IndexError):
        LabelledSource(PIXELS, LABELS).rows(np.array([5]))


def test_float_rows_come_as_they_are_and_are_the_callers_own() -> None:
    features = np.linspace(-3, 7, 10, dtype=np.float32)
    before = features.copy()
    x, y = LabelledSource(features, features * 2).rows(INDICES)
    np.testing.assert_array_equal([x, y], [before[INDICES], 2 * before[INDICES]], strict=True)
    x += 1
    assert np.array_equal(features, before)


def test_a_subset_numbers_its_members_anew() -> None:
    held = LabelledSource(PIXELS, LABELS)
    for source, workers in ((held, 1), (LabelledSource(BadRows(VALUES, (), 3), np.arange(300)), 3)):
        subset = Subset(source, np.array([3, 1], np.int64))
        pairs = zip(subset.rows(np.array([1, 0, 1])), source.rows(np.array([1, 3, 1])), strict=True)
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)
        assert np.array_equal(subset.labels, source.labels[[3, 1]])
        assert len(subset) == 2
        assert subset.row_shape == source.row_shape == source.rows(INDICES)[0].shape[1:]
        assert subset.workers == source.workers == workers
    with pytest.raises(ValueError, match="5 features and 4 labels"):
        LabelledSource(np.zeros(5), np.zeros(4))


def test_digest_tells_sources_apart() -> None:
    other_pixel = PIXELS.copy()
    other_pixel.flat[0] ^= 1
    source = LabelledSource(PIXELS, LABELS)
    store, labels = BadRows(VALUES), np.arange(300) % 7
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
    held = HeldStore(store, keep_bad=False)
    assert LabelledSource(held, labels).digest() == LabelledSource(store, labels).digest()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_holding_gives_the_same_whatever_the_number_of_workers(workers: int) -> None:
    held = HeldStore(BadRows(VALUES, workers=workers), keep_bad=False)
    assert np.array_equal(held.take(INDICES), VALUES[INDICES])
    assert np.array_equal(held.values, VALUES)
    assert held.workers == 1
    with error_line(r"^100\.png: is bad$"):  # The first one.
        HeldStore(BadRows(VALUES, (250, 130, 100), workers), keep_bad=False)
    held = HeldStore(BadRows(VALUES, (1, 100, 299), workers), keep_bad=True)
    good = np.array([0, 2, 99, 101, 298])
    assert np.array_equal(held.take(good), VALUES[good])
    with pytest.raises(BadRowsError, match=r"299\.png: is bad") as caught:
        held.take(np.array([5, 299, 6, 1]))
    errors = {position: str(error) for position, error in caught.value.errors.items()}
    assert errors == {1: "299.png: is bad", 3: "1.png: is bad"}
