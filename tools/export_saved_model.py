"""A frozen graph as a SavedModel: one file, its signatures, and the labels as an asset.

A signature may take image files: they are decoded, resized and scaled inside the graph, to the very
pixels that `data/images.py` gives outside. The model is tried as a server runs it: loaded from its
folder, by its signatures.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpoints import file_io
from checkpoints.manifest import SIGNATURE
from data.images import decode_image, to_grey
from errors import ToolError
from metagraph.casting import Array
from metagraph.importing import reason_of_run
from metagraph.meta import MetaGraphFile, TensorInfo, node_of
from metagraph.model import Model
from metagraph.safety import RUN, TimeLimit
from metagraph.values import free_scope
from prediction.file_inputs import Target
from prediction.rows import ArrayRows
from tools.command import quiet
from tools.frozen_graph import TABLE_INITIALIZERS, FrozenGraph

LABELS_FILE = "labels.txt"


def labels_text(class_names: Sequence[str]) -> bytes:
    """The file's content in UTF-8."""
    return "".join(f"{line}\n" for line in as_lines(class_names)).encode()


def as_lines(class_names: Sequence[str]) -> list[str]:
    """Each name on one line: a line break inside of one, were there any, is a space."""
    return [" ".join(name.splitlines()) for name in class_names]


# A graph once more in the same graph, on other inputs and with the same constants.


