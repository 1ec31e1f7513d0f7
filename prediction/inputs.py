"""Opens what --input names as rows for one tensor, with a name and maybe a label for each."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from checkpoints.loading.inference_graph import TensorInfo, format_shape
from data import files, image_folder, ramp
from data.image_arrays import as_labels, warn_out_of_range
from data.npy_stream import StreamedArray, open_npy, open_npz
from data.npz import read_npy, read_npz
from prediction.casting import Array
from prediction.csv_file import read_csv
from prediction.errors import PredictionError
from prediction.model import Classifier
from prediction.rows import (
    ArrayRows,
    ColumnRows,
    FileRows,
    ImageRows,
    RecordRows,
    Rows,
    check_finite,
)
from prediction.text_rows import read_csv_texts, read_lines

MAX_BYTES = 4 * 2**30  # of one file, unpacked
STREAM_BYTES = 2**28  # Arrays from this size on are read a batch at a time.
# How many bytes of memory a byte of text may take: `0,` becomes a float64 and is held as text
# meanwhile; a text of a few letters becomes an object of 35 bytes or so, twice pointed to.
_NUMBER_GROWTH, _TEXT_GROWTH = 8, 32

Labels = npt.NDArray[np.int64]


class Target(NamedTuple):
    """What an input is opened for.

    Attributes:
      info: the tensor that is fed.
      scale: what uint8 values are multiplied by, None for nothing.
      class_names: in label order; empty where unknown.
      classifier: None where the graph is something else; labels are then of no use.
    """

    info: TensorInfo
    scale: float | None
    class_names: Sequence[str]
    classifier: Classifier | None


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


def open_input(path: str, target: Target, max_bytes: int = MAX_BYTES) -> Input:
    """Opens an image, a folder of images or of class folders, or a file of rows.

    Files of rows are .npz, .npy and .csv, and for a tensor of strings .txt (a row a line) and
    .tfrecord (a row a record) as well. The rows are first in all of them: those for a tensor
    [features, ?] are given as [N, features] too, and fed as its columns.

    Args:
      path: the file or folder.
      target: what it is opened for.
      max_bytes: that one file may unpack to.

    Raises:
      PredictionError: it holds no rows, or they do not fit the tensor.
      DataError: it cannot be read.
    """
    if files.is_folder(path):
        names = image_folder.class_names(path)
        return _class_folders(path, names, target) if names else _image_folder(path, target)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _READERS:
        return _READERS[suffix](path, target, max_bytes)
    files.size(path)  # Before the shape: a missing file is the nearer cause.
    return _images([path], [path], None, target)


def demo_input(target: Target) -> Input:
    """The two images of the ramp that are kept for a first prediction."""
    images = ramp.demo_images()
    rows = ArrayRows(images, target.info, "the ramp", target.scale)
    return Input(rows, _numbered(rows), ramp.demo_labels())


def _npy(path: str, target: Target, max_bytes: int) -> Input:
    values = open_npy(path, max_bytes, STREAM_BYTES) if _may_stream(target.info) else None
    return _array(values or read_npy(path, max_bytes), path, target)


def _npz(path: str, target: Target, max_bytes: int) -> Input:
    stream = open_npz(path, "X", max_bytes, STREAM_BYTES) if _may_stream(target.info) else None
    arrays: dict[str, Array] = read_npz(path, max_bytes, left_out=("X",) if stream else ())
    if stream is None and "X" not in arrays:
        raise PredictionError(
            f"{path}: expected an array X (and Y, the labels), found "
            f"{', '.join(sorted(arrays)) or 'none'}; arrays under tensor names go to --feed"
        )
    opened = _array(stream or arrays["X"], f"{path}: X", target)
    if "Y" not in arrays or target.classifier is None:
        return opened
    labels = as_labels(arrays["Y"], f"{path}: Y")
    if len(labels) != len(opened.rows):
        raise PredictionError(f"{path}: X has {len(opened.rows)} rows, Y has {len(labels)}")
    num_classes = target.classifier.num_classes
    if num_classes is not None and labels.max() >= num_classes:
        raise PredictionError(
            f"{path}: Y: expected labels from 0 to {num_classes - 1}, found {labels.max()}"
        )
    return opened._replace(labels=labels)


def _csv(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of a CSV file in the shape of the tensor's rows."""
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
    return _array(values, path, target)


