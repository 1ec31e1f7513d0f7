"""The values of attributes of nodes: whether two are the same, and in few words what they are.

Formats: `tensorflow/core/framework/attr_value.proto`, `tensorflow/core/framework/tensor.proto`.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto

_MAX_ELEMENTS = 1 << 22  # Of a constant that is unpacked: a few bytes may stand for any number.
_MAX_SHOWN = 4
_MAX_CHARACTERS = 60


def is_same(a: AttrValue | None, b: AttrValue | None) -> bool:
    """Whether two values are the same; a tensor has several ways to be written."""
    if a is None or b is None:
        return a is b
    if a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True):
        return True
    if a.WhichOneof("value") == b.WhichOneof("value") == "tensor":
        one, other = _array(a.tensor), _array(b.tensor)
        return one is not None and other is not None and _equal(one, other)
    return False


def describe(value: AttrValue | None) -> str:
    """A value in a few words: `float32`, `[1, 3, 3, 1]`, `'SAME'`, `float32 [128, 4]`."""
    if value is None:
        return "none"
    kind = value.WhichOneof("value")
    if kind is None:
        return "empty"
    if kind == "list":
        fields = value.list.ListFields()
        parts = [_described(field.name, item) for field, items in fields for item in items]
        return _short(f"[{', '.join(parts)}]")
    return _described(kind, getattr(value, kind))


def _described(kind: str, value: Any) -> str:
    if kind == "type":
        return _dtype(value)
    if kind == "shape":
        return _shape(value)
    if kind == "tensor":
        return _tensor(value)
    if kind == "func":
        return f"function {value.name}"
    if kind == "s":
        return _short(repr(value.decode("utf-8", "backslashreplace")))
    return _short(str(value))


def _tensor(tensor: TensorProto) -> str:
    array = _array(tensor)
    told = f"{_dtype(tensor.dtype)} {_shape(tensor.tensor_shape)}"
    if array is None or array.size > _MAX_SHOWN:
        return told
    return _short(f"{told} {array.tolist()}")


def _dtype(number: int) -> str:
    try:
        return str(tf.as_dtype(number).name)
    except TypeError:
        return f"dtype {number}"


def _shape(shape: TensorShapeProto) -> str:
    if shape.unknown_rank:
        return "of any shape"
    return "[" + ", ".join("?" if dim.size < 0 else str(dim.size) for dim in shape.dim) + "]"


def _short(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."


def _array(tensor: TensorProto) -> np.ndarray[Any, Any] | None:
    """A constant's value; None where it is too large, or is none."""
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if min(sizes, default=0) < 0 or math.prod(sizes) > _MAX_ELEMENTS:
        return None
    try:
        return np.asarray(tf.make_ndarray(tensor))
    except (TypeError, ValueError):
        return None


def _equal(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool((a == b).all()) if a.dtype.kind == "O" else a.tobytes() == b.tobytes()
