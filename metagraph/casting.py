"""Makes an array fit a tensor, without loss of meaning, or a JSON value of it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from errors import PredictionError
from metagraph.description import TensorInfo, format_shape

if TYPE_CHECKING:
    import tensorflow as tf

Array = np.ndarray[Any, Any]
STRING = "string"  # The name of the dtype of texts.
_REGISTERED = 2  # NumPy's mark of a dtype that another package has added.


def fit(value: Array, info: TensorInfo, source: str) -> Array:
    """`value`, which a person gave at `source`, as `fit_dtype` has it, of the tensor's shape."""
    shape = value.shape if info.shape is None else info.shape
    pairs = zip(shape, value.shape, strict=False)
    if len(shape) != value.ndim or any(size not in (None, found) for size, found in pairs):
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}, "
            f"found {value.dtype} {format_shape(value.shape)}"
        )
    return fit_dtype(value, info, source)


def fit_dtype(value: Array, info: TensorInfo, source: str) -> Array:
    """`value` in the tensor's dtype: the very same array where it has it already.

    Integers become other integers or floats where each keeps its value; floats become other
    floats, rounded to the nearest, where none overflows; both become complex numbers on the same
    terms; texts become strings in UTF-8. Nothing else goes over: no float becomes an integer, no
    number a bool.

    Raises:
      PredictionError: the dtype, or a value, does not go over.
    """
    if info.dtype.name == STRING:
        if value.dtype.kind not in "SUO":  # Our own readers give nothing but bytes in objects.
            raise PredictionError(f"{source}: {info.name} takes strings, found {value.dtype}")
        texts = np.char.encode(value, "utf-8") if value.dtype.kind == "U" else value
        return texts.astype(object, copy=False)
    if info.dtype.name in ("resource", "variant"):
        raise PredictionError(f"{source}: {info.name} cannot be fed: it is a {info.dtype.name}")
    dtype, target, kind = np.dtype(info.dtype.as_numpy_dtype), info.dtype, value.dtype.kind
    if value.dtype == dtype:
        return value
    goes_over = (
        (target.is_complex and kind in "iufc")
        or (target.is_floating and kind in "iuf")
        or (target.is_integer and kind in "iu")
    )
    if not goes_over:
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name}, found {value.dtype}"
            f"{_instead(value, info.dtype)}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(dtype)
        lost = _lost(value, cast)
    if lost.any():
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name}, which cannot hold "
            f"{_limited(value[lost].flat[0], info.dtype)}"
        )
    return cast


def as_numpy_dtype(value: Array) -> Array:
    """A value in a dtype of NumPy's own, as .npz files and JSON need it: bfloat16 as float32."""
    if value.dtype.names:
        return np.asarray(value[value.dtype.names[0]])
    if value.dtype.isbuiltin != _REGISTERED:
        return value
    return value.astype(np.float32 if "float" in value.dtype.name else np.int8)


def _instead(value: Array, target: "tf.DType") -> str:
    """What to give in place of a value whose dtype does not go over."""
    if target.is_bool:
        return "; expected true or false"
    if target.is_integer and value.dtype.kind == "f" and value.size:
        broken = value[~np.isfinite(value) | (np.floor(value) != value)]
        example = (broken if broken.size else value).flat[0]
        return f" (such as {example}); expected {_range(target)}, as integers"
    return ""


def _limited(value: Any, dtype: "tf.DType") -> str:
    """A value that is out of range, with the range, or that lies between two floats."""
    if dtype.is_integer:
        return f"{value}: it has {_range(dtype)}"
    if dtype.is_complex:
        return str(value)
    if abs(float(value)) <= float(dtype.max):
        return f"{value} exactly"
    return f"{value}: it has numbers from {float(dtype.min):g} to {float(dtype.max):g}"


def _range(dtype: "tf.DType") -> str:
    return f"whole numbers from {dtype.min} to {dtype.max}"


def _lost(value: Array, cast: Array) -> Array:
    """Where a value did not survive: a changed integer, a finite float that turned infinite."""
    if value.dtype.kind not in "iu":
        return np.asarray(np.isfinite(value) & ~np.isfinite(cast))
    cast = cast.real  # Of what is not complex, itself.
    if np.can_cast(value.dtype, cast.dtype, "safe") and value.dtype.itemsize < 8:
        return np.zeros(value.shape, bool)  # NumPy calls int64 to float64 safe as well.
    limit = float(np.iinfo(value.dtype).max) + 1  # From here on, the way back is not defined.
    back = cast.astype(value.dtype)
    too_large = cast >= limit if cast.dtype.kind not in "iu" else False
    # The last: -1 wraps around to 2**64 - 1, and back.
    return np.asarray((back != value) | too_large | ((cast < 0) != (value < 0)))


def json_value(array: Array) -> Any:
    """A number, text or nested list for an array.

    JSON has no NaN and no infinity: they become "NaN", "Infinity" and "-Infinity", as in
    https://protobuf.dev/programming-guides/json/. Bytes become text in UTF-8.
    """
    if array.dtype.kind == "c":
        return array.astype(str).tolist()
    if array.dtype.kind == "O" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        return np.vectorize(_json_scalar, otypes=[object])(array).tolist() if array.size else []
    return array.tolist()


def _json_scalar(value: Any) -> str | float:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if not isinstance(value, float):
        return str(value)
    if np.isfinite(value):
        return float(value)
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
