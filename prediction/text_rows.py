"""Reads rows of text, for tensors of strings: one a line, or cells of a CSV file."""

import csv
import io

import numpy as np

from data.files import read_bytes
from prediction.casting import Array
from prediction.errors import PredictionError


def read_lines(path: str, max_bytes: int) -> Array:
    """The lines of a text file, without their ends; an empty one is a row too.

    Args:
      path: the file; in any encoding that has line ends as in ASCII, for it is not decoded.
      max_bytes: that the file may have.

    Returns:
      Bytes, object [lines].

    Raises:
      PredictionError: the file is empty.
      DataError: it cannot be read.
    """
    content = read_bytes(path, max_bytes)
    if not content:
        raise PredictionError(f"{path}: has no rows")
    lines = content.removesuffix(b"\n").split(b"\n")
    return as_objects([line.removesuffix(b"\r") for line in lines])


def read_csv_texts(path: str, max_bytes: int) -> Array:
    """The cells of a CSV file as they are; empty lines are left out.

    Returns:
      Bytes in UTF-8, object [rows, columns].

    Raises:
      PredictionError: a row is longer or shorter than the first; the message gives the line.
      DataError: the file cannot be read.
    """
    try:
        text = read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path}: is no text in UTF-8") from error
    cells: list[bytes] = []
    columns = 0
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            columns = columns or len(row)
            if row and len(row) != columns:
                found = f"expected {columns} cells, found {len(row)}"
                raise PredictionError(f"{path}, line {reader.line_num}: {found}")
            cells += [cell.encode() for cell in row]
    except csv.Error as error:  # A cell of over 128 KiB, or a null character.
        raise PredictionError(f"{path}, line {reader.line_num}: {error}") from error
    if not cells:
        raise PredictionError(f"{path}: has no rows")
    return as_objects(cells).reshape(-1, columns)


def as_objects(texts: list[bytes]) -> Array:
    """An array of the texts that keeps null bytes at their ends, unlike NumPy's own strings."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array
