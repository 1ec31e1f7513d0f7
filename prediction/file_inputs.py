"""Opens files as rows for one tensor: .npy, .npz, IDX, images, .csv, .txt, .tfrecord.

Each function raises DataError where a file cannot be read, and PredictionError where it has no
rows, or they do not fit the tensor.
"""

import csv
import io
import math
import os
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from checkpoints.file_io import HEAD_BYTES, kind_of
from data import files, image_folder
from data.arrays import NpyRows, open_npy, read_idx, read_npy, read_npz
from data.files import read_bytes
from data.images import as_labels, warn_out_of_range
from data.named import labels_beside
from errors import PredictionError
from metagraph.casting import Array
from metagraph.meta import TensorInfo, format_shape
from metagraph.model import Classifier
from prediction.rows import (
    ArrayRows,
    ColumnRows,
    FileRows,
    ImageRows,
    RecordRows,
    Rows,
    as_objects,
    check_finite,
)

Labels = npt.NDArray[np.int64]


class Target(NamedTuple):
    """The tensor that an input is opened for, and what the graph says of it.

    `scale` is what uint8 values are multiplied by, None for nothing. Where the graph is no
    classifier, labels are of no use. `image_shape` is the height, width and channels of the image
    that a row holds. With `ignore_exif`, image files stay as they are stored.
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
    """Rows, the name of each (its file, or its number from 0), and its true class where known."""

    rows: Rows
    names: Sequence[str]
    labels: Labels | None


def numbered(rows: Rows) -> Input:
    """Rows that are named by their numbers, without labels."""
    return Input(rows, [str(row) for row in range(len(rows))], None)


# .npy and .npz files, and arrays of any origin.

STREAM_BYTES = 2**28  # Arrays of .npy files from this size on are read a batch at a time.


def open_npy_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of an .npy file; see `open_array`."""
    may_stream = _features(target.info) is None  # Columns are cut out of a whole array.
    values = open_npy(path, max_bytes, STREAM_BYTES) if may_stream else None
    return open_array(values or read_npy(path, max_bytes), path, target)