def import_second_copy(
    graph: tf.Graph, frozen: FrozenGraph, values: Mapping[str, tf.Tensor], scope: str
) -> dict[str, str]:
    """Imports what computes into the default graph again, under another scope.

    What takes nothing is that of the first copy: constants, which hold the weights, so that the
    file grows by kilobytes, and tables, which are filled once; so are inputs that are not replaced.
    (A constant inside of a loop takes something: it waits for the loop.)

    Args:
      graph: the default graph, with the first copy under its own names.
      frozen: what the first copy was imported from.
      values: what some of its inputs are in the second copy, by full name.
      scope: no node of the graph may be in it.

    Returns:
      The outputs of the second copy: key -> full tensor name.
    """
    graph_def = frozen.meta.graph_def
    inputs = {node_of(name) for name in frozen.inputs.values()}
    shared = {node.name for node in graph_def.node if node.name in inputs or not node.input}
    copy = GraphDef(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if node.name not in shared:
            _copy(node, copy.node.add(), shared)
    taken = {_full(text) for node in copy.node for text in node.input if text[0] != "^"}
    mapped = {
        name: values[name] if name in values else graph.get_tensor_by_name(name)
        for name in taken
        if node_of(name) in shared
    }
    tf.import_graph_def(copy, input_map=mapped, name=scope)

    def in_the_copy(name: str) -> str:
        if name in values:
            return str(values[name].name)
        return name if node_of(name) in shared else f"{scope}/{name}"

    return {key: in_the_copy(name) for key, name in frozen.outputs.items()}


def _copy(node: NodeDef, copied: NodeDef, shared: Set[str]) -> None:
    """Copies a node; for what is shared, which only gives a value, it does not wait."""
    copied.CopyFrom(node)
    kept = [text for text in node.input if text[0] != "^" or text[1:] not in shared]
    copied.input[:] = kept


def _full(text: str) -> str:
    return text if ":" in text else f"{text}:0"


# Resizes an image inside a graph to the very pixels that Pillow gives.
#
# `tf.image.resize(..., antialias=True)` has the same filter, but does not round between its two
# passes, as Pillow does, so that one pixel in six of a photo differs by one level; without
# antialias, nearly all differ, by up to 150. Here Pillow's own arithmetic is done over, in whole
# numbers that float64 holds exactly.
#
# Source: `src/libImaging/Resample.c` of Pillow, `ImagingResample` for 8 bits per channel.

_PRECISION_BITS = 32 - 8 - 2  # Of a weight, as Pillow has it.
_ONE = 2.0**_PRECISION_BITS


def resize_bilinear(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes an image as a whole to a square, as `Image.resize` does with `BILINEAR`.

    Args:
      image: uint8 [H, W, C], of any size.
      size: pixels of either side.

    Returns:
      uint8 [size, size, C].
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    pixels = tf.cast(image, tf.float64)
    rows = _rounded(tf.einsum("sw,hwc->hsc", _weights(width, size), pixels))  # [H, size, C]
    resized = _rounded(tf.einsum("sh,hwc->swc", _weights(height, size), rows))
    return tf.cast(resized, tf.uint8)


def _weights(length: tf.Tensor, size: int) -> tf.Tensor:
    """How much of each pixel along one side goes into each resized one.

    Args:
      length: int32 [], pixels along that side.
      size: resized pixels along it.

    Returns:
      float64 [size, length], whole numbers; each row's sum is about `_ONE`.
    """
    scale = tf.cast(length, tf.float64) / size
    centers = (tf.range(size, dtype=tf.float64) + 0.5) * scale
    pixels = tf.range(tf.cast(length, tf.float64), dtype=tf.float64) + 0.5
    reach = tf.maximum(scale, 1.0)  # Where the image shrinks, each pixel counts somewhere.
    distances = tf.abs(pixels[tf.newaxis, :] - centers[:, tf.newaxis]) / reach
    triangle = tf.maximum(1.0 - distances, 0.0)
    shares = triangle / tf.reduce_sum(triangle, axis=1, keepdims=True)
    return tf.floor(shares * _ONE + 0.5)


def _rounded(sums: tf.Tensor) -> tf.Tensor:
    """Weighted sums to levels, 0 to 255, halves upwards."""
    return tf.clip_by_value(tf.floor(sums / _ONE + 0.5), 0.0, 255.0)


# Decodes, resizes and scales image files inside a graph, as `data/images.py` does outside.
#
# But no operation of TensorFlow reads EXIF data: images are not turned.

# As `data.images.to_grey` has them: the weights of ITU-R BT.601 in 16 bits.
_GREY_WEIGHTS = (19595, 38470, 7471)
_GREY_ONE, _GREY_HALF = 1 << 16, 1 << 15


class ImageInput(NamedTuple):
    """An input of a model that takes images.

    Attributes:
      key: of the signature.
      info: its tensor, [N, size, size, channels], or flat, [N, size * size * channels].
      size: pixels of either side.
      channels: 3 for colour, 1 for grey.
      scale: what uint8 values are multiplied by; None for nothing.
    """

    key: str
    info: TensorInfo
    size: int
    channels: int
    scale: float | None


def find_image_input(inputs: Mapping[str, TensorInfo], model: Model) -> ImageInput | None:
    """The input that takes images, told as predict.py tells it; None where not one alone does.

    Args:
      inputs: all inputs of the signature, by key.
      model: what the file says of itself.
    """
    found = [image for key in inputs if (image := _as_image(key, inputs[key], model)) is not None]
    if len(found) != 1:
        return None
    if found[0].scale is None:
        logging.warning(
            "the graph records no scale for images: the signature that takes image files feeds "
            "%s as 0 to 255",
            found[0].info.name,
        )
    return found[0]


def _as_image(key: str, info: TensorInfo, model: Model) -> ImageInput | None:
    flat = Target(info, None, (), None, model.image_shape).flat_image
    shape = flat or (info.shape[1:] if info.shape and len(info.shape) == 4 else ())
    if not info.dtype.is_floating or len(shape) != 3:
        return None
    height, width, channels = shape
    if not height or height != width or channels not in (1, 3):
        return None
    return ImageInput(key, info, height, channels, model.input_scale)


def rows_from_files(files: tf.Tensor, image: ImageInput) -> tf.Tensor:
    """What the model takes, computed from image files in the default graph.

    PNG and JPEG are decoded to the pixels that Pillow gives, and resized to them: transparency is
    dropped, of 16 bits per channel the upper 8 are taken, and no image is turned.

    Args:
      files: string [N], the bytes of a file each.
      image: what the model takes.

    Returns:
      Of the dtype and shape of `image.info`.
    """
    pixels = tf.map_fn(
        lambda content: _pixels(content, image),
        files,
        fn_output_signature=tf.TensorSpec([image.size, image.size, image.channels], tf.uint8),
    )
    values = tf.cast(pixels, tf.float32)
    if image.scale is not None:
        values *= tf.constant(image.scale, tf.float32)
    shape = [-1 if size is None else size for size in image.info.shape or ()]
    if len(shape) == 2:
        values = tf.reshape(values, [shape[0], math.prod(pixels.shape[1:])])
    return tf.cast(values, image.info.dtype)


def _pixels(content: tf.Tensor, image: ImageInput) -> tf.Tensor:
    """One image file: uint8 [size, size, channels].

    The operation for JPEG decodes PNG as well, and it alone has a choice of how exactly.
    """
    decoded = tf.raw_ops.DecodeJpeg(contents=content, channels=3, dct_method="INTEGER_ACCURATE")
    resized = resize_bilinear(decoded, image.size)
    return _grey(resized) if image.channels == 1 else resized


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    """The brightness of each pixel: uint8 [..., 3] to uint8 [..., 1]."""
    weighted = tf.cast(pixels, tf.int32) * tf.constant(_GREY_WEIGHTS, tf.int32)
    sums = tf.reduce_sum(weighted, axis=-1, keepdims=True) + _GREY_HALF
    return tf.cast(sums // _GREY_ONE, tf.uint8)


# A frozen graph as a SavedModel: one file, its signatures, and the labels as an asset.
#
# Format: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/protobuf/meta_graph.proto`.

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
        file_io.write_file(os.path.join(folder, _ASSETS, LABELS_FILE), labels_text(class_names))
    content = model.SerializeToString(deterministic=True)
    file_io.write_file(os.path.join(folder, _FILE), content)


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


# Runs a SavedModel as a server does: loaded from its folder, by its signatures.


def run_saved_model(
    folder: str, signature: str, values: Mapping[str, Array], time_limit: TimeLimit
) -> dict[str, Array]:
    """What a SavedModel computes, in a session.

    Args:
      folder: of one version; it holds only what has been checked.
      signature: one of its own.
      values: of the inputs, by the signature's keys.
      time_limit: of the loading with the run.

    Returns:
      The outputs, by the signature's keys.

    Raises:
      ToolError: it cannot be loaded or run.
    """
    with (
        quiet(),
        time_limit.over(RUN),
        tf.Graph().as_default() as graph,
        tf.compat.v1.Session(graph=graph, config=_as_it_is()) as session,
    ):
        try:
            meta = tf.compat.v1.saved_model.load(session, [SERVE], folder)
            found = meta.signature_def[signature]
            fetches = {key: info.name for key, info in found.outputs.items()}
            feeds = {found.inputs[key].name: value for key, value in values.items()}
            results: dict[str, Array] = session.run(fetches, feeds)
        except tf.errors.OpError as error:
            raise ToolError(f"the SavedModel does not run{reason_of_run(error)}") from error
    return {key: _as_array(result) for key, result in results.items()}


def _as_it_is() -> tf.compat.v1.ConfigProto:
    """Without the rewriting of the graph, each step of which takes a copy of all weights."""
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1  # L0; 0 is its default, L1.
    return config


def _as_array(result: Array | bytes) -> Array:
    """A single string comes as bytes."""
    return np.asarray(result, object) if isinstance(result, bytes) else np.asarray(result)


def example_files(image: ImageInput, rows: int) -> list[bytes]:
    """Image files of noise, neither of the model's size nor square.

    Args:
      image: what the model takes.
      rows: how many.
    """
    rng = np.random.default_rng(0)
    height, width = image.size + 5, 2 * image.size + 3
    return [_as_png(rng.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(rows)]


def rows_of(files: list[bytes], image: ImageInput) -> Array:
    """What predict.py would feed for image files; of the dtype and shape of `image.info`."""
    pixels = np.stack([decode_image(content, "example", image.size) for content in files])
    pixels = to_grey(pixels) if image.channels == 1 else pixels
    rows = pixels if len(image.info.shape or ()) == 4 else pixels.reshape(len(files), -1)
    return ArrayRows(rows, image.info, "example", image.scale).batch(0, len(files))


def _as_png(pixels: Array) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
