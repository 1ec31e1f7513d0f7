"""A frozen graph as a SavedModel: one file, its signatures, and the labels as an asset.

Format: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/protobuf/meta_graph.proto`.
"""

import os
from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpoints import durable
from checkpoints.loading.fed_tensors import free_scope
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.meta_graph import SIGNATURE
from tools.exporting.image_bytes import ImageInput, rows_from_files
from tools.exporting.labels import LABELS_FILE, labels_text
from tools.exporting.second_copy import import_second_copy
from tools.freezing.frozen_graph import FrozenGraph
from tools.freezing.tables import TABLE_INITIALIZERS

SERVE = tf.compat.v1.saved_model.tag_constants.SERVING
BYTES_SIGNATURE = "serving_bytes"
BYTES_KEY = "image_bytes"

_START = tf.compat.v1.saved_model.constants.MAIN_OP_KEY
_FILE = "saved_model.pb"
_ASSETS = "assets"
_SCHEMA_VERSION = 1  # `saved_model_schema_version`: the only one there has been.


def as_saved_model(
    frozen: FrozenGraph, image: ImageInput | None = None, class_names: Sequence[str] = ()
) -> SavedModel:
    """The content of the file.

    Args:
      frozen: the graph; its tensors keep their names.
      image: the input that the signature `BYTES_SIGNATURE` computes from image files; None for no
        such signature.
      class_names: of the labels that are the asset; none for no asset.
    """
    file = MetaGraphFile("", "", frozen.meta)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.meta.graph_def, name="")
        signatures = {SIGNATURE: _signature(graph, frozen.inputs, frozen.outputs)}
        if image is not None:
            signatures[BYTES_SIGNATURE] = _bytes_signature(graph, frozen, file, image)
        start = _start(graph, file)
        if class_names:
            asset = tf.constant(LABELS_FILE, name=f"{free_scope(file, 'labels')}/file")
        meta = tf.compat.v1.train.export_meta_graph(
            graph=graph, clear_devices=True, strip_default_attrs=True
        )
    _describe(meta, frozen.meta, signatures)
    if start is not None:
        meta.collection_def[_START].node_list.value.append(start.name)
    if class_names:
        meta.asset_file_def.add(filename=LABELS_FILE).tensor_info.name = asset.name
    return SavedModel(saved_model_schema_version=_SCHEMA_VERSION, meta_graphs=[meta])


def _start(graph: tf.Graph, file: MetaGraphFile) -> tf.Operation | None:
    """Adds what a loader runs once, to fill the lookup tables; None where there are none."""
    fill = [
        graph.get_operation_by_name(name)
        for name in file.collection(TABLE_INITIALIZERS).node_list.value
    ]
    return tf.group(*fill, name=free_scope(file, "fill_tables")) if fill else None


def write_saved_model(model: SavedModel, folder: str, class_names: Sequence[str] = ()) -> None:
    """Writes the file and the assets into an empty folder.

    Args:
      model: what `as_saved_model` has made.
      folder: that exists.
      class_names: as of `as_saved_model`.

    Raises:
      tf.errors.OpError, OSError: the disk refused.
    """
    if class_names:
        tf.io.gfile.makedirs(os.path.join(folder, _ASSETS))
        durable.write_file(os.path.join(folder, _ASSETS, LABELS_FILE), labels_text(class_names))
    content = model.SerializeToString(deterministic=True)
    durable.write_file(os.path.join(folder, _FILE), content)


def _describe(
    meta: MetaGraphDef, frozen: MetaGraphDef, signatures: Mapping[str, SignatureDef]
) -> None:
    """Gives the meta graph its tag, its signatures and what the frozen one says of its model."""
    meta.meta_info_def.tags[:] = [SERVE]
    for key, collection in frozen.collection_def.items():
        meta.collection_def[key].CopyFrom(collection)
    for name, signature in signatures.items():
        meta.signature_def[name].CopyFrom(signature)


def _signature(
    graph: tf.Graph, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> SignatureDef:
    """One that TensorFlow Serving predicts by."""
    saved_model = tf.compat.v1.saved_model

    def infos(names: Mapping[str, str]) -> dict[str, tf.Tensor]:
        return {
            key: saved_model.build_tensor_info(graph.get_tensor_by_name(name))
            for key, name in names.items()
        }

    method = saved_model.signature_constants.PREDICT_METHOD_NAME
    return saved_model.build_signature_def(infos(inputs), infos(outputs), method)


def _bytes_signature(
    graph: tf.Graph, frozen: FrozenGraph, file: MetaGraphFile, image: ImageInput
) -> SignatureDef:
    """Adds to the default graph what computes the outputs from image files."""
    rows = image.info.shape[0] if image.info.shape else None
    scope = free_scope(file, BYTES_SIGNATURE)
    files = tf.compat.v1.placeholder(tf.string, [rows], free_scope(file, BYTES_KEY))
    with tf.name_scope(f"{scope}/"):
        values = rows_from_files(files, image)
    outputs = import_second_copy(graph, frozen, {image.info.name: values}, f"{scope}/model")
    others = {key: name for key, name in frozen.inputs.items() if key != image.key}
    return _signature(graph, {BYTES_KEY: files.name, **others}, outputs)
