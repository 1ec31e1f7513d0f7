"""The variables of two checkpoints, compared by name, a pair of tensors at a time."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.tensor_bundle import VariableSpec
from tools.comparison.arrays import Difference, compare

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
        yield _compare(name, a, b, tolerance)


def _compare(
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