def open_npz_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows X of an .npz file, and for a classifier the labels Y; see `open_array`."""
    arrays: dict[str, Array] = read_npz(path, max_bytes)
    if "X" not in arrays:
        raise PredictionError(
            f"{path}: expected an array X (and Y, the labels), found "
            f"{', '.join(sorted(arrays)) or 'none'}; arrays under tensor names go to --feed"
        )
    opened = open_array(arrays["X"], f"{path}: X", target)
    if "Y" not in arrays:
        return opened
    found, num_rows = arrays["Y"].shape, len(opened.rows)
    if found[:1] != (num_rows,):
        raise PredictionError(
            f"{path}: X has {num_rows} rows, Y has {found[0] if found else 'a single value'}"
        )
    return opened._replace(labels=_checked_labels(arrays["Y"], f"{path}: Y", target.classifier))


def _checked_labels(values: Array, name: str, classifier: Classifier | None) -> Labels | None:
    """Labels of rows; None where they are for no classifier."""
    if classifier is None:
        return None
    labels = as_labels(values, name)
    num_classes = classifier.num_classes
    if num_classes is not None and len(labels) and labels.max() >= num_classes:
        raise PredictionError(
            f"{name}: expected labels from 0 to {num_classes - 1}, found {labels.max()}"
        )
    return labels


def open_array(values: Array | NpyRows, source: str, target: Target) -> Input:
    """Rows of an array, whose shape is checked here and whose dtype goes over batch by batch.

    There may be any number of them, also where the tensor's first dimension is fixed. Those for a
    tensor [features, ?] are given as [N, features] too, and fed as its columns.
    """
    info = target.info
    columns = _as_columns(values.shape, info, source)
    image = target.flat_image  # Images whose values the tensor takes in a row; grey ones may be
    shape = tuple(values.shape[1:])  # without their one channel.
    flat = image is not None and shape in (image, image[:2] if image[2] == 1 else image)
    if not (columns or flat or _fits(values.shape, info.shape)):
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}, "
            f"found {values.dtype} {format_shape(values.shape)}"
        )
    if not len(values):
        raise PredictionError(f"{source}: has no rows")
    rows: ColumnRows | ArrayRows
    if columns and isinstance(values, np.ndarray):
        logging.info("%s: the rows are fed as the columns of %s", source, info)
        rows = ColumnRows(values, info, source)
    else:
        is_image = target.scale is not None and values.dtype.kind == "f"
        if is_image and isinstance(values, np.ndarray):
            check_finite(values, source)
            warn_out_of_range(values, source)
        rows = ArrayRows(values, info, source, target.scale, finite=is_image, flat=flat)
    rows.batch(0, 1)  # A dtype that does not go over is told before the checkpoint is read.
    return numbered(rows)


def _fits(found: Sequence[int], shape: Sequence[int | None] | None) -> bool:
    """Whether rows of an array of shape `found` can be fed to a tensor of `shape`."""
    if shape is None or not found:
        return bool(found)
    return len(shape) == len(found) and all(
        size in (None, other) for size, other in zip(shape[1:], found[1:], strict=True)
    )


def _features(info: TensorInfo) -> int | None:
    """Those of a tensor [features, ?], which may as well be [batch, ?]; else None."""
    return info.shape[0] if info.shape is not None and info.shape[1:] == (None,) else None


def _as_columns(found: Sequence[int], info: TensorInfo, source: str) -> bool:
    """Whether an array of shape `found` holds rows for the columns of a tensor [features, ?].

    It does where its rows are as long as the tensor's columns, and the array itself does not fit. A
    square array could be meant either way, and is refused.
    """
    features = _features(info)
    if features is None or len(found) != 2 or found[1] != features:
        return False
    if found[0] == features > 1:
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}, found "
            f"{format_shape(found)}, whose rows could be meant as its columns: give it with "
            f"--feed, just as it is to be fed, or give fewer rows"
        )
    return True


# IDX files, such as those of MNIST.

_IDX_NAME = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$", re.IGNORECASE)


def is_idx_name(path: str) -> bool:
    """Whether a file is named as IDX files are: `images.idx`, `train-images-idx3-ubyte.gz`."""
    return _IDX_NAME.search(path) is not None


def open_idx_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of an IDX file, gzipped or not; see `open_array`.

    For a classifier, the labels are those of the file that MNIST has beside its images.
    """
    opened = open_array(read_idx(path, max_bytes), path, target)
    beside = None if target.classifier is None else labels_beside(path)
    if beside is None:
        return opened
    try:
        labels = _checked_labels(read_idx(beside, max_bytes), beside, target.classifier)
        if labels is not None and len(labels) != len(opened.rows):
            raise PredictionError(
                f"{beside}: holds {len(labels)} labels, {path} {len(opened.rows)}"
            )
    except PredictionError as error:
        raise PredictionError(f"{error}; move it away if its labels are not of these") from error
    return opened._replace(labels=labels)


# Image files, and folders of them.


def open_folder_input(folder: str, target: Target) -> Input:
    """The images of a folder, or of its subfolders, one a class, in the order of their names.

    The labels of class folders are known where the graph has names for its classes.
    """
    classes = image_folder.class_names(folder)
    if not classes:
        found = image_folder.visible_names(folder)
        if not found:
            raise PredictionError(f"{folder}: the folder is empty, expected images")
        return open_images([files.join(folder, name) for name in found], found, None, target)
    unknown = [name for name in classes if name not in target.class_names]
    if target.class_names and unknown:
        raise PredictionError(
            f"{folder}: the graph has no class {', '.join(unknown)}; its classes are "
            f"{', '.join(target.class_names)}; point --input at a folder of those, or of images"
        )
    images = image_folder.list_images(folder)
    paths = [path for path, _ in images]
    labels = None
    if target.class_names and target.classifier:
        label_of = [target.class_names.index(name) for name in classes]
        labels = np.array([label_of[label] for _, label in images], np.int64)
    else:
        logging.warning("the graph has no class names: the labels of %s are unknown", folder)
    names = [path.removeprefix(folder).lstrip("/\\") for path in paths]
    return open_images(paths, names, labels, target)


