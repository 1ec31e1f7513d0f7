"""Opens .csv, .txt and .tfrecord files as rows for one tensor."""

import math

import numpy as np
import tensorflow as tf

from checkpoints.loading.tensor_info import TensorInfo, format_shape
from prediction.array_input import open_array
from prediction.casting import Array
from prediction.csv_file import read_csv
from prediction.errors import PredictionError
from prediction.rows import RecordRows
from prediction.target import Input, Target, numbered
from prediction.text_rows import read_csv_texts, read_lines

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
