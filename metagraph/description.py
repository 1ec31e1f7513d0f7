"""What is known of a model and its tensors before anything runs, whatever file it is in.

Nothing here needs TensorFlow, nor its protos.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from checkpoints.dtypes import DType


class TensorInfo(NamedTuple):
    """What is known of a tensor such as `x:0` before anything runs; it has no reference type.

    A dimension that is not known is None, and so is the shape where its rank is not known.
    """

    name: str
    dtype: DType
    shape: tuple[int | None, ...] | None

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


def fits_shape(shape: Sequence[int | None] | None, sizes: Sequence[int]) -> bool:
    """Whether what has these sizes is of a shape, of which not all may be known."""
    if shape is None:
        return True
    same = len(shape) == len(sizes)
    return same and all(a in (None, b) for a, b in zip(shape, sizes, strict=True))


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


def as_classifier(probabilities: TensorInfo, classes: TensorInfo) -> Classifier | None:
    """The classifier that two results of these names make, where they are what these say."""
    shape = probabilities.shape or ()
    fits = len(shape) == 2 and len(classes.shape or ()) == 1
    if not (fits and probabilities.dtype.is_floating and classes.dtype.is_integer):
        return None
    return Classifier(probabilities.name, classes.name, shape[1])
