"""What is known of a model and its tensors before anything runs, whatever file it is in.

It also makes arrays fit a tensor, without loss of meaning, and turns them into JSON. Nothing here
needs TensorFlow, nor its protos.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from checkpoints.bundle import RESOURCE, STRING, VARIANT, DType, as_dtype, dtype_of
from checkpoints.index_table import read_varint
from errors import PredictionError

if TYPE_CHECKING:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

Array = np.ndarray[Any, Any]


class TensorInfo(NamedTuple):
    """What is known of a tensor such as `x:0` before anything runs; its dtype is no reference.

    A dimension that is not known is None, and so is the shape where its rank is not known.
    """

    name: str
    dtype: DType
    shape: tuple[int | None, ...] | None

    @property
    def has_rows(self) -> bool:
        """Whether it may have any number of rows, as far as is known."""
        return self.shape is None or self.shape[:1] == (None,)

    def __str__(self) -> str:
        """As in an error line: `x:0 float32 [?, 32, 32, 3]`."""
        return f"{self.name} {self.dtype.name} {format_shape(self.shape)}"


def format_shape(shape: Any) -> str:
    """`[?, 32, 32, 3]` of sizes or a tf.TensorShape; `of any shape` where the rank is not known."""
    if hasattr(shape, "as_list"):
        shape = None if shape.rank is None else shape.as_list()
    if shape is None:
        return "of any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def fits_shape(shape: Sequence[int | None] | None, sizes: Sequence[int | None]) -> bool:
    """Whether `sizes` can be of `shape`; a None in either stands for any size."""
    if shape is None:
        return True
    same = len(shape) == len(sizes)
    return same and all(a == b or None in (a, b) for a, b in zip(shape, sizes, strict=True))


class Signature(NamedTuple):
    """One signature, with an empty name for a file that has none.

    The inputs are argument name -> full tensor name, the outputs result name -> full tensor name;
    both are sorted, as protobuf maps have no order of their own.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


NO_SIGNATURE = Signature("", {}, {})


class Classifier(NamedTuple):
    """The two results of a signature that make a classifier of K classes."""

    probabilities: str  # The tensor of each class's probability, float [N, K].
    classes: str  # The tensor of each row's class, integers [N].
    num_classes: int | None  # K; None where it is not known.


class Model(NamedTuple):
    """A model's own description; each part may be empty in a stranger's file.

    Where a signature was asked for, its outputs are the prediction, and `predict` is empty.
    """

    signature: Signature  # The one in use.
    signatures: tuple[str, ...]  # The names of all.
    predict: tuple[str, ...]  # The tensors of the collection `predict`, the prediction first.
    class_names: tuple[str, ...]  # In label order.
    input_scale: float | None  # What uint8 values are multiplied by for the signature's input.
    trained_on: str | None  # The name of a built-in data set.
    classifier: Classifier | None
    # Height, width and channels of the image in a row of the signature's input.
    image_shape: tuple[int, int, int] | None = None

    @property
    def inputs(self) -> Mapping[str, str]:
        """Of the signature in use."""
        return self.signature.inputs

    @property
    def outputs(self) -> Mapping[str, str]:
        """Of the signature in use."""
        return self.signature.outputs

    @property
    def feed_keys(self) -> Mapping[str, str]:
        """What a tensor may be called where it is fed; any tensor can be, an output too."""
        return {**self.outputs, **self.inputs}

    @property
    def fetch_keys(self) -> Mapping[str, str]:
        """What a tensor may be called where it is fetched."""
        return {**self.inputs, **self.outputs}


class RunnableGraph(ABC):
    """Runs the fetched tensors, given the fed ones, of a graph of TensorFlow or an ONNX model.

    `feeds` and `fetches` are in the order in which `run` takes and returns their values. The graph
    `is_pure` where results follow from what is fed alone, so that runs may go side by side.
    """

    feeds: tuple[TensorInfo, ...]
    fetches: tuple[TensorInfo, ...]
    is_pure: bool
    random_nodes: Sequence[str] = ()  # Those that draw anew in each run, where that is known.

    def mixing(self, _: str) -> str:
        """What may mix the rows of a fetched tensor, the end of a line; empty if not known."""
        return ""

    def run(self, *values: Array) -> list[Array]:
        """The values of `fetches`, given those of `feeds`, each of its very dtype and shape."""
        return self.run_each([values])[0]

    def run_each(
        self, batches: Iterable[Sequence[Array]], side_by_side: Executor | None = None
    ) -> list[list[Array]]:
        """What `run` gives for each batch, perhaps in other threads; or a CheckpointError."""
        run_all = side_by_side.map if side_by_side else map
        with self._one_run():
            return [*run_all(self._run_batch, batches)]

    @abstractmethod
    def _one_run(self) -> AbstractContextManager[None]:
        """Limits the time of what runs in it, and makes a CheckpointError of what that raises."""

    @abstractmethod
    def _run_batch(self, values: Sequence[Array]) -> list[Array]:
        """One run."""


def as_classifier(probabilities: TensorInfo, classes: TensorInfo) -> Classifier | None:
    """The classifier that two results of these names make, where they are what these say."""
    shape = probabilities.shape or ()
    fits = len(shape) == 2 and len(classes.shape or ()) == 1
    if not (fits and probabilities.dtype.is_floating and classes.dtype.is_integer):
        return None
    return Classifier(probabilities.name, classes.name, shape[1])


# Makes an array fit a tensor.

_REGISTERED = 2  # NumPy's mark of a dtype that another package has added.


def fit(value: Array, info: TensorInfo, source: str) -> Array:
    """Checks the shape of `value`, and converts it by `fit_dtype`; `source` names it in errors."""
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


# The fields of a constant that is written value by value, where they are not called after the dtype
# as `int64_val` is; all other dtypes have `int_val`. Format:
# `tensorflow/core/framework/tensor.proto`.
_FIELDS = {
    **dict.fromkeys(("float16", "bfloat16"), "half_val"),
    "float32": "float_val",
    "float64": "double_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}


def constant(tensor: TensorProto) -> Array:
    """The value of a constant, of the shape that is said there; the last one written is repeated.

    TypeError where its dtype has no values, ValueError where they do not fill the shape.
    """
    dtype = as_dtype(tensor.dtype)
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if dtype in (RESOURCE, VARIANT) or min(shape, default=0) < 0:
        raise TypeError(f"there is no value {dtype} {shape}")
    if content := tensor.tensor_content:
        if dtype == STRING:
            return np.array(_packed_texts(content), object).reshape(shape)
        return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    written = getattr(tensor, _FIELDS.get(dtype, f"{dtype}_val"), tensor.int_val)
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


def _packed_texts(content: bytes) -> list[bytes]:
    """Texts as TensorFlow packs many: the length of each, then their bytes; or ValueError.

    Format: `EncodeStringList` in `tensorflow/core/platform/tensor_coding.cc`.
    """
    ends, position = [0], 0
    with suppress(IndexError):  # Within a length; what there is then does not add up.
        while position + ends[-1] < len(content):
            length, position = read_varint(content, position)
            ends.append(ends[-1] + length)
    if position + ends[-1] != len(content):
        raise ValueError("its texts are cut short")
    return [content[position + start : position + end] for start, end in pairwise(ends)]


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