def open_images(
    paths: Sequence[str], names: Sequence[str], labels: Labels | None, target: Target
) -> Input:
    """Image files, decoded to the size that the tensor takes; for strings, as they are.

    As in training, an image is turned as its EXIF orientation says, unless that is to be ignored,
    and resized as a whole, bilinear, whatever its proportions. A graph that decodes the files
    itself does not turn them.
    """
    info = target.info
    if takes_whole_files(info):
        return Input(FileRows(paths), names, labels)
    flat = target.flat_image
    height, width, channels = flat or (
        info.shape[1:] if info.shape and len(info.shape) == 4 else (0, 0, 0)
    )
    if not height or height != width or channels not in (1, 3):
        raise PredictionError(
            f"{paths[0]}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}; images "
            "are for a tensor of shape [?, size, size, 3] or [?, size, size, 1], or for one whose "
            "graph says what image its rows hold (collection image_shape)"
        )
    if target.scale is None and info.dtype.is_floating:
        logging.warning("the graph records no scale for images: they are fed as 0 to 255")
    rows = ImageRows(
        paths, height, info, target.scale, channels, flat is not None, target.ignore_exif
    )
    return Input(rows, names, labels)


def takes_whole_files(info: TensorInfo) -> bool:
    """Whether a row of the tensor is a string, such as the bytes of a file to be decoded."""
    return bool(info.dtype == tf.string and (info.shape is None or len(info.shape) == 1))


# Files of text, and records.

# How many bytes of memory a byte of text may take: `0,` becomes a float64 and is held as text
# meanwhile; a text of a few letters becomes an object of 35 bytes or so, twice pointed to.
_NUMBER_GROWTH, _TEXT_GROWTH = 8, 32


def open_csv_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of a CSV file in the shape of the tensor's rows."""
    info = target.info
    is_text = info.dtype == tf.string
    values = read_csv(path, max_bytes // (_TEXT_GROWTH if is_text else _NUMBER_GROWTH), is_text)
    # Floats are all that is read; integers and bools are such where they can be.
    if info.dtype.is_integer and np.array_equal(values, np.floor(values)):
        values = values.astype(np.int64)
    elif info.dtype.is_bool and np.isin(values, (0, 1)).all():
        values = values.astype(bool)
    shape = (None,) if info.shape is None else info.shape[1:]
    if shape != (None,):
        if None in shape or math.prod(int(size or 0) for size in shape) != values.shape[1]:
            raise PredictionError(
                f"{path}: {info.name} takes rows of shape {format_shape(shape)}, found "
                f"{values.shape[1]} numbers a row"
            )
        values = values.reshape(-1, *shape)
    return open_array(values, path, target)


def read_csv(path: str, max_bytes: int, is_text: bool = False) -> Array:
    """Reads the cells of a CSV file in UTF-8, without a header; empty lines are left out.

    Returns:
      float64 [rows, columns]; of text, bytes in UTF-8, object [rows, columns].

    Raises:
      PredictionError: with the line where a row has another length, or a cell is no number.
    """
    content = io.BytesIO(read_bytes(path, max_bytes))
    reader = csv.reader(io.TextIOWrapper(content, "utf-8-sig", newline=""))
    texts: list[bytes] = []
    numbers = array("d")
    columns = 0
    try:
        for row in filter(None, reader):
            columns = columns or len(row)
            if len(row) != columns:
                expected = f"expected {columns} {'cells' if is_text else 'numbers'}"
                raise PredictionError(
                    f"{path}, line {reader.line_num}: {expected}, found {len(row)}"
                )
            if is_text:
                texts.extend(cell.encode() for cell in row)
            else:  # Python alone takes 1_000 for a number.
                numbers.extend(float(cell.replace("_", "?")) for cell in row)
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path}: is no text in UTF-8") from error
    except csv.Error as error:  # A cell of over 128 KiB, or a null character.
        raise PredictionError(f"{path}, line {reader.line_num}: {error}") from error
    except ValueError as error:
        column = len(numbers) % columns
        raise PredictionError(
            f"{path}, line {reader.line_num}, column {column + 1}: {row[column][:40]!r} is no "
            "number (expected numbers only, separated by commas, no header)"
        ) from error
    if not columns:
        raise PredictionError(f"{path}: has no rows")
    return (as_objects(texts) if is_text else np.array(numbers)).reshape(-1, columns)


