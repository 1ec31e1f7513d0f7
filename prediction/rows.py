"""Rows to feed, a batch at a time: of an array, or of image files that are decoded as needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from checkpoints.inference_graph import TensorInfo
from data.image_file import read_images
from prediction.casting import Array, fit_dtype


class Rows(Protocol):
    """Values whose first dimension is the row, ready for one tensor."""

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def batch(self, start: int, stop: int) -> Array:
        """The rows [start, stop), of the tensor's dtype."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of an array.

    Attributes:
      values: [N, ...], in any dtype that goes over into the tensor's.
      info: the tensor they are for.
      source: where they are from, for an error line.
      scale: what uint8 values are multiplied by for a float tensor, None for nothing.
    """

    values: Array
    info: TensorInfo
    source: str
    scale: float | None = None

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, start: int, stop: int) -> Array:
        """See `Rows`. Without a change of dtype it is a view."""
        return _ready(self.values[start:stop], self.info, self.source, self.scale)


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Rows of image files.

    Attributes:
      paths: the files.
      size: height and width in pixels that each is resized to.
      info: the tensor they are for, [N, size, size, 3].
      scale: as in `ArrayRows`.
    """

    paths: Sequence[str]
    size: int
    info: TensorInfo
    scale: float | None

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, start: int, stop: int) -> Array:
        """See `Rows`.

        Raises:
          DataError: a file cannot be read or is no image.
        """
        images = read_images(self.paths[start:stop], self.size)
        return _ready(images, self.info, self.paths[start], self.scale)


def _ready(values: Array, info: TensorInfo, source: str, scale: float | None) -> Array:
    """Values in the tensor's dtype; uint8 is scaled for a float32 as in training, bit for bit."""
    if values.dtype == np.uint8 and scale is not None and info.dtype.is_floating:
        values = np.multiply(values, np.float32(scale), dtype=np.float32)
    return fit_dtype(values, info, source)
