"""Compares two ways to do the same work, in turn, so that a machine's mood falls on both alike."""

import statistics
from collections.abc import Callable
from typing import NamedTuple


class Comparison(NamedTuple):
    """What was measured.

    Attributes:
      name: what was compared.
      ours: the median of our figures.
      theirs: the median of theirs.
      ratio: the median of ours / theirs, taken pair by pair.
      unit: of both figures.
      bound: what the ratio is held to, such as "at least 0.97".
    """

    name: str
    ours: float
    theirs: float
    ratio: float
    unit: str
    bound: str

    def __str__(self) -> str:
        """One line of the report."""
        return (
            f"{self.name:<58} {self.ours:>10,.2f} {self.theirs:>10,.2f} {self.unit:<9} "
            f"ratio {self.ratio:.3f} ({self.bound})"
        )


def compare(
    name: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    pairs: int,
    unit: str,
    bound: str,
) -> Comparison:
    """Calls both once to warm up, then `pairs` times in turn; each call returns its figure."""
    ours()
    theirs()
    figures = [(ours(), theirs()) for _ in range(pairs)]
    return Comparison(
        name,
        statistics.median(mine for mine, _ in figures),
        statistics.median(other for _, other in figures),
        statistics.median(mine / other for mine, other in figures),
        unit,
        bound,
    )
