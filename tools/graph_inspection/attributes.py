"""Attributes of nodes as JSON values and as text; of a constant, its first values.

Formats: `tensorflow/core/framework/attr_value.proto`, `tensorflow/core/framework/tensor.proto`.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto

from checkpoints.loading.tensor_info import format_shape
from prediction.json_values import json_value

SHOWN_VALUES = 8  # Of a constant.
_LONGEST = 2000  # Characters of an attribute as text.


def attribute_value(value: AttrValue) -> Any:
    """An attribute as a JSON value.

    A dtype is its name, a shape a list of sizes (null where not known; null for no rank), a tensor
    an object of `dtype`, `shape` and `values` (the first of them, as they are in memory; null where
    they cannot be read), a function one of `function` and `attributes`, a value left to the caller
    one of `placeholder`.
    """
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "placeholder":
        return {"placeholder": value.placeholder}
    if kind == "list":
        return [_plain(f.name, item) for f, items in value.list.ListFields() for item in items]
    return _plain(kind, getattr(value, kind))


def _plain(kind: str, value: Any) -> Any:
    """One value of the field `kind` of an AttrValue."""
    return _PLAIN[kind](value) if kind in _PLAIN else value


def _text_of(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _function(value: NameAttrList) -> dict[str, Any]:
    attributes = {key: attribute_value(value.attr[key]) for key in sorted(value.attr)}
    return {"function": value.name, "attributes": attributes}


def dtype_name(number: int) -> str:
    """`float32` of 1; `dtype 99` of a number that this TensorFlow has no name for."""
    try:
        return str(tf.as_dtype(number).name)
    except TypeError:
        return f"dtype {number}"


def shape_sizes(shape: TensorShapeProto) -> list[int | None] | None:
    """Sizes as JSON has them: null where one is not known, and for a shape without a rank."""
    if shape.unknown_rank:
        return None
    return [dim.size if dim.size >= 0 else None for dim in shape.dim]


def tensor_value(tensor: TensorProto) -> dict[str, Any]:
    """A constant as `attribute_value` has it; what its shape says takes no memory."""
    shape = shape_sizes(tensor.tensor_shape)
    return {"dtype": dtype_name(tensor.dtype), "shape": shape, "values": _first_values(tensor)}


def _first_values(tensor: TensorProto) -> list[Any] | None:
    """The first values, flattened; None where they cannot be read.

    Of equal values at its end a constant holds but one, which `tf.make_ndarray` repeats.
    """
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        return None
    count = min(SHOWN_VALUES, math.prod(sizes))
    try:
        dtype = tf.as_dtype(tensor.dtype)
        few = TensorProto(dtype=tensor.dtype)
        few.tensor_shape.dim.add().size = count
        few.tensor_content = tensor.tensor_content[: count * dtype.size]
        for field, values in tensor.ListFields():
            if field.name.endswith("_val"):
                width = 2 if dtype.is_complex else 1
                getattr(few, field.name).extend(values[: count * width])
        found: list[Any] = json_value(tf.make_ndarray(few))
        return found
    except (KeyError, TypeError, ValueError):  # A dtype without values, or too few.
        return None


_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "s": _text_of,
    "f": _number,
    "type": dtype_name,
    "shape": shape_sizes,
    "tensor": tensor_value,
    "func": _function,
}


def attribute_text(value: Any) -> str:
    """An attribute's JSON value for people: `[1, 2, 2, 1]`, `float32 [4] = 0.1, 0.2, ...`."""
    text = _text(value)
    more = len(text) - _LONGEST
    return f"{text[:_LONGEST]}... ({more} characters more)" if more > 0 else text


def _text(value: Any) -> str:
    if isinstance(value, dict) and "values" in value:
        return _tensor_text(value)
    if isinstance(value, dict) and "function" in value:
        attributes = ", ".join(f"{k}={_text(v)}" for k, v in value["attributes"].items())
        return f"{value['function']}({attributes})" if attributes else str(value["function"])
    if isinstance(value, dict):
        return f"as the caller's {value['placeholder']}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None:  # A size or a shape that is not known.
        return "?"
    return value if isinstance(value, str) else json.dumps(value)


def _tensor_text(value: dict[str, Any]) -> str:
    kind = f"{value['dtype']} {format_shape(value['shape'])}"
    if value["values"] is None:
        return f"{kind}, which cannot be read"
    size = math.prod(value["shape"])
    rest = ", ..." if size > len(value["values"]) else ""
    return f"{kind} = {', '.join(json.dumps(v, ensure_ascii=False) for v in value['values'])}{rest}"