def _numbers(values: Array, dtype: tf.DType) -> Array:
    """The numbers of a CSV file, which knows floats only, as integers or bools where they are."""
    if dtype.is_integer and np.array_equal(values, np.floor(values)):
        return values.astype(np.int64)
    if dtype.is_bool and np.isin(values, (0, 1)).all():
        return values.astype(bool)
    return values


def _txt(path: str, target: Target, max_bytes: int) -> Input:
    _check_strings(path, target.info)
    return _array(read_lines(path, max_bytes // _TEXT_GROWTH), path, target)


def _tf_records(path: str, target: Target, max_bytes: int) -> Input:
    _check_strings(path, target.info)
    rows = RecordRows(path, target.info, max_bytes)
    if not len(rows):
        raise PredictionError(f"{path}: has no rows")
    return Input(rows, _numbered(rows), None)


def _check_strings(path: str, info: TensorInfo) -> None:
    if info.dtype != tf.string or (info.shape is not None and len(info.shape) != 1):
        raise PredictionError(
            f"{path}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}; such a file "
            "is for a tensor of strings, of shape [?]"
        )


_READERS: Mapping[str, Callable[[str, Target, int], Input]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".csv": _csv,
    ".txt": _txt,
    ".tfrecord": _tf_records,
    ".tfrecords": _tf_records,
}


def _array(values: Array | StreamedArray, source: str, target: Target) -> Input:
    """Rows of an array, whose shape is checked here and whose dtype goes over batch by batch.

    There may be any number of them, also where the tensor's first dimension is fixed.
    """
    info = target.info
    shape, found = info.shape, values.shape
    columns = isinstance(values, np.ndarray) and _as_columns(found, info, source)
    if not (columns or _fits(found, shape)):
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name} {format_shape(shape)}, "
            f"found {values.dtype} {format_shape(found)}"
        )
    if not len(values):
        raise PredictionError(f"{source}: has no rows")
    rows: Rows
    if columns and isinstance(values, np.ndarray):
        logging.info("%s: the rows are fed as the columns of %s", source, info)
        rows = ColumnRows(values, info, source)
    else:
        rows = _array_rows(values, source, target)
    rows.batch(0, 1)  # A dtype that does not go over is told before the checkpoint is read.
    return Input(rows, _numbered(rows), None)


def _array_rows(values: Array | StreamedArray, source: str, target: Target) -> ArrayRows:
    is_image = target.scale is not None and values.dtype.kind == "f"
    if is_image and isinstance(values, np.ndarray):
        check_finite(values, source)
        warn_out_of_range(values, source)
    return ArrayRows(values, target.info, source, target.scale, finite=is_image)


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


def _numbered(rows: Rows) -> list[str]:
    return [str(row) for row in range(len(rows))]


def _image_folder(folder: str, target: Target) -> Input:
    names = image_folder.visible_names(folder)
    if not names:
        raise PredictionError(f"{folder}: the folder is empty, expected images")
    return _images([files.join(folder, name) for name in names], names, None, target)


def _class_folders(folder: str, found: Sequence[str], target: Target) -> Input:
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
    return _images(paths, names, labels, target)


def _images(
    paths: Sequence[str], names: Sequence[str], labels: Labels | None, target: Target
) -> Input:
    """Image files, decoded to the size that the tensor takes; for strings, as they are."""
    info = target.info
    if info.dtype == tf.string and (info.shape is None or len(info.shape) == 1):
        return Input(FileRows(paths, info), names, labels)
    height, width, channels = info.shape[1:] if info.shape and len(info.shape) == 4 else (0, 0, 0)
    if not height or height != width or channels != 3:
        raise PredictionError(
            f"{paths[0]}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}; images "
            "are for a tensor of shape [?, size, size, 3]"
        )
    if target.scale is None and info.dtype.is_floating:
        logging.warning("the graph records no scale for images: they are fed as 0 to 255")
    return Input(ImageRows(paths, height, info, target.scale), names, labels)
