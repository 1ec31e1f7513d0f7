"""Opens image files, and folders of them, as rows for one tensor."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from checkpoints.loading.tensor_info import TensorInfo, format_shape
from data import files, image_folder
from prediction.errors import PredictionError
from prediction.rows import FileRows, ImageRows
from prediction.target import Input, Labels, Target


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
