"""What an input is opened for, and what comes of it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from checkpoints.loading.tensor_info import TensorInfo
from prediction.model import Classifier
from prediction.rows import Rows

Labels = npt.NDArray[np.int64]


class Target(NamedTuple):
    """What an input is opened for.

    Attributes:
      info: the tensor that is fed.
      scale: what uint8 values are multiplied by, None for nothing.
      class_names: in label order; empty where unknown.
      classifier: None where the graph is something else; labels are then of no use.
      image_shape: height, width and channels of the image that a row holds, as the graph says.
      ignore_exif: whether image files stay as they are stored, see `decode_image`.
    """

    info: TensorInfo
    scale: float | None
    class_names: Sequence[str]
    classifier: Classifier | None
    image_shape: tuple[int, int, int] | None = None
    ignore_exif: bool = False

    @property
    def flat_image(self) -> tuple[int, int, int] | None:
        """The image whose values a row holds one after another; None where it is none."""
        if self.image_shape is None or self.info.shape is None:
            return None
        is_row = self.info.shape[1:] == (math.prod(self.image_shape),)
        return self.image_shape if is_row else None


class Input(NamedTuple):
    """Rows to predict.

    Attributes:
      rows: ready for the tensor.
      names: of each row: its file, or its number from 0.
      labels: int64 [N], each row's true class; None where unknown.
    """

    rows: Rows
    names: Sequence[str]
    labels: Labels | None


def numbered(rows: Rows) -> Input:
    """Rows that are named by their numbers, without labels."""
    return Input(rows, [str(row) for row in range(len(rows))], None)