def open_txt_input(path: str, target: Target, max_bytes: int) -> Input:
    """The lines of a text file without their ends, an empty one too, for a tensor of strings.

    The text may be in any encoding that has line ends as in ASCII, for it is not decoded.
    """
    _check_strings(path, target.info)
    content = read_bytes(path, max_bytes // _TEXT_GROWTH)
    if not content:
        raise PredictionError(f"{path}: has no rows")
    lines = content.removesuffix(b"\n").split(b"\n")
    return open_array(as_objects([line.removesuffix(b"\r") for line in lines]), path, target)


def open_tf_record_input(path: str, target: Target, max_bytes: int) -> Input:
    """The records of a .tfrecord file, for a tensor of strings."""
    _check_strings(path, target.info)
    rows = RecordRows(path, max_bytes)
    if not len(rows):
        raise PredictionError(f"{path}: has no rows")
    return numbered(rows)


def _check_strings(path: str, info: TensorInfo) -> None:
    if not takes_whole_files(info):
        raise PredictionError(
            f"{path}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}; such a file "
            "is for a tensor of strings, of shape [?]; numbers go into a .csv, .npy or .npz"
        )


# A file or folder of any of these kinds.

MAX_BYTES = 4 * 2**30  # of one file, unpacked
_READERS: Mapping[str, Callable[[str, Target, int], Input]] = {
    ".npz": open_npz_input,
    ".npy": open_npy_input,
    ".csv": open_csv_input,
    ".txt": open_txt_input,
    ".tfrecord": open_tf_record_input,
    ".tfrecords": open_tf_record_input,
}
_IMAGES = (".png", ".jpg", ".jpeg")


def open_input(path: str, target: Target, max_bytes: int = MAX_BYTES) -> Input:
    """Opens an image, a folder of images or of class folders, or a file of rows.

    Files of rows are .npz, .npy, .csv and IDX files, and for a tensor of strings .txt (a row a
    line) and .tfrecord (a row a record) as well; there, any other file is a row. One file may
    unpack to `max_bytes`.
    """
    if files.is_folder(path):
        return open_folder_input(path, target)
    if is_idx_name(path):
        return open_idx_input(path, target, max_bytes)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _READERS:
        return _READERS[suffix](path, target, max_bytes)
    files.size(path)  # Before the shape: a missing file is the nearer cause.
    if suffix not in _IMAGES and not takes_whole_files(target.info):
        with files.open_binary(path) as stream:
            kind = kind_of(stream.read(HEAD_BYTES))
        if kind != "an image":
            what = f"a {suffix} file" if suffix else "a file without a suffix"
            raise PredictionError(
                f"{path}: {what} is not taken{f' (it is {kind})' if kind else ''}; --input takes "
                ".npy, .npz, .csv, PNG and JPEG images, a folder of those, IDX files, and for a "
                "tensor of strings .txt and .tfrecord"
            )
    return open_images([path], [path], None, target)
