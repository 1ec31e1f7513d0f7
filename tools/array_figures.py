"""Figures of arrays: the statistics of one, and how much two differ, worked out a piece at a time.

The variables of two checkpoints are compared by name, a pair of tensors at a time.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.bundle import VariableSpec
from checkpoints.reader import Array, CheckpointReader

_BLOCK = 1 << 16  # Values at once: 512 KiB in float64, which stay in a processor's cache.
_SAFE = 1e150  # The squares of larger values overflow.


class Statistics(NamedTuple):
    """Of the finite values of a tensor; None where it has none, or is of a kind that has none.

    Attributes:
      min: the least; exact.
      max: the greatest; exact.
      mean: of false as 0 and true as 1.
      std: the standard deviation of these very values (divided by their number).
      nan: how many are NaN.
      inf: how many are infinite.
    """

    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    nan: int = 0
    inf: int = 0


def statistics(array: Array) -> Statistics:
    """The statistics of an array of any dtype that a checkpoint may have.

    Texts have none; of complex numbers only NaN and infinities are counted.
    """
    flat = array.reshape(-1)
    if array.dtype.kind == "O":
        return Statistics()
    if array.dtype.kind == "c":
        inf = int(np.isinf(flat).sum())
        return Statistics(nan=int((np.isnan(flat) & ~np.isinf(flat)).sum()), inf=inf)
    scale = _scale(flat)
    total = _Total()
    for start in range(0, flat.size, _BLOCK):
        total.add(flat[start : start + _BLOCK], scale)
    if not total.count:
        return Statistics(nan=total.nan, inf=total.inf)
    return Statistics(
        total.least,
        total.greatest,
        total.mean * scale,
        math.sqrt(total.squares / total.count) * scale,
        total.nan,
        total.inf,
    )


class _Total:
    """Mean and squared deviations of all blocks so far.

    Two of them become one as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances" (1979).
    """

    def __init__(self) -> None:
        self.count = self.nan = self.inf = 0
        self.mean = self.squares = 0.0
        self.least: float = math.inf
        self.greatest: float = -math.inf

    def add(self, block: Array, scale: float) -> None:
        """Takes in a block of one dimension, whose values are divided by `scale`."""
        is_whole = block.dtype.kind in "iub"  # Of which float64 may lose the last digits.
        values = block.astype(np.float64)
        if not is_whole:
            finite = np.isfinite(values)
            if not finite.all():
                nan = int(np.isnan(values).sum())
                self.nan += nan
                self.inf += int(values.size - finite.sum()) - nan
                values = values[finite]
        if not values.size:
            return
        exact = block if is_whole else values
        self.least = min(self.least, _number(exact.min()))
        self.greatest = max(self.greatest, _number(exact.max()))
        self._merge(values / scale if scale != 1 else values)

    def _merge(self, values: Array) -> None:
        mean = float(values.mean())
        values -= mean
        apart, count = mean - self.mean, self.count + values.size
        np.square(values, out=values)  # Not a dot product, whose threads wait for each other.
        self.squares += float(values.sum())
        self.squares += apart * apart * (self.count * values.size / count)
        self.mean += apart * (values.size / count)
        self.count = count


def _number(value: Any) -> float:
    """As Python's own number: an integer stays exact."""
    number: float = value.item()
    return int(number) if isinstance(number, bool) else number


def _scale(flat: Array) -> float:
    """What to divide values by so that their squares do not overflow: 1 but for huge ones."""
    if flat.dtype != np.float64:
        return 1.0
    most = 0.0
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        most = max(most, float(np.max(np.abs(block), initial=0.0, where=np.isfinite(block))))
    return most if most > _SAFE else 1.0


# How much two arrays of one shape differ, worked out a piece at a time.

_PIECE = 1 << 15  # Elements: what is worked out of them at once stays in a processor's cache.


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
        _compare_piece(a[start : start + _PIECE], b[start : start + _PIECE], tolerance)
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


def _compare_piece(a: Array, b: Array, tolerance: float) -> Difference:
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


# The variables of two checkpoints, compared by name, a pair of tensors at a time.

ONLY_A, ONLY_B = "only in A", "only in B"
SHAPE, DTYPE, VALUES = "shape", "dtype", "values"
EQUAL = "equal"


class VariableDifference(NamedTuple):
    """What there is to say of one variable.

    Attributes:
      name: of it, in the checkpoint.
      status: `ONLY_A`, `ONLY_B`, `SHAPE`, `DTYPE`, `VALUES` where they differ by more than the
        tolerance, or `EQUAL`.
      a: what A has; None where it has none.
      b: what B has; None likewise.
      values: how the values differ; None where the shapes do, or there is nothing to compare.
    """

    name: str
    status: str
    a: VariableSpec | None
    b: VariableSpec | None
    values: Difference | None


def compare_variables(
    a: CheckpointReader, b: CheckpointReader, pattern: re.Pattern[str], tolerance: float
) -> Iterator[VariableDifference]:
    """Compares two checkpoints, by rising name; what is equal is told too.

    Args:
      a: the one.
      b: the other.
      pattern: only variables in whose name it is found.
      tolerance: an absolute difference up to this counts as none.

    Raises:
      CheckpointError: a value is damaged.
    """
    names = [name for name in sorted({*a.shapes, *b.shapes}) if pattern.search(name)]
    for reader in (a, b):
        reader.check_sizes([name for name in names if name in reader.shapes])
    for name in names:
        yield _compare_tensors(name, a, b, tolerance)


def _compare_tensors(
    name: str, a: CheckpointReader, b: CheckpointReader, tolerance: float
) -> VariableDifference:
    spec_a, spec_b = _spec(a, name), _spec(b, name)
    if spec_a is None or spec_b is None:
        return VariableDifference(name, ONLY_B if spec_a is None else ONLY_A, spec_a, spec_b, None)
    if spec_a.shape != spec_b.shape:
        return VariableDifference(name, SHAPE, spec_a, spec_b, None)
    unread = tf.variant.name in (spec_a.dtype, spec_b.dtype)  # No reader gives their values.
    values = None if unread else compare(a.read(name), b.read(name), tolerance)
    if spec_a.dtype != spec_b.dtype:
        return VariableDifference(name, DTYPE, spec_a, spec_b, values)
    status = VALUES if values is not None and values.differing else EQUAL
    return VariableDifference(name, status, spec_a, spec_b, values)


def _spec(reader: CheckpointReader, name: str) -> VariableSpec | None:
    if name not in reader.shapes:
        return None
    return VariableSpec(tuple(reader.shapes[name]), reader.dtypes[name].name)
