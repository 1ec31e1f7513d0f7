"""What a meta graph says of its model, for whoever predicts with it."""

from collections.abc import Mapping
from typing import NamedTuple

from checkpoints.errors import CheckpointError
from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.meta_graph import (
    CLASS_NAMES_COLLECTION,
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
      inputs: argument name -> tensor name, of the signature `serving_default`.
      outputs: result name -> tensor name, likewise.
      predict: the tensors of the collection `predict`, the prediction first.
      class_names: in label order.
      input_scale: what uint8 values are multiplied by before they are fed to the signature's
        input.
      trained_on: the name of a built-in data set.
      classifier: None where the graph is something else.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    predict: tuple[str, ...]
    class_names: tuple[str, ...]
    input_scale: float | None
    trained_on: str | None
    classifier: Classifier | None


def read_model(meta: MetaGraphFile) -> Model:
    """Reads the signature and the collections; entries that name no tensor are left out."""
    scales = meta.collection(INPUT_SCALE_COLLECTION).float_list.value
    trained_on = _texts(meta, TRAINED_ON_COLLECTION)
    predict = meta.collection(PREDICT_COLLECTION).node_list.value
    # Protobuf maps have no order of their own.
    inputs = {key: info.name for key, info in sorted(meta.signature.inputs.items())}
    outputs = {key: info.name for key, info in sorted(meta.signature.outputs.items())}
    return Model(
        inputs=_tensors(meta, inputs),
        outputs=_tensors(meta, outputs),
        predict=tuple(_tensors(meta, {name: name for name in predict}).values()),
        class_names=_texts(meta, CLASS_NAMES_COLLECTION),
        input_scale=scales[0] if scales else None,
        trained_on=trained_on[0] if trained_on else None,
        classifier=_classifier(meta, _tensors(meta, outputs)),
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


def _tensors(meta: MetaGraphFile, names: Mapping[str, str]) -> dict[str, str]:
    """Those of the named tensors that the graph has."""
    found = {key: meta.find_tensor(name) for key, name in names.items()}
    return {key: name for key, name in found.items() if name is not None}


def _texts(meta: MetaGraphFile, key: str) -> tuple[str, ...]:
    values = meta.collection(key).bytes_list.value
    return tuple(value.decode("utf-8", errors="replace") for value in values)
