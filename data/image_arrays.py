"""Checks arrays that are said to be images and labels, and gives them their one dtype."""

import numpy as np
import numpy.typing as npt
from absl import logging

from data.errors import DataError
from data.image_file import IMAGE_SHAPE
from data.source import Array

_MAX_LABEL = np.float64(2**31 - 1)  # Compared as float64, whatever the labels are.


def as_images(array: Array, name: str, image_shape: tuple[int, ...] = IMAGE_SHAPE) -> Array:
    """Checks images; those of float64 or float16 are taken as float32.

    Args:
      array: uint8 or float [N, *image_shape], N above 0.
      name: of the array, for errors.
      image_shape: of each.

    Returns:
      uint8 or float32 [N, *image_shape], C-contiguous; the array itself where it is all that.

    Raises:
      DataError: another shape or dtype, no image, NaN or infinity.
    """
    check_image_shape(array.shape, name, image_shape)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise DataError(f"{name}: expected uint8 in 0..255 or float in [0, 1], found {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):  # Found by the check that follows.
        images = np.ascontiguousarray(array, np.float32)
    _check_finite(images, name)
    return images


def check_image_shape(
    shape: tuple[int, ...], name: str, image_shape: tuple[int, ...] = IMAGE_SHAPE
) -> None:
    """Raises DataError where `shape` is not [N, *image_shape] with N above 0."""
    if shape[1:] != image_shape:
        expected = ", ".join(["N", *map(str, image_shape)])
        raise DataError(f"{name}: expected the shape [{expected}], found {list(shape)}")
    if not shape[0]:
        raise DataError(f"{name}: holds no image")


def _check_finite(images: npt.NDArray[np.float32], name: str) -> None:
    # The extremes are NaN where any value is; and they need no array of the size of the images.
    if np.isfinite([images.min(), images.max()]).all():
        return
    row = next(row for row, image in enumerate(images) if not np.isfinite(image).all())
    raise DataError(f"{name}: row {row} (the first such) holds NaN or infinity as float32")


def warn_out_of_range(images: Array, name: str) -> None:
    """Logs a warning where float images leave [0, 1], the range of scaled uint8 images."""
    if images.dtype == np.uint8:
        return
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        logging.warning("%s: values in [%g, %g]; expected [0, 1], or uint8", name, low, high)


def as_labels(array: Array, name: str) -> npt.NDArray[np.int64]:
    """Checks labels.

    Args:
      array: [N], integers of any width or floats that are whole numbers, 0 or more.
      name: of the array, for errors.

    Returns:
      int64 [N].

    Raises:
      DataError: another shape or dtype, or a label that is negative or not a whole number.
    """
    if array.ndim != 1:
        raise DataError(f"{name}: expected one label per image, [N], found {list(array.shape)}")
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name}: expected labels as whole numbers, found {array.dtype}")
    # False for NaN too; far from where floats and uint64 no longer fit.
    good = (array >= 0) & (array <= _MAX_LABEL) & (np.floor(array) == array)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"{name}: row {row} (the first such) is {array[row]}; "
            "expected the whole numbers from 0 to the number of classes - 1"
        )
    return array.astype(np.int64)


def count_classes(labels: npt.NDArray[np.int64], name: str) -> int:
    """The number of classes: the greatest label + 1.

    Args:
      labels: int64 [N], N above 0, from `as_labels`.
      name: of the array, for errors.

    Raises:
      DataError: a class without an image, or only one class.
    """
    present = np.unique(labels)
    num_classes = int(present[-1]) + 1
    if len(present) < num_classes:
        absent = int(np.argmax(present != np.arange(len(present))))
        raise DataError(
            f"{name}: the class {absent} has no image (the labels go up to {num_classes - 1})"
        )
    if num_classes < 2:
        raise DataError(f"{name}: all labels are 0; expected two classes or more")
    return num_classes
