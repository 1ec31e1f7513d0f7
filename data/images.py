"""Image files to pixels, and arrays that are said to be images or labels to their one dtype."""

import io
import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from data import files
from data.shapes import ramp_images
from data.source import Array
from errors import DataError

IMAGE_SHAPE = (32, 32, 3)  # Height and width in pixels, and channels.
MAX_PIXELS = 64_000_000
# Enough for any image of MAX_PIXELS with four bytes per pixel, even without compression.
MAX_FILE_BYTES = 4 * MAX_PIXELS + 1_000_000
# Of larger ones, only one is decoded at a time, so that all threads together hold no more than one
# of MAX_PIXELS and a smaller one each. The lock is the process's, as its memory is.
_SHARED_PIXELS = 4_000_000
_LARGE = threading.Lock()
# These classes, and not `Image.open`, which also tries formats that nobody checked, and measures
# an image against a limit that is global to the process. Another format goes here, among the
# suffixes in `prediction/file_inputs.py`, and into `tools/export_images.py` (decoding in a graph).
_DECODERS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
}
# Where Pillow looks for the orientation of an image; most have none of it, and are not asked.
_ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})


def decode_image(
    content: bytes, name: str, size: int = 32, channels: int = 3, *, ignore_exif: bool = False
) -> npt.NDArray[np.uint8]:
    """Decodes a PNG or JPEG image, turns it as viewers do, and resizes it to a square, bilinear.

    Transparency is dropped, of an animation the first image is taken, and of 16 bits per channel
    the upper 8. With `ignore_exif`, the pixels stay as they are stored, whatever orientation the
    EXIF data say.

    Gives uint8 [size, size, channels]: RGB, or with one channel the brightness of that.

    Raises:
      DataError: neither PNG nor JPEG, more than `MAX_PIXELS`, damaged or cut short.
    """
    decoder = next((_DECODERS[start] for start in _DECODERS if content.startswith(start)), None)
    if decoder is None:
        raise DataError(f"{name}: is neither a PNG nor a JPEG image")
    try:
        image = decoder(io.BytesIO(content))  # Reads the header only.
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"{name}: has {image.width} x {image.height} pixels; "
                f"at most {MAX_PIXELS:,} are read"
            )
        with _LARGE if image.width * image.height > _SHARED_PIXELS else nullcontext():
            image.load()
            if not ignore_exif and not _ORIENTED.isdisjoint(image.info):
                with suppress(Exception):  # Of hostile EXIF, nearly any kind: it says nothing.
                    ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image, size, channels)
    except DataError:
        raise
    except Exception as error:  # Decoders of hostile bytes raise nearly any kind.
        raise DataError(f"{name}: is damaged or cut short: {error}") from error


def _pixels(image: Image.Image, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """The pixels of a decoded image: uint8 [size, size, channels]."""
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # `convert` warns that it is lost.
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image if channels == 3 else image.convert("L"))
    return pixels.reshape(size, size, channels)


def fit_images(images: Array, size: int, channels: int) -> Array:
    """Makes of images, uint8 [N, H, W] or [N, H, W, 3], what `decode_image` does of their files."""
    fitted = np.empty((len(images), size, size, channels), np.uint8)
    for row, image in enumerate(images):
        fitted[row] = _pixels(Image.fromarray(image), size, channels)
    return fitted


# Beside the decoding, which releases Python's lock, a file costs tens of microseconds that hold it:
# of smaller files, two threads decode fewer a second than one.
_BYTES_THAT_PAY = 8192
_FILES_LOOKED_AT = 16
_MOST_WORKERS = 8


def decoding_workers(paths: Sequence[str]) -> int:
    """How many threads decode these files fastest: one, unless they are large enough to share.

    A few of them are looked at, evenly spaced.
    """
    sizes = [0]
    for path in paths[:: max(len(paths) // _FILES_LOOKED_AT, 1)]:
        with suppress(DataError):  # Told when it is its turn to be read.
            sizes.append(files.size(path))
    return 1 if np.mean(sizes) < _BYTES_THAT_PAY else min(os.cpu_count() or 1, _MOST_WORKERS)


# Checks arrays that are said to be images and labels, and gives them their one dtype.

_MAX_LABEL = np.float64(2**31 - 1)  # Compared as float64, whatever the labels are.


def check_images(
    shape: tuple[int, ...], dtype: np.dtype[Any], name: str, image_shape: tuple[int, ...]
) -> None:
    """Raises DataError unless these are images, uint8 or float [N, *image_shape], N above 0."""
    if not shape or shape[1:] != image_shape:
        expected = ", ".join(["N", *map(str, image_shape)])
        raise DataError(f"{name}: expected the shape [{expected}], found {list(shape)}")
    if not shape[0]:
        raise DataError(f"{name}: holds no image")
    if dtype != np.uint8 and dtype.kind != "f":
        raise DataError(f"{name}: expected uint8 in 0..255 or float in [0, 1], found {dtype}")


def as_images(array: Array, name: str, image_shape: tuple[int, ...] = IMAGE_SHAPE) -> Array:
    """Checks images, uint8 or float [N, *image_shape]; floats of any width are taken as float32.

    Raises:
      DataError: another shape or dtype, no image, NaN or infinity.
    """
    check_images(array.shape, array.dtype, name, image_shape)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore", invalid="ignore"):  # Found by the check that follows.
        images = np.ascontiguousarray(array, np.float32)
    if bad := not_finite(images):
        raise DataError(f"{name}: row {bad[0]} (the first such) holds NaN or infinity as float32")
    return images


def not_finite(rows: Array) -> list[int]:
    """The numbers of the rows that hold NaN or infinity."""
    # The extremes are NaN where any value is; and they need no array of the size of the rows.
    if not rows.size or np.isfinite([rows.min(), rows.max()]).all():
        return []
    return [number for number, row in enumerate(rows) if not np.isfinite(row).all()]


def warn_out_of_range(images: Array, name: str) -> None:
    """Logs a warning where float images leave [0, 1], the range of scaled uint8 images.

    The ramp is meant to be as it is.
    """
    if images.dtype == np.uint8:
        return
    low, high = float(images.min()), float(images.max())
    if (low < 0 or high > 1) and not np.array_equal(images, ramp_images()):
        logging.warning("%s: values in [%g, %g]; expected [0, 1], or uint8", name, low, high)


def as_labels(array: Array, name: str) -> npt.NDArray[np.int64]:
    """Labels [N], integers of any width or floats that are whole numbers, 0 or more, as int64.

    Raises DataError for another shape or dtype, and for other numbers.
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
    """The number of classes: the greatest of the labels, int64 [N], N above 0, + 1.

    Raises DataError where a class has no image, or there is only one.
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
