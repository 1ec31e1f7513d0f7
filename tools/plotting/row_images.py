"""A row of a model's input as the image that it is."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from checkpoints.loading.tensor_info import format_shape
from data.errors import DataError
from data.image_file import decode_image
from prediction.casting import Array
from prediction.command import Classified
from prediction.rows import Rows
from tools.common.errors import ToolError

_UINT8 = 255.0
_DECODED_SIZE = 128  # Pixels of either side, of an image that the graph itself decodes.
_ROUNDING = 1e-3

Pixels = npt.NDArray[np.float64]


class RowImage(NamedTuple):
    """One row.

    Attributes:
      pixels: float64 [height, width, 3], in [0, 1].
      stretched: whether its own least and largest values are black and white, as those of the
        model's images are not known, or other values are within it.
    """

    pixels: Pixels
    stretched: bool


class RowImages(NamedTuple):
    """The rows of one input, as images.

    Attributes:
      tensor: of the input.
      rows: its rows.
      shape: height, width and channels of an image; None for the bytes of an image file.
      white: the value of a white pixel; None where the graph does not say.
    """

    tensor: str
    rows: Rows
    shape: tuple[int, int, int] | None
    white: float | None

    def image(self, row: int) -> RowImage:
        """One row, as it is to be seen.

        Raises:
          DataError: the file cannot be read, or is damaged.
        """
        values = self.rows.batch(row, row + 1)
        if self.shape is None:
            name = f"{self.tensor} {row}"  # As the graph decodes it, which does not look at EXIF.
            decoded = decode_image(values[0], name, _DECODED_SIZE, ignore_exif=True)
            return RowImage(decoded / _UINT8, stretched=False)
        pixels: Pixels = values.astype(np.float64).reshape(self.shape)
        low, high = float(pixels.min()), float(pixels.max())
        known = self.white is not None and low >= 0 and high <= self.white * (1 + _ROUNDING)
        if known:
            low, high = 0.0, self.white or high
        span = (high - low) or 1.0
        pixels = np.clip((pixels - low) / span, 0.0, 1.0)
        return RowImage(np.broadcast_to(pixels, (*self.shape[:2], 3)), stretched=not known)


def row_images(found: Classified) -> RowImages:
    """The first input whose rows are images.

    Raises:
      ToolError: there is none.
    """
    refused = []
    for name, rows in found.inputs.rows.items():
        first = rows.batch(0, 1)
        of_signature = name in found.model.inputs.values()
        shape = _image_shape(first, found.model.image_shape if of_signature else None)
        if shape is not None:
            scale = found.model.input_scale if of_signature else None
            return RowImages(name, rows, shape, _white(first, scale))
        if _is_image_file(first):
            return RowImages(name, rows, None, None)
        refused.append(f"{name} {format_shape(first.shape[1:])}")
    raise ToolError(
        f"{found.meta}: expected rows that are images, found {', '.join(refused) or 'none'}"
    )


def _white(values: Array, scale: float | None) -> float | None:
    if values.dtype == np.uint8:
        return _UINT8
    return None if scale is None else _UINT8 * scale


def _image_shape(values: Array, of_row: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    """Height, width and channels of a batch of one row; None where it is no image."""
    if values.dtype.kind not in "fiu" or not np.isfinite(values.astype(np.float64)).all():
        return None
    if of_row is not None and values.size == math.prod(of_row) and of_row[2] in (1, 3):
        return of_row
    if values.ndim == 4 and values.shape[3] in (1, 3):
        return values.shape[1], values.shape[2], values.shape[3]
    if values.ndim == 3:
        return values.shape[1], values.shape[2], 1
    return None


def _is_image_file(values: Array) -> bool:
    """Whether a batch of one row is the bytes of an image file."""
    if values.shape != (1,) or not isinstance(values[0], bytes):
        return False
    try:
        decode_image(values[0], "", 1)
    except DataError:
        return False
    return True
