"""A classifier's results, row by row, and how many of them are right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prediction.casting import Array


class Classification(NamedTuple):
    """What a classifier says of each row.

    Attributes:
      names: of the rows: files, or numbers from 0.
      classes: int64 [N], the class of each row, in [0, K).
      probabilities: float [N, K], of each class.
      labels: int64 [N], the true classes; None where unknown.
      class_names: K names; empty where the classes have none.
    """

    names: Sequence[str]
    classes: npt.NDArray[np.int64]
    probabilities: Array
    labels: npt.NDArray[np.int64] | None
    class_names: Sequence[str]

    def class_name(self, index: int) -> str:
        """The name of a class; its number where it has none."""
        return self.class_names[index] if index < len(self.class_names) else str(index)

    @property
    def probability(self) -> Array:
        """Of each row's class: float [N]."""
        return np.asarray(self.probabilities[np.arange(len(self.classes)), self.classes])


class Share(NamedTuple):
    """How many rows of some are right."""

    right: int
    of: int

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.right / self.of

    def __str__(self) -> str:
        return f"{self.accuracy:.4f} ({self.right} of {self.of})"


def accuracy(result: Classification, labels: npt.NDArray[np.int64]) -> Share:
    """How many rows have the class of their label."""
    return Share(int(np.sum(result.classes == labels)), len(labels))


def accuracy_per_class(result: Classification, labels: npt.NDArray[np.int64]) -> dict[str, Share]:
    """For each class that the labels name, how many of its rows are right."""
    right = result.classes == labels
    shares = {}
    for label in np.unique(labels):
        members = labels == label
        shares[result.class_name(int(label))] = Share(
            int(np.sum(right[members])), int(members.sum())
        )
    return shares
