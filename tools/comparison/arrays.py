"""How much two arrays of one shape differ, worked out a piece at a time."""

from typing import Any, NamedTuple

import numpy as np

_PIECE = 1 << 15  # Elements: what is worked out of them at once stays in a processor's cache.

Array = np.ndarray[Any, Any]


class Difference(NamedTuple):
    """How two arrays differ.

    Attributes:
      equal_bytes: whether they are the same in memory; of strings, whether all are equal.
      differing: the elements whose difference is above the tolerance, or which cannot be equal: a
        NaN where the other has a number.
      largest: the largest |a - b|, exact for integers; infinite where an element is NaN or infinite
        on one side only; None for strings, which have no distance.
      relative: the largest |a - b| / max(|a|, |b|), from 0 to 2, infinite likewise.
      equal_nans: the places where both are NaN, which counts as equal.
    """

    equal_bytes: bool
    differing: int
    largest: int | float | None
    relative: float | None
    equal_nans: int


def compare(a: Array, b: Array, tolerance: float = 0.0) -> Difference:
    """Compares two arrays, of whatever dtypes.

    Args:
      a: of any shape.
      b: of the same shape.
      tolerance: an absolute difference up to this counts as none.
    """
    a, b = _plain(a).reshape(-1), _plain(b).reshape(-1)
    pieces = [
        _compare(a[start : start + _PIECE], b[start : start + _PIECE], tolerance)
        for start in range(0, a.size, _PIECE)
    ]
    is_text = "O" in (a.dtype.kind, b.dtype.kind)
    return Difference(
        equal_bytes=a.dtype == b.dtype and all(piece.equal_bytes for piece in pieces),
        differing=sum(piece.differing for piece in pieces),
        largest=None if is_text else max((piece.largest or 0 for piece in pieces), default=0),
        relative=None if is_text else max((piece.relative or 0.0 for piece in pieces), default=0.0),
        equal_nans=sum(piece.equal_nans for piece in pieces),
    )


def _plain(array: Array) -> Array:
    """A quantized type is a record of one integer, whose name is its own."""
    names = array.dtype.names
    return np.ascontiguousarray(array[names[0]] if names else array)


def _compare(a: Array, b: Array, tolerance: float) -> Difference:
    if "O" in (a.dtype.kind, b.dtype.kind):
        differing = int(np.count_nonzero(a != b))
        return Difference(differing == 0, differing, None, None, 0)
    equal_bytes = a.dtype == b.dtype and np.array_equal(a.view(np.uint8), b.view(np.uint8))
    if equal_bytes and a.dtype.kind in "biu":
        return Difference(True, 0, 0, 0.0, 0)
    whole = _as_integers(a, b)
    if whole is not None:
        return _of_integers(*whole, equal_bytes, tolerance)
    return _of_floats(_wide(a), _wide(b), equal_bytes, tolerance)


def _as_integers(a: Array, b: Array) -> tuple[Array, Array] | None:
    """Both as int64, or both as uint64; None where one is no integer, or that cannot hold all."""
    if not (_is_integer(a) and _is_integer(b)):
        return None
    for dtype in (np.int64, np.uint64):
        if _fits(a, dtype) and _fits(b, dtype):
            return a.astype(dtype), b.astype(dtype)
    return None


def _is_integer(array: Array) -> bool:
    """Also of bool, and of the integers of fewer than 8 bits, which NumPy knows by name only."""
    return array.dtype.kind in "biu" or array.dtype.name.startswith(("int", "uint"))


def _fits(array: Array, dtype: type[np.integer[Any]]) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= int(array.min()) and int(array.max()) <= limits.max)


def _of_integers(a: Array, b: Array, equal_bytes: bool, tolerance: float) -> Difference:
    """Of int64 or uint64: the difference in uint64, where it cannot overflow."""
    # Two's complement: what wraps around is the true distance, from the smaller to the larger.
    distance = np.where(a > b, a, b).astype(np.uint64) - np.where(a > b, b, a).astype(np.uint64)
    sizes = np.maximum(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
    relative = distance / np.where(sizes == 0, 1.0, sizes)
    differing = int(np.count_nonzero(distance > tolerance))
    return Difference(equal_bytes, differing, int(distance.max()), float(relative.max()), 0)


def _wide(array: Array) -> Array:
    """In float64 or complex128, which hold each value of a smaller type, such as bfloat16."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _of_floats(a: Array, b: Array, equal_bytes: bool, tolerance: float) -> Difference:
    with np.errstate(over="ignore", invalid="ignore"):
        distance = np.abs(a - b)
    if not np.isfinite(distance).all():
        return _of_any_floats(a, b, equal_bytes, tolerance)
    sizes = np.maximum(np.abs(a), np.abs(b))
    relative = np.divide(distance, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    differing = int(np.count_nonzero(distance > tolerance))
    return Difference(equal_bytes, differing, float(distance.max()), float(relative.max()), 0)


def _of_any_floats(a: Array, b: Array, equal_bytes: bool, tolerance: float) -> Difference:
    """As `_of_floats`, with NaN, infinities, and differences that are too large for a number."""
    both_nan = np.isnan(a) & np.isnan(b)
    same = (a == b) | both_nan
    endless = ~same & ~(np.isfinite(a) & np.isfinite(b))
    with np.errstate(all="ignore"):
        distance = np.abs(a - b)
        sizes = np.maximum(np.abs(a), np.abs(b))
        relative = np.abs(a / sizes - b / sizes)  # Also where the distance is too large.
    distance = np.where(same, 0.0, np.where(endless, np.inf, distance))
    relative = np.where(same, 0.0, np.where(endless, np.inf, relative))
    return Difference(
        equal_bytes=equal_bytes,
        differing=int(np.count_nonzero(distance > tolerance)),
        largest=float(distance.max()),
        relative=float(relative.max()),
        equal_nans=int(np.count_nonzero(both_nan)),
    )
