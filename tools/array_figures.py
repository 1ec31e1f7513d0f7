"""The variables of two checkpoints, compared by name: a pair of tensors at a time, in pieces."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.bundle import VariableSpec
from checkpoints.reader import Array, CheckpointReader
from metagraph.casting import as_numpy_dtype

_PIECE = 1 << 15  # Elements: what is worked out of them at once stays in a processor's cache.

ONLY_A, ONLY_B = "only in A", "only in B"
SHAPE, DTYPE, VALUES = "shape", "dtype", "values"
EQUAL = "equal"


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
    """Compares two arrays of one shape, of whatever dtypes.

    An absolute difference up to the tolerance counts as none.
    """
    a, b = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    if "O" in (a.dtype.kind, b.dtype.kind):
        differing = int(np.count_nonzero(a != b))
        return Difference(differing == 0, differing, None, None, 0)
    pieces = [
        _compare_piece(a[start : start + _PIECE], b[start : start + _PIECE], tolerance)
        for start in range(0, a.size, _PIECE)
    ]
    return Difference(
        equal_bytes=a.dtype == b.dtype and all(piece.equal_bytes for piece in pieces),
        differing=sum(piece.differing for piece in pieces),
        largest=max((piece.largest or 0 for piece in pieces), default=0),
        relative=max((piece.relative or 0.0 for piece in pieces), default=0.0),
        equal_nans=sum(piece.equal_nans for piece in pieces),
    )


def _compare_piece(a: Array, b: Array, tolerance: float) -> Difference:
    equal_bytes = a.dtype == b.dtype and a.tobytes() == b.tobytes()
    a, b = as_numpy_dtype(a), as_numpy_dtype(b)
    common = np.result_type(a, b)
    if common.kind in "biu":
        a, b = a.astype(common), b.astype(common)
        # Two's complement: what wraps around is the true distance, from the smaller to the larger.
        distance = np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)
        sizes = np.maximum(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
        relative, nans = distance / np.where(sizes == 0, 1.0, sizes), 0
    else:
        wide = np.complex128 if common.kind == "c" else np.float64
        distance, relative, nans = _distances(a.astype(wide), b.astype(wide))
    return Difference(
        equal_bytes=equal_bytes,
        differing=int(np.count_nonzero(distance > tolerance)),
        largest=distance.max().item(),
        relative=float(relative.max()),
        equal_nans=nans,
    )


def _distances(a: Array, b: Array) -> tuple[Array, Array, int]:
    """|a - b|, the same relative to the larger of both, and in how many places both are NaN."""
    both_nan = np.isnan(a) & np.isnan(b)
    same = (a == b) | both_nan
    endless = ~same & ~(np.isfinite(a) & np.isfinite(b))
    with np.errstate(all="ignore"):
        sizes = np.maximum(np.abs(a), np.abs(b))
        distance, relative = np.abs(a - b), np.abs(a / sizes - b / sizes)
    for found in (distance, relative):
        found[endless] = np.inf
        found[same] = 0.0
    return distance, relative, int(np.count_nonzero(both_nan))


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
    """Compares the variables in whose names a pattern is found, by rising name; equal ones too.

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
