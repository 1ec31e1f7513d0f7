"""What a meta graph says of its model, for whoever predicts with it."""

from collections.abc import Mapping
from typing import NamedTuple

from checkpoints.errors import CheckpointError
from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.signatures import Signature, choose_signature, read_signatures
from checkpoints.meta_graph import (
    CLASS_NAMES_COLLECTION,
    IMAGE_SHAPE_COLLECTION,
    INPUT_SCALE_COLLECTION,
    PREDICT_COLLECTION,
    TRAINED_ON_COLLECTION,
)


class Classifier(NamedTuple):
    """The two results of the signature that make a classifier.

    Attributes:
      probabilities: the tensor of each class's probability, float [N, K].
      classes: the tensor of each row's class, integers [N].
      num_classes: K, None where unknown.
    """

    probabilities: str
    classes: str
    num_classes: int | None


class Model(NamedTuple):
    """A model's own description; each part may be empty in a stranger's file.

    Attributes:
      signature: the one in use, an empty one where there is none.
      signatures: the names of all there are.
      predict: the tensors of the collection `predict`, the prediction first; none where a
        signature was asked for, as then its outputs are the prediction.
      class_names: in label order.
      input_scale: what uint8 values are multiplied by before they are fed to the signature's
        input.
      trained_on: the name of a built-in data set.
      classifier: None where the graph is something else.
      image_shape: height, width and channels of the image that a row of the signature's input
        holds, where the graph says so.
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
        """Argument name -> tensor name, of the signature in use."""
        return self.signature.inputs

    @property
    def outputs(self) -> Mapping[str, str]:
        """Result name -> tensor name, of the signature in use."""
        return self.signature.outputs

    @property
    def feed_keys(self) -> Mapping[str, str]:
        """What a tensor may be called where it is fed; any tensor can be, an output too."""
        return {**self.outputs, **self.inputs}

    @property
    def fetch_keys(self) -> Mapping[str, str]:
        """What a tensor may be called where it is fetched."""
        return {**self.inputs, **self.outputs}


def read_model(meta: MetaGraphFile, signature: str | None = None) -> Model:
    """Reads the signatures and the collections; entries that name no tensor are left out.

    Args:
      meta: the file.
      signature: which one to use; None for `serving_default`, or else the only one.

    Raises:
      CheckpointError: there is no such signature.
    """
    signatures = read_signatures(meta)
    chosen = choose_signature(meta, signatures, signature)
    scales = meta.collection(INPUT_SCALE_COLLECTION).float_list.value
    trained_on = _texts(meta, TRAINED_ON_COLLECTION)
    predict = meta.collection(PREDICT_COLLECTION).node_list.value if signature is None else ()
    return Model(
        signature=chosen,
        signatures=tuple(signatures),
        predict=tuple(name for name in map(meta.find_tensor, predict) if name is not None),
        class_names=_texts(meta, CLASS_NAMES_COLLECTION),
        input_scale=scales[0] if scales else None,
        trained_on=trained_on[0] if trained_on else None,
        classifier=_classifier(meta, chosen.outputs),
        image_shape=_image_shape(meta),
    )


def _classifier(meta: MetaGraphFile, outputs: Mapping[str, str]) -> Classifier | None:
    """The results `probabilities` and `classes`, where they are what their names say."""
    if not {"probabilities", "classes"} <= outputs.keys():
        return None
    try:
        probabilities, classes = describe_tensors(
            meta, (outputs["probabilities"], outputs["classes"])
        )
    except CheckpointError:
        return None  # Whoever fetches them is told why they cannot be had.
    shape = probabilities.shape or ()
    if len(shape) != 2 or len(classes.shape or ()) != 1:
        return None
    if not (probabilities.dtype.is_floating and classes.dtype.is_integer):
        return None
    return Classifier(probabilities.name, classes.name, shape[1])


def _image_shape(meta: MetaGraphFile) -> tuple[int, int, int] | None:
    sizes = meta.collection(IMAGE_SHAPE_COLLECTION).int64_list.value
    if len(sizes) != 3 or min(sizes) < 1:
        return None
    height, width, channels = sizes
    return height, width, channels


def _texts(meta: MetaGraphFile, key: str) -> tuple[str, ...]:
    values = meta.collection(key).bytes_list.value
    return tuple(value.decode("utf-8", errors="replace") for value in values)
