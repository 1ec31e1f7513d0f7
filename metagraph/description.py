"""What is known of a model and its tensors before anything runs, whatever file it is in.

Nothing here needs TensorFlow, nor its protos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class NumpyDType:
    """What is asked here of a `tf.DType`, for a dtype of NumPy's; of texts it is object."""

    as_numpy_dtype: type[Any]

    @property
    def name(self) -> str:
        """As TensorFlow has it."""
        return "string" if self._kind == "O" else np.dtype(self.as_numpy_dtype).name

    @property
    def is_floating(self) -> bool:
        """Whether it is of real numbers that are not whole."""
        return self._kind == "f"

    @property
    def is_integer(self) -> bool:
        """Whether it is of whole numbers."""
        return self._kind in "iu"

    @property
    def is_bool(self) -> bool:
        """Whether it is of truth values."""
        return self._kind == "b"

    @property
    def is_complex(self) -> bool:
        """Whether it is of complex numbers."""
        return self._kind == "c"

    @property
    def min(self) -> Any:
        """The lowest number."""
        return self._limits.min

    @property
    def max(self) -> Any:
        """The highest number."""
        return self._limits.max

    @property
    def _kind(self) -> str:
        return np.dtype(self.as_numpy_dtype).kind

    @property
    def _limits(self) -> Any:
        return (np.iinfo if self.is_integer else np.finfo)(self.as_numpy_dtype)


class TensorInfo(NamedTuple):
    """What is known of a tensor such as `x:0` before anything runs; it has no reference type.

    A dimension that is not known is None, and so is the shape where its rank is not known.
    """

    name: str
    dtype: "tf.DType"  # Or a `NumpyDType`.
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        """As in an error line: `x:0 float32 [?, 32, 32, 3]`."""
        return f"{self.name} {self.dtype.name} {format_shape(self.shape)}"


def format_shape(shape: "Sequence[int | None] | tf.TensorShape | None") -> str:
    """`[?, 32, 32, 3]`; `of any shape` where the rank is not known."""
    if shape is not None and not isinstance(shape, Sequence):
        shape = None if shape.rank is None else shape.as_list()
    if shape is None:
        return "of any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


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
    """The two results of a signature that make a classifier of K classes, K None where unknown.

    Attributes:
      probabilities: the tensor of each class's probability, float [N, K].
      classes: the tensor of each row's class, integers [N].
    """

    probabilities: str
    classes: str
    num_classes: int | None


class Model(NamedTuple):
    """A model's own description; each part may be empty in a stranger's file.

    Attributes:
      signature: the one in use.
      signatures: the names of all.
      predict: the tensors of the collection `predict`, the prediction first; none where a
        signature was asked for, as then its outputs are the prediction.
      class_names: in label order.
      input_scale: what uint8 values are multiplied by for the signature's input.
      trained_on: the name of a built-in data set.
      image_shape: height, width and channels of the image in a row of the signature's input.
    """

    signature: Signature
    signatures: tuple[str, ...]
    predict: tuple[str, ...]
    class_names: tuple[str, ...]
    input_scale: float | None
    trained_on: str | None
    classifier: Classifier | None
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


def as_classifier(probabilities: TensorInfo, classes: TensorInfo) -> Classifier | None:
    """The classifier that two results of these names make, where they are what these say."""
    shape = probabilities.shape or ()
    fits = len(shape) == 2 and len(classes.shape or ()) == 1
    if not (fits and probabilities.dtype.is_floating and classes.dtype.is_integer):
        return None
    return Classifier(probabilities.name, classes.name, shape[1])
