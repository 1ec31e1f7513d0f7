"""Opens files as rows for one tensor: .npy, .npz, IDX, images, .csv, .txt, .tfrecord."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from data import files, image_folder
from data.arrays import read_idx, read_npy, read_npz
from data.images import as_labels, warn_out_of_range
from data.named import labels_beside
from data.npy_store import NpyRows, open_npy
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
    check_finite,
    read_csv,
    read_csv_texts,
    read_lines,
)

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


# Opens .npy and .npz files, and arrays of any origin, as rows for one tensor.

STREAM_BYTES = 2**28  # Arrays of .npy files from this size on are read a batch at a time.


def open_npy_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of an .npy file; see `open_array`."""
    values = open_npy(path, max_bytes, STREAM_BYTES) if _may_stream(target.info) else None
    return open_array(values or read_npy(path, max_bytes), path, target)


def open_npz_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows X of an .npz file, and for a classifier the labels Y; see `open_array`.

    Raises:
      PredictionError: there is no X, or Y has another number of rows, or labels out of range.
    """
    arrays: dict[str, Array] = read_npz(path, max_bytes)
    if "X" not in arrays:
        raise PredictionError(
            f"{path}: expected an array X (and Y, the labels), found "
            f"{', '.join(sorted(arrays)) or 'none'}; arrays under tensor names go to --feed"
        )
    opened = open_array(arrays["X"], f"{path}: X", target)
    return opened._replace(labels=_labels(arrays, len(opened.rows), path, target))


def _labels(arrays: Mapping[str, Array], num_rows: int, path: str, target: Target) -> Labels | None:
    """Y, of as many rows as X whatever it is for; None where there is none, or no classifier."""
    if "Y" not in arrays:
        return None
    found = arrays["Y"].shape
    if found[:1] != (num_rows,):
        raise PredictionError(
            f"{path}: X has {num_rows} rows, Y has {found[0] if found else 'a single value'}"
        )
    return checked_labels(arrays["Y"], f"{path}: Y", target)


def checked_labels(values: Array, name: str, target: Target) -> Labels | None:
    """Labels of rows; None where they are for no classifier.

    Raises:
      PredictionError: it has not as many classes.
      DataError: they are no labels.
    """
    if target.classifier is None:
        return None
    labels = as_labels(values, name)
    num_classes = target.classifier.num_classes
    if num_classes is not None and len(labels) and labels.max() >= num_classes:
        raise PredictionError(
            f"{name}: expected labels from 0 to {num_classes - 1}, found {labels.max()}"
        )
    return labels


def open_array(values: Array | NpyRows, source: str, target: Target) -> Input:
    """Rows of an array, whose shape is checked here and whose dtype goes over batch by batch.

    There may be any number of them, also where the tensor's first dimension is fixed. Those for a
    tensor [features, ?] are given as [N, features] too, and fed as its columns.

    Raises:
      PredictionError: there are no rows, or they do not fit the tensor.
    """
    info = target.info
    columns = isinstance(values, np.ndarray) and _as_columns(values.shape, info, source)
    flat = _is_flattened(values.shape, target)
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
        rows = _array_rows(values, source, target, flat=flat)
    rows.batch(0, 1)  # A dtype that does not go over is told before the checkpoint is read.
    return numbered(rows)


def _array_rows(values: Array | NpyRows, source: str, target: Target, *, flat: bool) -> ArrayRows:
    is_image = target.scale is not None and values.dtype.kind == "f"
    if is_image and isinstance(values, np.ndarray):
        check_finite(values, source)
        warn_out_of_range(values, source)
    return ArrayRows(values, target.info, source, target.scale, finite=is_image, flat=flat)


def _is_flattened(found: Sequence[int], target: Target) -> bool:
    """Whether an array of shape `found` holds images whose values the tensor takes in a row.

    Grey ones may be without their one channel.
    """
    image = target.flat_image
    if image is None:
        return False
    return tuple(found[1:]) in (image, image[:2] if image[2] == 1 else image)


def _fits(found: Sequence[int], shape: Sequence[int | None] | None) -> bool:
    """Whether rows of an array of shape `found` can be fed to a tensor of `shape`."""
    if shape is None or not found:
        return bool(found)
    return len(shape) == len(found) and all(
        size in (None, other) for size, other in zip(shape[1:], found[1:], strict=True)
    )


def _may_be_columns(info: TensorInfo) -> bool:
    """Whether a tensor is [features, ?]; or [batch, ?], its shape does not tell."""
    return info.shape is not None and info.shape[1:] == (None,) and info.shape[0] is not None


def _may_stream(info: TensorInfo) -> bool:
    return not _may_be_columns(info)


def _as_columns(found: Sequence[int], info: TensorInfo, source: str) -> bool:
    """Whether an array of shape `found` holds rows for the columns of a tensor [features, ?].

    It does where its rows are as long as the tensor's columns, and the array itself does not fit.

    Raises:
      PredictionError: the array is square and could be meant either way.
    """
    features = info.shape[0] if _may_be_columns(info) and info.shape else None
    if features is None or len(found) != 2 or found[1] != features:
        return False
    if found[0] == features > 1:
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}, found "
            f"{format_shape(found)}, whose rows could be meant as its columns: give it with "
            f"--feed, just as it is to be fed, or give fewer rows"
        )
    return True


# Opens IDX files, such as those of MNIST, as rows for one tensor.

_NAME = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$", re.IGNORECASE)


def is_idx_name(path: str) -> bool:
    """Whether a file is named as IDX files are: `images.idx`, `train-images-idx3-ubyte.gz`."""
    return _NAME.search(path) is not None


def open_idx_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of an IDX file, gzipped or not; see `open_array`.

    For a classifier, the labels are those of the file that MNIST has beside its images.

    Raises:
      PredictionError: that file has another number of rows, or labels out of range.
    """
    opened = open_array(read_idx(path, max_bytes), path, target)
    labels_path = None if target.classifier is None else labels_beside(path)
    if labels_path is None:
        return opened
    return opened._replace(
        labels=_labels_beside(labels_path, len(opened.rows), path, target, max_bytes)
    )


