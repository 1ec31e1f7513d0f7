"""Differences of arrays, held against NumPy and plain Python."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from tools import comparing
from tools.comparing import Difference, compare

Array = npt.NDArray[Any]

EXACT = {np.int8, np.int32, np.int64, np.uint8, np.uint64}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_floats(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 5)).astype(dtype)
    found = compare(a, b, 0.5)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    distance = np.abs(wide_a - wide_b)
    assert found.largest == distance.max()
    relative = (distance / np.maximum(np.abs(wide_a), np.abs(wide_b))).max()
    assert found.relative == pytest.approx(relative, rel=1e-12)
    assert found.differing == np.count_nonzero(distance > 0.5)
    assert not found.equal_bytes
    assert compare(a, a.copy()) == Difference(True, 0, 0, 0, 0)


@pytest.mark.parametrize("dtype", EXACT)
def test_integers_are_exact_to_their_limits(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    a = np.array([limits.min, 0, limits.max, 3], dtype)
    b = np.array([limits.max, 0, limits.min, 5], dtype)
    found = compare(a, b)
    assert found.largest == int(limits.max) - int(limits.min)
    assert (found.differing, found.equal_bytes) == (3, False)
    assert compare(a, b, 2.0).differing == 2


def test_a_difference_that_floats_cannot_tell() -> None:
    found = compare(np.array([2**60]), np.array([2**60 + 1]))
    assert (found.largest, found.differing) == (1, 1)


def test_booleans() -> None:
    found = compare(np.array([True, False, True]), np.array([True, True, False]))
    assert found == Difference(False, 2, 1, 1.0, 0)


def test_strings_have_no_distance() -> None:
    found = compare(np.array([b"a", b"b"], object), np.array([b"a", b"c"], object))
    assert found == Difference(False, 1, None, None, 0)
    assert compare(np.array(b"a", object), np.array(b"a", object)).equal_bytes


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
def test_integers_of_four_bits(dtype: Any) -> None:
    assert compare(np.array([1, 7], dtype), np.array([1, 2], dtype)).largest == 5


def test_quantized_integers() -> None:
    dtype = np.dtype([("qint8", np.int8)])
    a, b = np.array([(1,), (-128,)], dtype), np.array([(1,), (127,)], dtype)
    assert compare(a, b) == Difference(False, 1, 255, 255 / 128, 0)


def test_complex_numbers() -> None:
    found = compare(np.array([3 + 4j], np.complex64), np.array([0], np.complex64))
    assert (found.largest, found.relative) == (5.0, 1.0)


def test_a_nan_is_equal_to_a_nan_alone() -> None:
    a = np.array([np.nan, np.nan, 1.0], np.float32)
    assert compare(a, a.copy()) == Difference(True, 0, 0.0, 0.0, 2)
    found = compare(a, np.array([np.nan, 2.0, 1.0], np.float32), tolerance=1e9)
    assert found == Difference(False, 1, math.inf, math.inf, 1)


def test_other_bytes_of_a_nan_are_told() -> None:
    a = np.array([0x7FC00000], np.uint32).view(np.float32)
    b = np.array([0x7FC00001], np.uint32).view(np.float32)
    assert compare(a, b) == Difference(False, 0, 0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("a", "b", "largest"),
    [(np.inf, np.inf, 0.0), (np.inf, -np.inf, math.inf), (np.inf, 1.0, math.inf), (0.0, -0.0, 0.0)],
)
def test_infinities_and_zeros(a: float, b: float, largest: float) -> None:
    found = compare(np.array([a]), np.array([b]))
    assert (found.largest, found.differing) == (largest, int(largest > 0))


def test_a_distance_beyond_the_largest_number() -> None:
    found = compare(np.array([1.7e308]), np.array([-1.7e308]))
    assert (found.largest, found.relative) == (math.inf, 2.0)


def test_other_dtypes_are_compared_by_value() -> None:
    a = np.array([1.5, 2.0], np.float32)
    assert compare(a, a.astype(np.float16)) == Difference(False, 0, 0.0, 0.0, 0)
    assert compare(a, np.array([1, 2])).largest == 0.5


def test_nothing_is_equal_to_nothing() -> None:
    assert compare(np.zeros((0, 3)), np.zeros((0, 3))) == Difference(True, 0, 0, 0, 0)


def test_pieces_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000))
    a[::7] = b[::7] = np.nan
    whole = compare(a, b, 1.0)
    monkeypatch.setattr(comparing, "_PIECE", 17)
    assert compare(a, b, 1.0) == whole
    assert whole.equal_nans == 143
