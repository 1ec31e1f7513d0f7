"""Picks some classes of a data set, in the order asked for."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data.errors import DataError
from data.source import Indices, LabelledSource, Subset

_SHOWN = 20  # class names in an error


class Choice(NamedTuple):
    """The classes that were picked: the i-th of them has the label i."""

    numbers: tuple[int, ...]  # What their labels were.
    names: tuple[str, ...]


def choose(wanted: Sequence[str], known: Sequence[str]) -> Choice:
    """Finds classes among the known ones.

    Args:
      wanted: names of classes.
      known: all names, in the order of the labels; of classes without names, their numbers.

    Raises:
      DataError: an unknown or a repeated class, or fewer than two.
    """
    shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    given = f"--classes={','.join(wanted)}"
    for name in wanted:
        if name not in known:
            raise DataError(f"{given}: there is no class {name!r}; the classes are {shown}")
        if list(wanted).count(name) > 1:
            raise DataError(f"{given}: names {name!r} twice; the classes are {shown}")
    if len(wanted) < 2:
        raise DataError(f"{given}: expected two classes or more; the classes are {shown}")
    return Choice(tuple(known.index(name) for name in wanted), tuple(wanted))


def chosen_rows(labels: Indices, choice: Choice) -> tuple[Indices, Indices]:
    """Which rows are of the picked classes, and what the labels become.

    Args:
      labels: int64 [N].
      choice: from `choose`.

    Returns:
      The rows' numbers, int64 [M], ascending; and the new labels of all, int64 [N], where those of
      rows that were not picked are -1.
    """
    renumbered = np.full(max(int(labels.max()), *choice.numbers) + 1, -1, np.int64)
    renumbered[list(choice.numbers)] = np.arange(len(choice.numbers))
    new_labels = renumbered[labels]
    return np.flatnonzero(new_labels >= 0), new_labels


def pick(source: LabelledSource[Any], choice: Choice) -> Subset:
    """The examples of the picked classes, in the order of the source."""
    members, labels = chosen_rows(source.labels, choice)
    relabelled = dataclasses.replace(source, labels=labels, class_names=choice.names)
    return Subset(relabelled, members)
