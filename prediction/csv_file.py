"""Reads a CSV file of numbers, one row per example."""

import csv
import io
from collections.abc import Iterable

import numpy as np

from data.files import read_bytes
from prediction.casting import Array
from prediction.errors import PredictionError


def read_csv(path: str, max_bytes: int) -> Array:
    """Reads comma-separated numbers, with or without quotes; empty lines are left out.

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
    # Lines may end as on any system.
    lines = io.StringIO(text, newline=None)
    try:
        return np.loadtxt(lines, np.float64, None, ",", ndmin=2, quotechar='"')
    except ValueError as error:
        # NumPy is fast, and counts rows without the empty lines; so the line is looked for here.
        lines.seek(0)
        raise PredictionError(f"{path}, {_first_fault(lines)}") from error


def _first_fault(lines: Iterable[str]) -> str:
    """The first line that is not a row of numbers, and why."""
    reader = csv.reader(lines)
    columns = None
    try:
        for row in filter(None, reader):
            columns = columns or len(row)
            if len(row) != columns:
                return f"line {reader.line_num}: expected {columns} numbers, found {len(row)}"
            for column, entry in enumerate(row, start=1):
                if not _is_number(entry):
                    return (
                        f"line {reader.line_num}, column {column}: {entry[:40]!r} is no number "
                        "(expected numbers only, separated by commas, no header)"
                    )
    except csv.Error as error:  # An entry of over 128 KiB.
        return f"line {reader.line_num}: {error}"
    return "expected rows of numbers, separated by commas"


def _is_number(text: str) -> bool:
    """Whether NumPy reads it as one, which knows no underscores."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