def _labels_beside(
    labels_path: str, num_rows: int, path: str, target: Target, max_bytes: int
) -> Labels | None:
    try:
        labels = checked_labels(read_idx(labels_path, max_bytes), labels_path, target)
        if labels is not None and len(labels) != num_rows:
            raise PredictionError(f"{labels_path}: holds {len(labels)} labels, {path} {num_rows}")
    except PredictionError as error:
        raise PredictionError(f"{error}; move it away if its labels are not of these") from error
    return labels


# Opens image files, and folders of them, as rows for one tensor.


def open_folder_input(folder: str, target: Target) -> Input:
    """The images of a folder, or of its subfolders, one a class, in the order of their names.

    Raises:
      PredictionError: there are none, or a class that the graph has not.
      DataError: the folder cannot be listed, or a class has no image.
    """
    names = image_folder.class_names(folder)
    if names:
        return _open_class_folders(folder, names, target)
    found = image_folder.visible_names(folder)
    if not found:
        raise PredictionError(f"{folder}: the folder is empty, expected images")
    return open_images([files.join(folder, name) for name in found], found, None, target)


def _open_class_folders(folder: str, found: Sequence[str], target: Target) -> Input:
    """One subfolder a class; the labels are known where the graph has names for its classes."""
    unknown = [name for name in found if name not in target.class_names]
    if target.class_names and unknown:
        raise PredictionError(
            f"{folder}: the graph has no class {', '.join(unknown)}; its classes are "
            f"{', '.join(target.class_names)}; point --input at a folder of those, or of images"
        )
    images = image_folder.list_images(folder)
    paths = [path for path, _ in images]
    labels = None
    if target.class_names and target.classifier:
        label_of = [target.class_names.index(name) for name in found]
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
    and resized as a whole, bilinear, whatever its proportions. A graph that takes the bytes of
    files does not turn them: TensorFlow's decoders do not look at EXIF.

    Raises:
      PredictionError: the tensor takes no images.
    """
    info = target.info
    if takes_whole_files(info):
        return Input(FileRows(paths, info), names, labels)
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


# Opens .csv, .txt and .tfrecord files as rows for one tensor.

# How many bytes of memory a byte of text may take: `0,` becomes a float64 and is held as text
# meanwhile; a text of a few letters becomes an object of 35 bytes or so, twice pointed to.
_NUMBER_GROWTH, _TEXT_GROWTH = 8, 32


def open_csv_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of a CSV file in the shape of the tensor's rows.

    Raises:
      PredictionError: it holds no rows, or they do not fit the tensor.
    """
    info = target.info
    values = (
        read_csv_texts(path, max_bytes // _TEXT_GROWTH)
        if info.dtype == tf.string
        else _numbers(read_csv(path, max_bytes // _NUMBER_GROWTH), info.dtype)
    )
    shape = (None,) if info.shape is None else info.shape[1:]
    if shape != (None,):
        if None in shape or math.prod(int(size or 0) for size in shape) != values.shape[1]:
            raise PredictionError(
                f"{path}: {info.name} takes rows of shape {format_shape(shape)}, found "
                f"{values.shape[1]} numbers a row"
            )
        values = values.reshape(-1, *shape)
    return open_array(values, path, target)


def _numbers(values: Array, dtype: tf.DType) -> Array:
    """The numbers of a CSV file, which knows floats only, as integers or bools where they are."""
    if dtype.is_integer and np.array_equal(values, np.floor(values)):
        return values.astype(np.int64)
    if dtype.is_bool and np.isin(values, (0, 1)).all():
        return values.astype(bool)
    return values


def open_txt_input(path: str, target: Target, max_bytes: int) -> Input:
    """The lines of a text file, for a tensor of strings.

    Raises:
      PredictionError: the tensor is another, or there are no rows.
    """
    _check_strings(path, target.info)
    return open_array(read_lines(path, max_bytes // _TEXT_GROWTH), path, target)


def open_tf_record_input(path: str, target: Target, max_bytes: int) -> Input:
    """The records of a .tfrecord file, for a tensor of strings.

    Raises:
      PredictionError: the tensor is another, or there are no rows.
    """
    _check_strings(path, target.info)
    rows = RecordRows(path, target.info, max_bytes)
    if not len(rows):
        raise PredictionError(f"{path}: has no rows")
    return numbered(rows)


def _check_strings(path: str, info: TensorInfo) -> None:
    if info.dtype != tf.string or (info.shape is not None and len(info.shape) != 1):
        raise PredictionError(
            f"{path}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}; such a file "
            "is for a tensor of strings, of shape [?]; numbers go into a .csv, .npy or .npz"
        )
