"""Makes an array fit a tensor, without loss of meaning, or a JSON value of it."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.dtypes import RESOURCE, STRING, VARIANT, DType, as_dtype, dtype_of
from errors import PredictionError
from metagraph.description import TensorInfo, fits_shape, format_shape

if TYPE_CHECKING:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

Array = np.ndarray[Any, Any]
_REGISTERED = 2  # NumPy's mark of a dtype that another package has added.


def fit(value: Array, info: TensorInfo, source: str) -> Array:
    """`value`, which a person gave at `source`, as `fit_dtype` has it, of the tensor's shape."""
    if not fits_shape(info.shape, value.shape):
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}, "
            f"found {value.dtype} {format_shape(value.shape)}"
        )
    return fit_dtype(value, info, source)


def fit_dtype(value: Array, info: TensorInfo, source: str) -> Array:
    """`value` in the tensor's dtype: the very same array where it has it already.

    Integers become other integers or floats where each keeps its value; floats become other floats,
    rounded to the nearest, where none overflows; both become complex numbers on the same terms;
    texts become strings in UTF-8. Nothing else goes over: no float becomes an integer, no number a
    bool. Raises PredictionError where the dtype, or a value, does not go over.
    """
    if info.dtype == STRING:
        if value.dtype.kind not in "SUO":  # Our own readers give nothing but bytes in objects.
            raise PredictionError(f"{source}: {info.name} takes strings, found {value.dtype}")
        texts = np.char.encode(value, "utf-8") if value.dtype.kind == "U" else value
        return texts.astype(object, copy=False)
    if info.dtype in (RESOURCE, VARIANT):
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
    return value.astype(np.float32 if dtype_of(value).is_floating else np.int8)


def _instead(value: Array, target: DType) -> str:
    """What to give in place of a value whose dtype does not go over."""
    if target.is_bool:
        return "; expected true or false"
    if target.is_integer and value.dtype.kind == "f" and value.size:
        broken = value[~np.isfinite(value) | (np.floor(value) != value)]
        example = (broken if broken.size else value).flat[0]
        return f" (such as {example}); expected {_range(target)}, as integers"
    return ""


def _limited(value: Any, dtype: DType) -> str:
    """A value that is out of range, with the range, or that lies between two floats."""
    if dtype.is_integer:
        return f"{value}: it has {_range(dtype)}"
    if dtype.is_complex:
        return str(value)
    if abs(float(value)) <= float(dtype.max):
        return f"{value} exactly"
    return f"{value}: it has numbers from {float(dtype.min):g} to {float(dtype.max):g}"


def _range(dtype: DType) -> str:
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


# The fields of a constant that is written value by value. Format:
# `tensorflow/core/framework/tensor.proto`.
_FIELDS = {
    **dict.fromkeys(("float16", "bfloat16"), "half_val"),
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "string": "string_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
}


def constant(tensor: "TensorProto") -> Array:
    """The value of a constant; TypeError or ValueError where its dtype has none, or it is damaged.

    The last value that is written stands for all that are not.
    """
    dtype = as_dtype(tensor.dtype)
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if dtype in (RESOURCE, VARIANT) or min(shape, default=0) < 0:
        raise TypeError(f"there is no value {dtype} {shape}")
    if tensor.tensor_content and dtype != STRING:
        return np.frombuffer(tensor.tensor_content, dtype.as_numpy_dtype).reshape(shape)
    written = getattr(tensor, _FIELDS.get(dtype, "int_val"))
    numpy_dtype, missing = dtype.as_numpy_dtype, b"" if dtype == STRING else 0
    if _FIELDS.get(dtype) == "half_val":  # Their bits, as whole numbers.
        values = np.array(written, np.uint16).view(numpy_dtype)
    elif dtype.is_complex:  # Real and imaginary parts, one after the other.
        values = np.array(written, np.float64).view(np.complex128).astype(numpy_dtype)
    else:
        values = np.array([*written], object).astype(numpy_dtype)
    rest = math.prod(shape) - len(values)
    if rest > 0:
        values = np.append(values, np.full(rest, values[-1] if len(values) else missing))
    return values.astype(numpy_dtype).reshape(shape)


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
