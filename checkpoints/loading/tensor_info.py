"""What is known of a tensor, and how an error line says it."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf


class TensorInfo(NamedTuple):
    """What is known of a tensor before anything runs.

    Attributes:
      name: in full, such as `x:0`.
      dtype: a tf.DType, never a reference type.
      shape: None for each dimension that is not known; None where the rank is not known.
    """

    name: str
    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        """As in an error line: `x:0 float32 [?, 32, 32, 3]`."""
        return f"{self.name} {self.dtype.name} {format_shape(self.shape)}"


def format_shape(shape: Sequence[int | None] | tf.TensorShape | None) -> str:
    """`[?, 32, 32, 3]`; `of any shape` where the rank is not known."""
    if isinstance(shape, tf.TensorShape):
        shape = None if shape.rank is None else shape.as_list()
    if shape is None:
        return "of any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
