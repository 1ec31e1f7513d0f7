"""Opens what --input names as rows for one tensor, with a name and maybe a label for each."""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from absl import logging

from checkpoints.inference_graph import TensorInfo, format_shape
from data import files, image_folder, ramp
from data.image_arrays import as_labels, warn_out_of_range
from data.npz import read_npy, read_npz
from prediction.casting import Array
from prediction.csv_file import read_csv
from prediction.errors import PredictionError
from prediction.model import Classifier
from prediction.rows import ArrayRows, ImageRows, Rows

MAX_BYTES = 4 * 2**30  # of one file, unpacked

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


def open_input(path: str, target: Target) -> Input:
    """Opens an image, a folder of images, a folder of class folders, .npz, .npy or .csv.

    Raises:
      PredictionError: it holds no rows, or they do not fit the tensor.
      DataError: it cannot be read.
    """
    if files.is_folder(path):
        names = image_folder.class_names(path)
        return _class_folders(path, names, target) if names else _image_folder(path, target)
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".npz":
        return _npz(path, target)
    if suffix == ".npy":
        return _array(read_npy(path, MAX_BYTES), path, target)
    if suffix == ".csv":
        return _array(_csv(path, target.info), path, target)
    files.size(path)  # Before the shape: a missing file is the nearer cause.
    return _images([path], [path], None, target)


def demo_input(target: Target) -> Input:
    """The two images of the ramp that are kept for a first prediction."""
    images = ramp.demo_images()
    rows = ArrayRows(images, target.info, "the ramp", target.scale)
    return Input(rows, [str(row) for row in range(len(images))], ramp.demo_labels())


def _npz(path: str, target: Target) -> Input:
    arrays = read_npz(path, MAX_BYTES)
    if "X" not in arrays:
        raise PredictionError(
            f"{path}: expected an array X (and Y, the labels), found "
            f"{', '.join(sorted(arrays)) or 'none'}; arrays under tensor names go to --feed"
        )
    opened = _array(arrays["X"], f"{path}: X", target)
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


def _csv(path: str, info: TensorInfo) -> Array:
    """The rows of a CSV file in the shape of the tensor's rows."""
    values = read_csv(path, MAX_BYTES)
    if info.dtype.is_integer and np.array_equal(values, np.floor(values)):
        values = values.astype(np.int64)
    shape = (None,) if info.shape is None else info.shape[1:]
    if shape == (None,):
        return values
    if None in shape or math.prod(int(size or 0) for size in shape) != values.shape[1]:
        raise PredictionError(
            f"{path}: {info.name} takes rows of shape {format_shape(shape)}, found "
            f"{values.shape[1]} numbers a row"
        )
    return values.reshape(-1, *shape)


def _array(values: Array, source: str, target: Target) -> Input:
    """Rows of an array, whose shape is checked here and whose dtype goes over batch by batch."""
    info = target.info
    shape = info.shape
    fits = shape is None or (
        len(shape) == values.ndim
        and all(size in (None, found) for size, found in zip(shape, values.shape, strict=True))
    )
    if not (fits and values.ndim):
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name} {format_shape(shape)}, "
            f"found {values.dtype} {format_shape(values.shape)}"
        )
    if not len(values):
        raise PredictionError(f"{source}: has no rows")
    if target.scale is not None and values.dtype.kind == "f":
        _check_image_values(values, source)
    rows = ArrayRows(values, info, source, target.scale)
    rows.batch(0, 1)  # A dtype that does not go over is told before the checkpoint is read.
    return Input(rows, [str(row) for row in range(len(values))], None)


def _check_image_values(values: Array, source: str) -> None:
    """Refuses images with NaN or infinity; warns of those outside [0, 1]."""
    # The extremes are NaN where any value is, and need no array of the size of the images.
    if not np.isfinite([values.min(), values.max()]).all():
        row = next(row for row, image in enumerate(values) if not np.isfinite(image).all())
        raise PredictionError(f"{source}: row {row} (the first such) holds NaN or infinity")
    warn_out_of_range(values, source)


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
    """Image files, to be decoded to the size that the tensor takes."""
    info = target.info
    height, width, channels = info.shape[1:] if info.shape and len(info.shape) == 4 else (0, 0, 0)
    if not height or height != width or channels != 3:
        raise PredictionError(
            f"{paths[0]}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}; images "
            "are for a tensor of shape [?, size, size, 3]"
        )
    if target.scale is None and info.dtype.is_floating:
        logging.warning("the graph records no scale for images: they are fed as 0 to 255")
    return Input(ImageRows(paths, height, info, target.scale), names, labels)
