"""Differences of arrays, held against NumPy and plain Python."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tools import differences
from tools.differences import Difference, compare

NAN, INF = np.nan, np.inf
QINT8 = np.dtype([("qint8", np.int8)])


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


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_integers_are_exact_to_their_limits(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    a = np.array([limits.min, 0, limits.max, 3], dtype)
    b = np.array([limits.max, 0, limits.min, 5], dtype)
    found = compare(a, b)
    assert found.largest == int(limits.max) - int(limits.min)
    assert (found.differing, found.equal_bytes) == (3, False)
    assert compare(a, b, 2.0).differing == 2


@pytest.mark.parametrize(
    ("dtype", "a", "b", "expected"),
    [
        (bool, [True, False, True], [True, True, False], (False, 2, 1, 1.0, 0)),
        (object, [b"a", b"b"], [b"a", b"c"], (False, 1, None, None, 0)),  # They have no distance.
        (object, b"a", b"a", (True, 0, None, None, 0)),
        (ml_dtypes.int4, [1, 7], [1, 2], (False, 1, 5, 5 / 7, 0)),
        (ml_dtypes.uint4, [1, 7], [1, 2], (False, 1, 5, 5 / 7, 0)),
        (QINT8, [(1,), (-128,)], [(1,), (127,)], (False, 1, 255, 255 / 128, 0)),
        (np.complex64, [3 + 4j], [0], (False, 1, 5.0, 1.0, 0)),
        (np.float32, [NAN, NAN, 1], [NAN, NAN, 1], (True, 0, 0.0, 0.0, 2)),
        (np.float32, [NAN, NAN, 1], [NAN, 2, 1], (False, 1, INF, INF, 1)),
        (np.float64, [INF], [INF], (True, 0, 0.0, 0.0, 0)),
        (np.float64, [INF], [-INF], (False, 1, INF, INF, 0)),
        (np.float64, [INF], [1.0], (False, 1, INF, INF, 0)),
        (np.float64, [0.0], [-0.0], (False, 0, 0.0, 0.0, 0)),
        (np.float64, [1.7e308], [-1.7e308], (False, 1, INF, 2.0, 0)),
        (np.float64, [[]], [[]], (True, 0, 0, 0, 0)),
        (np.int64, [2**60], [2**60 + 1], (False, 1, 1, 2.0**-60, 0)),  # Floats cannot tell.
    ],
)
def test_kinds_and_special_values(dtype: Any, a: Any, b: Any, expected: tuple[Any, ...]) -> None:
    assert compare(np.array(a, dtype), np.array(b, dtype)) == expected


def test_other_dtypes_are_compared_by_value() -> None:
    a = np.array([1.5, 2.0], np.float32)
    assert compare(a, a.astype(np.float16)) == Difference(False, 0, 0.0, 0.0, 0)
    assert compare(a, np.array([1, 2])).largest == 0.5


def test_other_bytes_of_a_nan_are_told() -> None:
    a, b = (np.array([bits], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert compare(a, b) == Difference(False, 0, 0.0, 0.0, 1)


def test_no_tolerance_makes_a_nan_equal_to_a_number() -> None:
    assert compare(np.array([NAN]), np.array([2.0]), 1e9) == Difference(False, 1, INF, INF, 0)


def test_pieces_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000))
    a[::7] = b[::7] = np.nan
    whole = compare(a, b, 1.0)
    monkeypatch.setattr(differences, "_PIECE", 17)
    assert compare(a, b, 1.0) == whole
    assert whole.equal_nans == 143
