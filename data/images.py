"""Image files to pixels, and arrays that are said to be images or labels to their one dtype."""

import io
import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext, suppress

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

IMAGE_SIZE = 32  # Pixels, of either side.
IMAGE_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)
MAX_PIXELS = 64_000_000
# Enough for any image of MAX_PIXELS with four bytes per pixel, even without compression.
MAX_FILE_BYTES = 4 * MAX_PIXELS + 1_000_000
# Of larger ones, only one is decoded at a time, so that all threads together hold no more than one
# of MAX_PIXELS and a smaller one each. The lock is the process's, as its memory is.
_SHARED_PIXELS = 4_000_000
_LARGE = threading.Lock()
# Beside the decoding, which releases Python's lock, a file costs tens of microseconds that hold it:
# of smaller files, two threads decode fewer a second than one.
_BYTES_THAT_PAY = 8192
_FILES_LOOKED_AT = 16
_MOST_WORKERS = 8
# These classes, and not `Image.open`, which also tries formats that nobody checked, and measures
# an image against a limit that is global to the process. Another format goes here, among the
# suffixes in `prediction/file_inputs.py`, and into `tools/export_images.py` (decoding in a graph).
_DECODERS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
}
# Where Pillow looks for the orientation of an image; most have none of it, and are not asked.
_ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
# The weights of ITU-R BT.601 in 16 bits, as Pillow's conversion to its mode "L" has them.
_GREY_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)
_GREY_ONE, _GREY_HALF = 1 << 16, 1 << 15


def decode_image(
    content: bytes, name: str, size: int = IMAGE_SIZE, *, ignore_exif: bool = False
) -> npt.NDArray[np.uint8]:
    """Decodes a PNG or JPEG image, turns it as viewers do, and resizes it to a square, bilinear.

    Transparency is dropped, of an animation the first image is taken, and of 16 bits per channel
    the upper 8. With `ignore_exif`, the pixels stay as they are stored, whatever orientation the
    EXIF data say.

    Returns:
      uint8 [size, size, 3], RGB.

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
            return _pixels(image, size)
    except DataError:
        raise
    except Exception as error:  # Decoders of hostile bytes raise nearly any kind.
        raise DataError(f"{name}: is damaged or cut short: {error}") from error


def _pixels(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """The pixels of a decoded image: uint8 [size, size, 3]."""
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # `convert` warns that it is lost.
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def resize_grey(images: npt.NDArray[np.uint8], size: int = IMAGE_SIZE) -> npt.NDArray[np.uint8]:
    """Turns grey images into colour ones of another size, as `decode_image` does with a file.

    Of uint8 [N, H, W], or [N, H, W, 3], which are colour ones already, it makes uint8
    [N, size, size, 3].
    """
    resized = np.empty((len(images), size, size, 3), np.uint8)
    for row, image in enumerate(images):
        resized[row] = _pixels(Image.fromarray(image), size)
    return resized


def to_grey(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The brightness of each pixel: RGB, uint8 [..., 3] -> uint8 [..., 1].

    Of a pixel whose channels are alike it is their value.
    """
    sums = images.astype(np.uint32) @ _GREY_WEIGHTS[:, np.newaxis] + np.uint32(_GREY_HALF)
    return (sums // np.uint32(_GREY_ONE)).astype(np.uint8)


def fit_images(
    images: npt.NDArray[np.uint8], image_shape: tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """Resizes images [N, H, W] or [N, H, W, 3] to [N, S, S, 3], or to [N, S, S, 1] for grey."""
    if images.shape[1:] == image_shape:
        return images
    resized = resize_grey(images, image_shape[0])
    return to_grey(resized) if image_shape[2] == 1 else resized


def read_image(
    path: str, size: int = IMAGE_SIZE, *, ignore_exif: bool = False
) -> npt.NDArray[np.uint8]:
    """Reads and decodes an image file; see `decode_image`."""
    content = files.read_bytes(path, MAX_FILE_BYTES)
    return decode_image(content, path, size, ignore_exif=ignore_exif)


def decoding_workers(paths: Sequence[str]) -> int:
    """How many threads decode these files fastest: one, unless they are large enough to share.

    A few of them are looked at, evenly spaced.
    """
    sizes = [0]
    for index in np.linspace(0, len(paths) - 1, min(_FILES_LOOKED_AT, len(paths))).astype(int):
        try:
            sizes.append(files.size(paths[index]))
        except DataError:
            continue  # Told when it is its turn to be read.
    if np.mean(sizes) < _BYTES_THAT_PAY:
        return 1
    return min(os.cpu_count() or 1, _MOST_WORKERS)


# Checks arrays that are said to be images and labels, and gives them their one dtype.

_MAX_LABEL = np.float64(2**31 - 1)  # Compared as float64, whatever the labels are.


def as_images(array: Array, name: str, image_shape: tuple[int, ...] = IMAGE_SHAPE) -> Array:
    """Checks images; those of float64 or float16 are taken as float32.

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
    if (row := first_not_finite(images)) is not None:
        raise DataError(f"{name}: row {row} (the first such) holds NaN or infinity as float32")
    return images


def first_not_finite(rows: Array) -> int | None:
    """The number of the first row that holds NaN or infinity; None where all are finite."""
    # The extremes are NaN where any value is; and they need no array of the size of the rows.
    if np.isfinite([rows.min(), rows.max()]).all():
        return None
    return next(number for number, row in enumerate(rows) if not np.isfinite(row).all())


def check_image_shape(
    shape: tuple[int, ...], name: str, image_shape: tuple[int, ...] = IMAGE_SHAPE
) -> None:
    """Raises DataError where `shape` is not [N, *image_shape] with N above 0."""
    if shape[1:] != image_shape:
        expected = ", ".join(["N", *map(str, image_shape)])
        raise DataError(f"{name}: expected the shape [{expected}], found {list(shape)}")
    if not shape[0]:
        raise DataError(f"{name}: holds no image")


def warn_out_of_range(images: Array, name: str) -> None:
    """Logs a warning where float images leave [0, 1], the range of scaled uint8 images.

    The ramp is meant to be as it is.
    """
    if images.dtype == np.uint8 or np.array_equal(images, ramp_images()):
        return
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        logging.warning("%s: values in [%g, %g]; expected [0, 1], or uint8", name, low, high)


def as_labels(array: Array, name: str) -> npt.NDArray[np.int64]:
    """Labels [N], integers of any width or floats that are whole numbers, 0 or more, as int64.

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
    """The number of classes: the greatest of the labels, int64 [N], N above 0, + 1.

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
