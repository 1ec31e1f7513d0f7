"""The statistics of one tensor, in float64 and in little memory beside its own."""

import math
from typing import Any, NamedTuple

import numpy as np

from checkpoints.loading.checkpoint_reader import Array

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
