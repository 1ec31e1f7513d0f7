"""Keys and values of a lookup table, from a text file that the user named.

What `InitializeTableFromTextFile` does in TensorFlow, here done by us: a file of a stranger's
graph opens no file. Its attributes: `tensorflow/core/ops/lookup_ops.cc`; how lines are read:
`tensorflow/core/kernels/lookup_util.cc`.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.bounded_file import check_fetched, read_bounded
from checkpoints.errors import CheckpointError

MAX_BYTES = 1 << 27
_LINE_NUMBER = -1
_WHOLE_LINE = -2
_INTEGER = re.compile(rb"\s*[-+]?[0-9]{1,20}\s*")

Array = np.ndarray[Any, Any]


class TextFormat(NamedTuple):
    """What a line of the file gives.

    Attributes:
      key_index: -2 the whole line, -1 the line's number, else the column.
      value_index: likewise.
      vocab_size: how many lines; -1 for all there are.
      delimiter: between columns.
      offset: added to the line's number.
    """

    key_index: int
    value_index: int
    vocab_size: int = -1
    delimiter: str = "\t"
    offset: int = 0


def read_vocabulary(
    path: str, text: TextFormat, key_dtype: tf.DType, value_dtype: tf.DType
) -> tuple[Array, Array]:
    """Reads keys and values, [lines] each, of the dtypes asked for.

    Raises:
      CheckpointError: the file is missing, longer than MAX_BYTES, or does not fit the format; the
        message names the line.
    """
    lines = _lines(path, text.vocab_size)
    return (
        _column(path, lines, text, text.key_index, key_dtype),
        _column(path, lines, text, text.value_index, value_dtype),
    )


def _lines(path: str, vocab_size: int) -> list[bytes]:
    """The lines, at least one; carriage returns are dropped wherever they stand."""
    check_fetched(path)
    lines = read_bounded(path, MAX_BYTES).replace(b"\r", b"").split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:  # TensorFlow fills no table with nothing.
        raise CheckpointError(f"{path} is empty: a vocabulary has at least one line")
    if vocab_size >= 0:
        if len(lines) < vocab_size:
            raise CheckpointError(
                f"{path} has {len(lines)} lines, its table is made for {vocab_size}"
            )
        del lines[vocab_size:]
    if b"" in lines:
        raise CheckpointError(f"{path}, line {lines.index(b'') + 1}: it is empty")
    return lines


def _column(
    path: str, lines: Sequence[bytes], text: TextFormat, index: int, dtype: tf.DType
) -> Array:
    """What `index` means in each line, [lines]."""
    if index == _LINE_NUMBER and dtype.is_integer:
        return np.asarray(np.arange(len(lines)) + text.offset, dtype.as_numpy_dtype)
    if index == _WHOLE_LINE and dtype == tf.string:
        return np.array(lines, object)
    if index < 0 or not (dtype == tf.string or dtype.is_integer or dtype.is_floating):
        raise CheckpointError(f"{path} cannot give {dtype.name} values by the index {index}")
    values = np.empty(len(lines), object if dtype == tf.string else dtype.as_numpy_dtype)
    delimiter = text.delimiter.encode() or b"\t"
    for row, line in enumerate(lines):
        fields = line.split(delimiter)
        try:
            values[row] = _parsed(fields[index], dtype)
        except (IndexError, ValueError, OverflowError) as error:
            raise CheckpointError(
                f"{path}, line {row + 1}: expected {dtype.name} in column {index} of those that "
                f"{text.delimiter!r} parts, found {line[:80]!r}"
            ) from error
    return values


def _parsed(field: bytes, dtype: tf.DType) -> bytes | int | float:
    if dtype == tf.string:
        return field
    if dtype.is_floating:
        return float(field)
    if not _INTEGER.fullmatch(field):
        raise ValueError(field)
    return int(field)
