"""The statistics of a tensor, against NumPy's own in as many bits as it has."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from tools.checkpoint_contents import Statistics, statistics


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint16", "int64", "bool", "bfloat16"]
)
@pytest.mark.parametrize("size", [1, 1000, 200_003])  # Of one block, and of more.
def test_as_numpy_says(dtype: str, size: int) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(3, 10, size) * 4).clip(0, 100)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    array: npt.NDArray[Any] = values.astype(kind).reshape(1, -1, 1)
    found, exact = statistics(array), array.astype(np.longdouble)
    assert (found.min, found.max) == (exact.min(), exact.max())
    assert found.mean == pytest.approx(float(exact.mean()), rel=1e-14)
    assert found.std == pytest.approx(float(exact.std()), rel=1e-12)
    assert (found.nan, found.inf) == (0, 0)


def test_nan_and_infinities_are_counted_and_left_out() -> None:
    array = np.arange(100_000, dtype=np.float32)
    array[[5, 70_000]] = np.nan
    array[[6, 7, 99_999]] = [np.inf, -np.inf, np.inf]
    finite = array[np.isfinite(array)].astype(np.float64)
    found = statistics(array)
    assert (found.nan, found.inf) == (2, 3)
    assert (found.min, found.max) == (0, 99_998)
    assert found.mean == pytest.approx(finite.mean(), rel=1e-14)
    assert found.std == pytest.approx(finite.std(), rel=1e-12)


def test_a_large_mean_costs_no_digits() -> None:
    """The sum of squares less the square of the sum would give 0 or worse."""
    array = 1e9 + np.tile([0.0, 1.0], 100_000)
    assert statistics(array).std == pytest.approx(0.5, rel=1e-12)


def test_whole_numbers_are_exact() -> None:
    found = statistics(np.array([2**63, 2**64 - 1], np.uint64))
    assert (found.min, found.max) == (2**63, 2**64 - 1)
    assert math.isclose(found.mean or 0, 1.5 * 2**63)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros([0, 3]), Statistics()),
        (np.array(np.nan), Statistics(nan=1)),
        (np.array([b"a", b""], object), Statistics()),
        (np.array([1j, complex(np.nan, np.inf), np.nan]), Statistics(nan=1, inf=1)),
        (np.array(True), Statistics(1, 1, 1.0, 0.0)),
        (np.array([-1.5e308, 1.5e308]), Statistics(-1.5e308, 1.5e308, 0.0, None)),
    ],
    ids=["empty", "nan", "texts", "complex", "flag", "beyond float64"],
)
def test_where_there_is_none(array: npt.NDArray[Any], expected: Statistics) -> None:
    found = statistics(array)
    assert found == expected
    assert type(found.max) is type(expected.max)
