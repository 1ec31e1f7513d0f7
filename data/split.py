"""Holds examples out of training, by seed."""

import numpy as np

from data.errors import DataError
from data.random_bits import Stream, permutation
from data.source import Indices


def split_rows(labels: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Holds out the same fraction of each class, to the nearest whole example.

    Each class keeps at least one example for training. A greater fraction holds out those of a
    smaller one and more.

    Args:
      labels: int64 [N].
      fraction: above 0, below 1.
      seed: the run's seed, 0 or more. What is held out follows from it and the labels.

    Returns:
      The numbers of the examples to train on and of those held out, int64, both ascending.

    Raises:
      DataError: the fraction holds out nothing.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction must lie between 0 and 1, not {fraction}")
    shuffled = permutation(len(labels), seed, Stream.HELD_OUT)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, counts = np.unique(labels, return_counts=True)
    is_held_out = np.zeros(len(labels), bool)
    for members in np.split(by_class, np.cumsum(counts)[:-1]):
        count = min(round(fraction * len(members)), len(members) - 1)
        is_held_out[members[:count]] = True
    if not is_held_out.any():
        raise DataError(
            f"--validation_fraction={fraction:g} of {len(labels)} images holds out none; "
            "give a larger fraction, or 0 for no validation"
        )
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
