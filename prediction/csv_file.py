"""Reads a CSV file of numbers, one row per example."""

import csv
import io

import numpy as np

from data.files import read_bytes
from prediction.casting import Array
from prediction.errors import PredictionError


def read_csv(path: str, max_bytes: int) -> Array:
    """Reads comma-separated numbers; empty lines are left out.

    Args:
      path: the file, in UTF-8, with no header line.
      max_bytes: that the file may have.

    Returns:
      float64 [rows, columns].

    Raises:
      PredictionError: a row is longer or shorter than the first, or an entry is no number; the
        message gives the line.
      DataError: the file cannot be read.
    """
    try:
        text = read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path}: is no text in UTF-8") from error
    if not text.strip():
        raise PredictionError(f"{path}: has no rows")
    try:
        return np.loadtxt(io.StringIO(text), np.float64, comments=None, delimiter=",", ndmin=2)
    except ValueError as error:
        # NumPy is fast, and counts rows without the empty lines; so the line is looked for here.
        raise PredictionError(f"{path}, {_first_fault(text)}") from error


def _first_fault(text: str) -> str:
    """The first line that is not a row of numbers, and why."""
    reader = csv.reader(io.StringIO(text))
    columns = None
    for row in reader:
        if not row:
            continue
        columns = columns or len(row)
        if len(row) != columns:
            return f"line {reader.line_num}: expected {columns} numbers, found {len(row)}"
        for column, entry in enumerate(row, start=1):
            if not _is_number(entry):
                return (
                    f"line {reader.line_num}, column {column}: {entry[:40]!r} is no number "
                    "(expected numbers only, no header)"
                )
    return "expected rows of numbers, separated by commas"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
