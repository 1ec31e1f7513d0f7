"""Image files, and folders of them, to pixels; arrays of images and labels to their one dtype."""

import io
import math
import os
import re
import threading
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

import file_io
from data import files
from data.files import Array, Indices
from errors import BadRowsError, DataError, RefusedError

IMAGE_SHAPE = (32, 32, 3)  # Height and width in pixels, and channels.
MAX_PIXELS = 64_000_000
_MAX_FITTED_BYTES = 4 * 2**30  # As an .npz may hold.
# Enough for any image of MAX_PIXELS with four bytes per pixel, even without compression.
MAX_FILE_BYTES = 4 * MAX_PIXELS + 1_000_000
# Of larger ones, only one is decoded at a time, so that all threads together hold no more than one
# of MAX_PIXELS and a smaller one each. The lock is the process's, as its memory is.
_SHARED_PIXELS = 4_000_000
_LARGE = threading.Lock()
# These classes, and not `Image.open`, which also tries formats that nobody checked, and measures
# an image against a limit that is global to the process. `tools/export_saved_model.py` has graphs
# decode the first two.
_DECODERS: dict[bytes, type[ImageFile]] = {
    rb"\x89PNG\r\n\x1a\n": PngImageFile,
    rb"\xff\xd8\xff": JpegImageFile,
    rb"BM": BmpImageFile,
    rb"GIF8[79]a": GifImageFile,
    rb"RIFF.{4}WEBP": WebPImageFile,
}
# A new format is an entry above and in both of these; the help of --input lists them, too.
FORMATS = "PNG, JPEG, BMP, WebP or GIF"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
# A run-length code of BMP may skip so many rows at once, for which Pillow takes memory.
_SKIPPED_ROWS = 256
# Where Pillow looks for the orientation of an image; most have none of it, and are not asked.
_ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})


def decode_image(
    content: bytes, name: str, size: int = 32, channels: int = 3, *, ignore_exif: bool = False
) -> npt.NDArray[np.uint8]:
    """Decodes an image file, and resizes it to a square, bilinear.

    Unless `ignore_exif`, it is turned as its EXIF data say. Transparency is dropped, of an
    animation the first image is taken, and of 16 bits per channel the upper 8. Gives uint8 [size,
    size, channels], of its own size where that is 0: RGB, or with one channel its brightness.
    DataError where it is in none of the `FORMATS`, has more than `MAX_PIXELS`, or is damaged or cut
    short.
    """
    kinds = (kind for head, kind in _DECODERS.items() if re.match(head, content, re.DOTALL))
    decoder = next(kinds, None)
    if decoder is None:
        raise DataError(f"{name}: is no {FORMATS} image")
    try:
        if decoder is WebPImageFile and content[12:16] == b"VP8X":
            # Pillow takes memory for the canvas when it opens one. Format: RFC 9649.
            sides = [int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27)]
            _check_pixels(name, *sides)
        image = decoder(io.BytesIO(content))  # Reads the header only.
        rows = max(image.height, _SKIPPED_ROWS) if decoder is BmpImageFile else image.height
        _check_pixels(name, image.width, rows)
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


