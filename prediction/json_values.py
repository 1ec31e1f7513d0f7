"""Arrays as JSON values."""

from typing import Any

import numpy as np

from prediction.casting import Array


def json_value(array: Array) -> Any:
    """A number, text or nested list for an array.

    JSON has no NaN and no infinity: they become "NaN", "Infinity" and "-Infinity", as in
    https://protobuf.dev/programming-guides/json/. Bytes become text in UTF-8.
    """
    if array.dtype.kind == "O":
        return np.vectorize(_text, otypes=[object])(array).tolist() if array.size else []
    if array.dtype.kind == "c":
        return array.astype(str).tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return np.vectorize(_number, otypes=[object])(array).tolist()
    return array.tolist()


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _number(value: float) -> float | str:
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)
