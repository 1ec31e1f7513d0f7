"""What a command prints on stdout: text for people, one JSON document for programs."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from cli.printing import printable

Record: TypeAlias = Mapping[str, Any]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def show(record: Record, as_text: Callable[[Record], str], kind: str) -> None:
    """Prints what a command has found.

    Args:
      record: JSON values; NaN and infinities as `prediction.json_values.json_value` gives them.
      as_text: the same as lines for people.
      kind: `text` or `json`, as --format says.

    Raises:
      ValueError: the record holds a NaN, which is not JSON: a defect of the command.
    """
    if kind == "json":
        print(printable(json.dumps(record, ensure_ascii=False, allow_nan=False)))
    else:
        print(printable(as_text(record)))


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: int = 0) -> list[str]:
    """Lines of columns, two spaces apart.

    Args:
      rows: the cells, each row as many.
      right: the columns whose cells stand at the right, as numbers do.
      indent: spaces before each line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" " * indent + "  ".join(_cells(row, widths, right)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> Iterator[str]:
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if index in right else cell.ljust(width)


def format_bytes(size: int) -> str:
    """A number of bytes for people: `1.4 MiB`, `512 B`."""
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