def _check_pixels(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{name}: has {width} x {height} pixels; at most {MAX_PIXELS:,} are read")


def _pixels(image: Image.Image, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """The pixels of a decoded image: uint8 [size, size, channels], of its own size where 0."""
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # `convert` warns that it is lost.
    if image.mode != "RGB":
        image = image.convert("RGB")
    if size and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image if channels == 3 else image.convert("L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def is_square(shape: tuple[int, ...]) -> bool:
    """Whether images can be made to fit this shape: [S, S, 3] or [S, S, 1]."""
    return len(shape) == 3 and shape[0] == shape[1] and shape[2] in (1, 3)


def can_be_fitted(array: Any) -> bool:
    """Whether `fit_images` takes it, which may be no array yet but have its shape and dtype."""
    shape, is_bytes = array.shape, array.dtype == np.uint8
    return is_bytes and 0 not in shape and (len(shape) == 3 or shape[3:] in ((1,), (3,)))


def fit_images(images: Array, size: int, channels: int) -> Array:
    """Makes of images, uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], what their files become.

    That is uint8 [N, size, size, channels], of their own size where that is 0. DataError where that
    takes too much memory.
    """
    height, width = images.shape[1:3]
    _check_pixels("an image of an array", width, height)
    shape = (len(images), size or height, size or width, channels)
    if math.prod(shape) > _MAX_FITTED_BYTES:
        raise DataError(
            f"{shape[0]:,} images of {shape[1]} x {shape[2]} pixels take too much memory"
        )
    fitted = np.empty(shape, np.uint8)
    for row, image in enumerate(images):
        grey = image[..., 0] if image.shape[2:] == (1,) else image
        fitted[row] = _pixels(Image.fromarray(grey), size, channels)
    return fitted


# Beside the decoding, which releases Python's lock, a file costs tens of microseconds that hold it:
# of smaller files, two threads decode fewer a second than one.
_BYTES_THAT_PAY = 8192
_FILES_LOOKED_AT = 16
_MOST_WORKERS = 8


def decoding_workers(paths: Sequence[str]) -> int:
    """How many threads decode these files fastest: one, unless a few of them are large."""
    sizes = [0]
    for path in paths[:: max(len(paths) // _FILES_LOOKED_AT, 1)]:
        with suppress(DataError):  # Told when it is its turn to be read.
            sizes.append(files.size(path))
    return 1 if np.mean(sizes) < _BYTES_THAT_PAY else min(os.cpu_count() or 1, _MOST_WORKERS)


# Folders of images: one subfolder a class, whole or split into train/ and test/.

_SHOWN = 20  # class names in an error
_TRAIN, _TEST = "train", "test"
# What is hidden, and what systems, archivers, synchronisers, browsers and editors leave.
_LEFT_OUT = re.compile(
    r"\..*|thumbs\.db|ehthumbs.*\.db|desktop\.ini|icon\r|__macosx|\$recycle\.bin|@eadir"
    r"|[@#](recycle|snapshot|tmp)|system volume information|lost\+found|temporary items|__pycache__"
    r"|.*~|~\$.*|#.*#|.*\.(tmp|part|crdownload)",
    re.IGNORECASE,
)


def visible_names(folder: str) -> list[str]:
    """The names in a folder, sorted, but for what nobody has put there."""
    return [name for name in files.list_folder(folder) if not _LEFT_OUT.fullmatch(name)]


def class_names(folder: str) -> tuple[str, ...]:
    """The names of the visible subfolders, sorted."""
    return tuple(
        name for name in visible_names(folder) if file_io.is_folder(os.path.join(folder, name))
    )


def list_images(folder: str) -> list[tuple[str, int]]:
    """The path of each file and its label, an index into `class_names`; DataError for none."""
    names = class_names(folder)
    if not names:
        found = visible_names(folder)
        raise DataError(
            f"{folder}: expected one subfolder of images per class, found "
            + (f"none (but {found[0]})" if found else "an empty folder")
        )
    images = []
    for label, name in enumerate(names):
        class_folder = os.path.join(folder, name)
        found = visible_names(class_folder)
        if not found:
            raise DataError(f"{class_folder}: the class {name} has no image")
        images += [(os.path.join(class_folder, file), label) for file in found]
    return images


def find_parts(folder: str) -> tuple[list[str], tuple[str, ...]]:
    """The folder to train on, then the one to test on where there is one; and the classes, sorted.

    DataError for test/ without train/, another folder beside them, or a class in one of them only.
    """
    names = class_names(folder)
    train, test = (os.path.join(folder, part) for part in (_TRAIN, _TEST))
    beside = {*names} - {_TRAIN, _TEST}
    # A class may be named train: it has no subfolders, and other classes beside it.
    if not names or (beside and not (_TRAIN in names and class_names(train))):
        return [folder], names
    if beside or _TRAIN not in names:
        raise DataError(
            f"{folder}: expected train/ with or without test/, found {'/, '.join(names)}/"
        )
    classes = class_names(train)
    if _TEST not in names:
        return [train], classes
    if only_in_one := sorted({*classes} ^ {*class_names(test)}):
        raise DataError(
            f"{folder}: train/ and test/ must hold the same classes; only in one of them: "
            f"{', '.join(only_in_one)}"
        )
    return [train, test], classes


def choose(wanted: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """The labels of the wanted classes, by their new ones; () wants all.

    `known` are all names, or numbers, in the order of the labels. DataError where one is unknown or
    repeated, or there is only one.
    """
    if not wanted:
        return tuple(range(len(known)))
    wrong = [f"there is no class {name!r}" for name in wanted if name not in known]
    wrong += [f"names {name!r} twice" for name in wanted if wanted.count(name) > 1]
    if len(wanted) < 2:
        wrong.append("expected two classes or more")
    if wrong:
        shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        raise DataError(f"--classes={','.join(wanted)}: {wrong[0]}; the classes are {shown}")
    return tuple(known.index(name) for name in wanted)


class ImageStore:
    """Image files as a store: each is read and decoded when it is asked for."""

    def __init__(
        self,
        paths: Sequence[str],
        folder: str,
        image_shape: tuple[int, ...] = IMAGE_SHAPE,
        ignore_exif: bool = False,
    ) -> None:
        """Takes N files to be made [S, S, C]; their names in the folder are part of the digest.

        An S of 0 is each one's own size: then only those of one size are to be taken together.
        """
        self.paths = paths
        self.shape = (len(paths), *image_shape)
        self.dtype = np.dtype(np.uint8)
        self.workers = decoding_workers(paths)
        self._folder, self._ignore_exif = folder, ignore_exif

    def take(self, indices: Indices) -> Array:
        """See `Store.take`; RefusedError where a file is refused, or its folder is away."""
        images: list[Array] = []
        errors: dict[int, DataError] = {}
        for position, index in enumerate(indices.tolist()):
            try:
                images.append(files.retried(self._image, self.paths[index]))
            except RefusedError:
                raise
            except DataError as error:
                errors[position] = error
        if errors:
            raise BadRowsError(errors)
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    def _image(self, path: str) -> Array:
        _, _, size, channels = self.shape
        content = files.read_bytes(path, MAX_FILE_BYTES)
        return decode_image(content, path, size, channels, ignore_exif=self._ignore_exif)

    def digest(self) -> str:
        """See `Store.digest`."""
        names = [path.removeprefix(self._folder).lstrip("/") for path in self.paths]
        return files.digest_of_files(self.paths, names)


# Checks arrays that are said to be images and labels, and gives them their one dtype.

_NUMBERED = "np.unique(Y, return_inverse=True)[1], which numbers the classes from 0"
_MAX_LABEL = np.float64(2**31 - 1)  # Compared as float64, whatever the labels are.


def check_images(
    shape: tuple[int, ...], dtype: np.dtype[Any], name: str, image_shape: tuple[int, ...]
) -> None:
    """Raises DataError unless these are images, uint8 or float [N, *image_shape], N above 0."""
    if not shape or shape[1:] != image_shape:
        expected = ", ".join(["N", *map(str, image_shape)])
        is_turned = shape[2:] + shape[1:2] == image_shape
        mend = "; its channels come first: save np.moveaxis(X, 1, -1)" if is_turned else ""
        raise DataError(f"{name}: expected the shape [{expected}], found {list(shape)}{mend}")
    if not shape[0]:
        raise DataError(f"{name}: holds no image")
    if dtype != np.uint8 and dtype.kind != "f":
        raise DataError(f"{name}: expected uint8 in 0..255 or float in [0, 1], found {dtype}")


def as_images(array: Array, name: str, image_shape: tuple[int, ...] = IMAGE_SHAPE) -> Array:
    """Images, uint8 or float [N, *image_shape], as uint8 or float32; else a DataError."""
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


def as_labels(array: Array, name: str) -> npt.NDArray[np.int64]:
    """Labels [N] or [N, 1] as int64: whole numbers from 0, maybe as floats; else a DataError."""
    if array.ndim == 2 and array.shape[1] == 1:
        logging.info("%s: the column %s is read as labels [N]", name, list(array.shape))
        array = array[:, 0]
    if array.ndim != 1:
        mend = "; of one-hot rows, save np.argmax(Y, axis=1)" if array.ndim == 2 else ""
        found = list(array.shape)
        raise DataError(f"{name}: expected one label per image, [N], found {found}{mend}")
    if array.dtype.kind not in "iuf":
        mend = f"; save {_NUMBERED}" if array.dtype.kind in "SU" else ""
        raise DataError(f"{name}: expected labels as whole numbers, found {array.dtype}{mend}")
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
    """The greatest label + 1; DataError where a class has no image, or there is only one."""
    present = np.unique(labels)
    num_classes = int(present[-1]) + 1
    if len(present) < num_classes:
        absent = int(np.argmax(present != np.arange(len(present))))
        raise DataError(
            f"{name}: the class {absent} has no image (the labels go up to {num_classes - 1}); "
            f"save {_NUMBERED}"
        )
    if num_classes < 2:
        raise DataError(f"{name}: all labels are 0; expected two classes or more")
    return num_classes
