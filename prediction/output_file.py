"""Writes fetched tensors to a .npz, .json or .csv file, as a whole or not at all."""

import contextlib
import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from checkpoints.loading.tensor_info import format_shape
from data import files
from prediction.casting import Array
from prediction.errors import PredictionError
from prediction.json_values import json_value

Outputs = Mapping[str, Array]

_TEMPORARY = ".tmp"  # After the name, as `data.files.write_atomically` does.


def check_output(path: str, given: Sequence[str] = (), flag: str = "output") -> None:
    """Finds out before a long run whether a file can be written at `path`; leaves no trace.

    Folders that are missing are made when it is written.

    Args:
      path: of the file.
      given: the values of other flags, each with or without `name=` before a path: what is read
        is not written over.
      flag: that names the file, for what is said.

    Raises:
      PredictionError: it cannot.
    """
    named = f"--{flag}={path}"
    if files.is_folder(path):
        raise PredictionError(f"{named} is a folder; expected the name of a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise PredictionError(f"{named} is no regular file; expected the name of one")
    for text in given:
        if any(_is_same(path, read) for read in (text, text.partition("=")[2])):
            raise PredictionError(f"{named} is read too ({text}); give it another name")
    probe = f"{os.path.join(_nearest_folder(path), os.path.basename(path))}{_TEMPORARY}"
    try:
        with tf.io.gfile.GFile(probe, "wb") as file:
            file.write(b"")
        tf.io.gfile.remove(probe)
    except tf.errors.OpError as error:
        raise PredictionError(f"{named} cannot be written: {error.message}") from error


def _nearest_folder(path: str) -> str:
    """The folder of a file or, where it is missing, the nearest above it that is there."""
    folder = os.path.dirname(path)
    while folder and "://" not in path and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return folder


def _is_same(path: str, other: str) -> bool:
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def write_outputs(path: str, outputs: Outputs, row_names: Sequence[str]) -> None:
    """Writes one entry per tensor, under its name.

    .npz: arrays, strings as fixed-width bytes. .json: an object of nested lists. .csv: a header,
    then a line per row with a column `row` (its name) and one for each value of it.

    Args:
      path: ends in one of `WRITERS`.
      outputs: by tensor name.
      row_names: of the rows; empty where nothing was fed by rows.

    Raises:
      PredictionError: the tensors make no table, for .csv.
      DataError: the file system refuses, as when the disk is full. Nothing is left of the file.
      OSError: the disk fails.
    """
    writer = WRITERS[os.path.splitext(path)[1].lower()]
    write_whole(path, writer(outputs, row_names))


def write_whole(path: str, content: bytes | Iterable[bytes]) -> None:
    """Writes a file, as `data.files.write_atomically` does, and cleans up after an interrupt too.

    Raises:
      DataError: the file system refuses, as when the disk is full. Nothing is left of the file.
      OSError: the disk fails.
    """
    try:
        files.write_atomically(path, content)
    except BaseException:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(f"{path}{_TEMPORARY}")
        raise


def _npz(outputs: Outputs, row_names: Sequence[str]) -> bytes:
    del row_names
    content = io.BytesIO()
    # An array of objects would be pickled.
    arrays = {k: _texts(k, v) if v.dtype.kind == "O" else v for k, v in outputs.items()}
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _texts(name: str, values: Array) -> Array:
    """An array of bytes; NumPy drops the zeros at their ends, so that there must be none."""
    if any(value.endswith(b"\0") for value in values.flat):
        raise PredictionError(
            f"{name} has texts that end in a zero byte, which an .npz cannot keep: use --output "
            "with .json"
        )
    return values.astype("S")


def _json(outputs: Outputs, row_names: Sequence[str]) -> bytes:
    del row_names
    values = {name: json_value(value) for name, value in outputs.items()}
    return (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _csv(outputs: Outputs, row_names: Sequence[str]) -> bytes:
    lengths = {value.shape[:1] for value in outputs.values()}
    if len(lengths) > 1:
        shapes = ", ".join(f"{name} {format_shape(v.shape)}" for name, v in outputs.items())
        raise PredictionError(
            f"no table can be made of {shapes}: their first dimensions differ; use --output with "
            ".npz or .json, or fetch fewer"
        )
    num_rows = max((value.shape[0] for value in outputs.values() if value.ndim), default=1)
    names = row_names if len(row_names) == num_rows else [str(row) for row in range(num_rows)]
    columns = [value.reshape(num_rows, -1) for value in outputs.values()]
    content = io.BytesIO()  # The text is encoded as it grows: it is never there as a whole.
    table = io.TextIOWrapper(content, encoding="utf-8", newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["row", *itertools.chain.from_iterable(map(_columns, outputs.items()))])
    for row, name in enumerate(names):
        writer.writerow([name, *(_cell(v) for column in columns for v in column[row])])
    table.flush()
    return content.getvalue()


def _columns(entry: tuple[str, Array]) -> list[str]:
    """`y:0` for one value a row, `logits:0[0]`, `logits:0[1]`, ... for several."""
    name, value = entry
    indices = np.ndindex(value.shape[1:])
    return [name + (f"[{','.join(map(str, index))}]" if index else "") for index in indices]


def _cell(value: object) -> str:
    """The shortest text that reads back as the same value."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


WRITERS: Mapping[str, Callable[[Outputs, Sequence[str]], bytes]] = {
    ".npz": _npz,
    ".json": _json,
    ".csv": _csv,
}
