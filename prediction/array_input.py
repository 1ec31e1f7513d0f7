"""Opens .npy and .npz files, and arrays of any origin, as rows for one tensor."""

from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from checkpoints.loading.tensor_info import TensorInfo, format_shape
from data.image_arrays import as_labels, warn_out_of_range
from data.npy_stream import StreamedArray, open_npy, open_npz
from data.npz import read_npy, read_npz
from prediction.casting import Array
from prediction.errors import PredictionError
from prediction.rows import ArrayRows, ColumnRows, check_finite
from prediction.target import Input, Labels, Target, numbered

STREAM_BYTES = 2**28  # Arrays from this size on are read a batch at a time.


def open_npy_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of an .npy file; see `open_array`."""
    values = open_npy(path, max_bytes, STREAM_BYTES) if _may_stream(target.info) else None
    return open_array(values or read_npy(path, max_bytes), path, target)


def open_npz_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows X of an .npz file, and for a classifier the labels Y; see `open_array`.

    Raises:
      PredictionError: there is no X, or Y has another number of rows, or labels out of range.
    """
    stream = open_npz(path, "X", max_bytes, STREAM_BYTES) if _may_stream(target.info) else None
    arrays: dict[str, Array] = read_npz(path, max_bytes, left_out=("X",) if stream else ())
    if stream is None and "X" not in arrays:
        raise PredictionError(
            f"{path}: expected an array X (and Y, the labels), found "
            f"{', '.join(sorted(arrays)) or 'none'}; arrays under tensor names go to --feed"
        )
    opened = open_array(stream or arrays["X"], f"{path}: X", target)
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


def open_array(values: Array | StreamedArray, source: str, target: Target) -> Input:
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


def _array_rows(
    values: Array | StreamedArray, source: str, target: Target, *, flat: bool
) -> ArrayRows:
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
