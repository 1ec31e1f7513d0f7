"""Lines of text for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from checkpoints.loading.tensor_info import format_shape

HINT = "--format=json has all"


def shortened(lines: Sequence[str], most: int, indent: str = "  ") -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"{indent}... and {more} more ({HINT})"] if more > 0 else [])]


def counted(counts: Mapping[str, int], most: int) -> str:
    """`Const 14, MatMul 2`, the most frequent first; then how many more kinds there are."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = len(ordered) - most
    shown = ", ".join(f"{name} {count}" for name, count in ordered[:most])
    return shown + (f" and {more} more ({HINT})" if more > 0 else "") if shown else "(none)"


def listed(values: Iterable[Any], most: int) -> str:
    """`a, b, c`; then how many more there are."""
    texts = [str(value) for value in values]
    more = len(texts) - most
    return (", ".join(texts[:most]) or "(none)") + (f" and {more} more" if more > 0 else "")


def tensor_text(record: Mapping[str, Any]) -> str:
    """`x:0  float32 [?, 4]`."""
    return f"{record['name']}  {kind_text(record)}"


def kind_text(record: Mapping[str, Any]) -> str:
    """`float32 [?, 4]`, of the keys `dtype` (null where not known) and `shape`."""
    if record["dtype"] is None:
        return "unknown here"
    return f"{record['dtype']} {format_shape(record['shape'])}"
