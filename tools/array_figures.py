"""The variables of two checkpoints, compared by name: a pair of arrays at a time, in pieces."""

import re
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.reader import Array, CheckpointReader
from metagraph.casting import as_numpy_dtype, json_value
from tools.command import Record

ONLY_A, ONLY_B = "only in A", "only in B"
SHAPE, DTYPE, VALUES = "shape", "dtype", "values"
EQUAL = "equal"
_PIECE = 1 << 15  # Elements: what is worked out of them at once stays in a processor's cache.


class Difference(NamedTuple):
    """How two arrays differ.

    Attributes:
      equal_bytes: whether they are the same in memory; of strings, whether all are equal.
      differing: the elements whose difference is above the tolerance, or where one is a NaN.
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
        for start in range(0, max(a.size, 1), _PIECE)
    ]
    return Difference(
        equal_bytes=all(piece.equal_bytes for piece in pieces),
        differing=sum(piece.differing for piece in pieces),
        largest=max(piece.largest or 0 for piece in pieces),
        relative=max(piece.relative or 0.0 for piece in pieces),
        equal_nans=sum(piece.equal_nans for piece in pieces),
    )


def _compare_piece(a: Array, b: Array, tolerance: float) -> Difference:
    equal_bytes = a.dtype == b.dtype and a.tobytes() == b.tobytes()
    a, b = as_numpy_dtype(a), as_numpy_dtype(b)
    common = np.result_type(a, b)
    both_nan = np.zeros(a.shape, bool)
    if common.kind in "biu":
        a, b = a.astype(common), b.astype(common)
        # Two's complement: what wraps around is the true distance, from the smaller to the larger.
        distance = np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)
        sizes = np.maximum(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
        relative = distance / np.where(sizes == 0, 1.0, sizes)
    else:
        wide = np.complex128 if common.kind == "c" else np.float64
        a, b = a.astype(wide), b.astype(wide)
        both_nan = np.isnan(a) & np.isnan(b)
        same = (a == b) | both_nan
        endless = ~same & ~(np.isfinite(a) & np.isfinite(b))
        with np.errstate(all="ignore"):
            sizes = np.maximum(np.abs(a), np.abs(b))
            distance, relative = np.abs(a - b), np.abs(a / sizes - b / sizes)
        for found in (distance, relative):
            found[endless] = np.inf
            found[same] = 0.0
    return Difference(
        equal_bytes,
        differing=int(np.count_nonzero(distance > tolerance)),
        largest=distance.max(initial=0).item(),
        relative=float(relative.max(initial=0)),
        equal_nans=int(np.count_nonzero(both_nan)),
    )


def compare_variables(
    a: CheckpointReader, b: CheckpointReader, pattern: re.Pattern[str], tolerance: float
) -> list[Record]:
    """Compares the variables in whose names a pattern is found, by rising name; equal ones too.

    Raises:
      CheckpointError: a value is damaged.
    """
    names = [name for name in sorted({*a.shapes, *b.shapes}) if pattern.search(name)]
    for reader in (a, b):
        reader.check_sizes([name for name in names if name in reader.shapes])
    return [_compare_variable(name, a, b, tolerance) for name in names]


def _compare_variable(
    name: str, a: CheckpointReader, b: CheckpointReader, tolerance: float
) -> Record:
    one, other = _spec(a, name), _spec(b, name)
    values = None
    if one is None or other is None:
        status = ONLY_B if one is None else ONLY_A
    elif one["shape"] != other["shape"]:
        status = SHAPE
    else:
        if tf.variant.name not in (one["dtype"], other["dtype"]):  # No reader gives their values.
            values = compare(a.read(name), b.read(name), tolerance)
        differs = VALUES if values is not None and values.differing else EQUAL
        status = DTYPE if one["dtype"] != other["dtype"] else differs
    record = values and {
        key: json_value(np.asarray(value)) if isinstance(value, float) else value
        for key, value in values._asdict().items()
    }
    return {"name": name, "status": status, "a": one, "b": other, "values": record}


def _spec(reader: CheckpointReader, name: str) -> Record | None:
    if name not in reader.shapes:
        return None
    return {"dtype": reader.dtypes[name].name, "shape": [*reader.shapes[name]]}
