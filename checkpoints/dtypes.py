"""The dtypes of TensorFlow without TensorFlow: their numbers in files, and NumPy's types of them.

Numbers: `tensorflow/core/framework/types.proto`.
"""

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

_NAMES = (
    *("", "float32", "float64", "int32", "uint8", "int16", "int8", "string", "complex64", "int64"),
    *("bool", "qint8", "quint8", "qint32", "bfloat16", "qint16", "quint16", "uint16"),
    *("complex128", "float16", "resource", "variant", "uint32", "uint64", "float8_e5m2"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4"),
    *("uint4", "int2", "uint2", "float4_e2m1fn"),
)
MOST_NUMBER = len(_NAMES) - 1
_OBJECTS = ("string", "resource", "variant")
_FIRST_REFERENCE = 100  # The number of a reference is that of its dtype and this.


class DType(str):
    """The name of a dtype, such as `float32`, which says of it what a `tf.DType` does.

    TensorFlow takes it for a dtype, and it equals the tf.DType of that name; its hash is another.
    """

    name: str  # The name alone.
    is_floating: bool
    is_complex: bool
    is_integer: bool  # And not quantized.
    is_bool: bool

    def __new__(cls, name: str) -> "DType":
        """Tells its kind by its name."""
        self = super().__new__(cls, name)
        self.name = str(name)
        self.is_floating = name.startswith(("float", "bfloat"))
        self.is_complex = name.startswith("complex")
        self.is_integer = name.startswith(("int", "uint"))
        self.is_bool = name == "bool"
        return self

    @property
    def as_datatype_enum(self) -> int:
        """Its number in a file."""
        return _NAMES.index(self)

    @property
    def as_numpy_dtype(self) -> np.dtype[Any]:
        """NumPy's type of its values; of texts and handles, objects."""
        return _numpy_dtype(self.removesuffix("_ref"))

    @property
    def size(self) -> int:
        """The bytes of a value in memory; 0 where they differ from value to value."""
        return 0 if self in _OBJECTS else self.as_numpy_dtype.itemsize

    @property
    def min(self) -> int | float:
        """The least value of a number."""
        return self._limits.min  # type: ignore[no-any-return]

    @property
    def max(self) -> int | float:
        """The greatest value of a number."""
        return self._limits.max  # type: ignore[no-any-return]

    @property
    def _limits(self) -> Any:
        return (ml_dtypes.iinfo if self.is_integer else ml_dtypes.finfo)(self.as_numpy_dtype)


STRING, RESOURCE, VARIANT = map(DType, _OBJECTS)


def as_dtype(number: int) -> DType:
    """The dtype of a number in a file, a reference's with `_ref` at its end; or a TypeError."""
    is_reference = number > _FIRST_REFERENCE
    value = number - _FIRST_REFERENCE if is_reference else number
    if not 0 < value <= MOST_NUMBER:
        raise TypeError(f"there is no dtype {number}")
    return DType(_NAMES[value] + "_ref" * is_reference)


def dtype_of(array: np.ndarray[Any, Any]) -> DType:
    """The dtype of an array's values; objects are texts."""
    if array.dtype.names:
        return DType(array.dtype.names[0])
    return STRING if array.dtype.kind == "O" else DType(array.dtype.name)


@cache
def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name in _OBJECTS:
        return np.dtype(object)
    if name.lstrip("u").startswith("q"):  # Quantized: a field of its name, as TensorFlow has it.
        return np.dtype([(name, name.replace("q", ""))])
    return np.dtype(getattr(ml_dtypes, name, name))
