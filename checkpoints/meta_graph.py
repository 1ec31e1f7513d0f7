"""The meta graph of a model: what predict needs to know, and nothing it has to guess.

Format: `tensorflow/core/protobuf/meta_graph.proto`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

PREDICT_COLLECTION = "predict"
CLASS_NAMES_COLLECTION = "class_names"
INPUT_SCALE_COLLECTION = "input_scale"
IMAGE_SHAPE_COLLECTION = "image_shape"
TRAINED_ON_COLLECTION = "trained_on"
SIGNATURE = "serving_default"


class Description(NamedTuple):
    """What a meta graph says of its model beside the graph.

    Attributes:
      inputs: argument name -> tensor, of the signature `serving_default`.
      outputs: result name -> tensor, of the signature `serving_default`.
      class_names: in label order; empty where there are none.
      input_scale: what uint8 values are multiplied by before they are fed to the signature's
        input; None where the input is no image.
      trained_on: the name of a built-in data set, where the model was trained on one.
      image_shape: height, width and channels (1 or 3) of the image that a row of the signature's
        input holds, where that is a row of numbers and its shape does not tell.
    """

    inputs: Mapping[str, tf.Tensor]
    outputs: Mapping[str, tf.Tensor]
    class_names: Sequence[str] = ()
    input_scale: float | None = None
    trained_on: str | None = None
    image_shape: tuple[int, int, int] | None = None


def export_meta_graph(graph: tf.Graph, description: Description) -> bytes:
    """Adds a stock Saver to `graph` and returns its MetaGraphDef, serialized.

    The Saver is for clients that restore with `import_meta_graph` and `Saver.restore`. The bytes
    are the same at every call with an equal graph, and hold no device.
    """
    with graph.as_default():
        saver = tf.compat.v1.train.Saver()
        meta_graph = tf.compat.v1.train.export_meta_graph(
            graph=graph,
            saver_def=saver.as_saver_def(),
            clear_devices=True,
            strip_default_attrs=True,
        )
        signature = _signature(description)
    meta_graph.signature_def[SIGNATURE].CopyFrom(signature)
    collections = meta_graph.collection_def
    if description.class_names:
        names = [name.encode() for name in description.class_names]
        collections[CLASS_NAMES_COLLECTION].bytes_list.value.extend(names)
    if description.input_scale is not None:
        collections[INPUT_SCALE_COLLECTION].float_list.value.append(description.input_scale)
    if description.image_shape is not None:
        collections[IMAGE_SHAPE_COLLECTION].int64_list.value.extend(description.image_shape)
    if description.trained_on is not None:
        collections[TRAINED_ON_COLLECTION].bytes_list.value.append(description.trained_on.encode())
    content: bytes = meta_graph.SerializeToString(deterministic=True)
    return content


def _signature(description: Description) -> "tf.core.protobuf.meta_graph_pb2.SignatureDef":
    """The signature `serving_default` as TensorFlow Serving reads it."""
    saved_model = tf.compat.v1.saved_model
    return saved_model.build_signature_def(
        inputs={k: saved_model.build_tensor_info(t) for k, t in description.inputs.items()},
        outputs={k: saved_model.build_tensor_info(t) for k, t in description.outputs.items()},
        method_name=saved_model.signature_constants.PREDICT_METHOD_NAME,
    )
