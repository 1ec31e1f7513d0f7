"""A frozen graph as a SavedModel, and the image files that it takes.

Its version folders are those that TensorFlow Serving watches, `<model>/1` and so on. Image files
are decoded, resized and scaled inside the graph, to the pixels that predict.py feeds; but no
operation of TensorFlow reads EXIF data: images are not turned.

`tf.image.resize(..., antialias=True)` does not round between its two passes, as Pillow does: one
pixel in six of a photo would differ. Here Pillow's own arithmetic is done over, in whole numbers
that float64 holds exactly.

Format: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/protobuf/meta_graph.proto`.
Source: `src/libImaging/Resample.c` of Pillow, `ImagingResample` for 8 bits per channel.
"""

import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import file_io
from checkpoints.layout import SIGNATURE
from checkpoints.lock import FolderLock
from data.files import refusals_as_data_errors
from data.images import decode_image
from errors import ToolError
from file_io import names_in
from metagraph.description import Array, Model, TensorInfo
from metagraph.importing import reason_of_run
from metagraph.meta import MetaGraphFile, node_of
from metagraph.safety import RUN, TimeLimit
from metagraph.session import free_scope
from prediction.file_inputs import Target, array_rows
from tools.command import quiet
from tools.export import ExportConfig
from tools.freezing import Reference, largest_difference, run_frozen
from tools.frozen_graph import TABLE_INITIALIZERS, FrozenGraph, signature_of

CONVERSION = "the conversion"
BYTES_SIGNATURE, BYTES_KEY = "serving_bytes", "image_bytes"
LABELS_FILE = "labels.txt"
_SERVE = tf.compat.v1.saved_model.tag_constants.SERVING
_START = tf.compat.v1.saved_model.constants.MAIN_OP_KEY
_SCHEMA_VERSION = 1  # `saved_model_schema_version`: the only one there has been.
_NUMBER = re.compile(r"[0-9]{1,18}")
_BEING_WRITTEN = ".being-written"
_LEFT = re.compile(rf"[0-9]+(\.[0-9a-f]+)?{re.escape(_BEING_WRITTEN)}")  # Some have had a number.
_PRECISION_BITS = 32 - 8 - 2  # Of a weight, as Pillow has it.
_ONE = 2.0**_PRECISION_BITS
# The weights of ITU-R BT.601 in 16 bits, as Pillow's conversion to its mode "L" has them.
_GREY_WEIGHTS = (19595, 38470, 7471)
_GREY_ONE = 1 << 16


class ImageInput(NamedTuple):
    """An input of a model that takes images, by the key of the signature.

    Its tensor `info` is [N, size, size, channels], or flat, [N, size * size * channels]; there are
    3 channels for colour, 1 for grey. `scale` is what uint8 values are multiplied by, if anything.
    """

    key: str
    info: TensorInfo
    size: int
    channels: int
    scale: float | None


def find_image_input(inputs: Mapping[str, TensorInfo], model: Model) -> ImageInput | None:
    """The one input that takes images, as predict.py tells it; None where not one alone does."""
    found = []
    for key, info in inputs.items():
        image = Target(info, None, (), None, model.image_shape).image
        if image is not None and image[0] and info.dtype.is_floating:
            found.append(ImageInput(key, info, image[0], image[2], model.input_scale))
    if len(found) != 1:
        return None
    if found[0].scale is None:
        logging.warning(
            "the graph records no scale for images: the signature that takes image files feeds "
            "%s as 0 to 255",
            found[0].info.name,
        )
    return found[0]


def rows_from_files(files: tf.Tensor, image: ImageInput) -> tf.Tensor:
    """What the model takes, computed from image files in the default graph.

    PNG and JPEG are decoded to the pixels that Pillow gives, and resized to them: transparency is
    dropped, of 16 bits per channel the upper 8 are taken, and no image is turned.

    Takes string [N], the bytes of a file each; gives the dtype and shape of `image.info`.
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
    """One image file: uint8 [size, size, channels]."""
    # It decodes PNG as well, and it alone has a choice of how exactly.
    decoded = tf.raw_ops.DecodeJpeg(contents=content, channels=3, dct_method="INTEGER_ACCURATE")
    resized = resize_bilinear(decoded, image.size)  # [size, size, 3]
    if image.channels == 3:
        return resized
    weighted = tf.cast(resized, tf.int32) * tf.constant(_GREY_WEIGHTS, tf.int32)
    sums = tf.reduce_sum(weighted, axis=-1, keepdims=True)  # [size, size, 1]
    return tf.cast((sums + _GREY_ONE // 2) // _GREY_ONE, tf.uint8)


def resize_bilinear(image: tf.Tensor, size: int) -> tf.Tensor:
    """`Image.resize` with `BILINEAR`: uint8 [H, W, C], of any size, to [size, size, C]."""
    height, width = tf.unstack(tf.shape(image)[:2])
    pixels = tf.cast(image, tf.float64)
    rows = _rounded(tf.einsum("sw,hwc->hsc", _weights(width, size), pixels))  # [H, size, C]
    resized = _rounded(tf.einsum("sh,hwc->swc", _weights(height, size), rows))
    return tf.cast(resized, tf.uint8)


def _weights(length: tf.Tensor, size: int) -> tf.Tensor:
    """How much of each pixel along one side, int32 [], goes into each resized one.

    Gives float64 [size, length], whole numbers; each row's sum is about `_ONE`.
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


def export_saved_model(
    config: ExportConfig, frozen: FrozenGraph, reference: Reference
) -> tuple[str, Mapping[str, Mapping[str, TensorInfo]], float]:
    """Writes a new version, and keeps it if it computes what the session does, on files too.

    Returns its folder, the inputs of its signatures, and the largest difference.
    """
    limit, image = config.limit, find_image_input(frozen.inputs, frozen.plan.model)
    path = os.path.join(config.output, str(next_version(config.output)))
    with refusals_as_data_errors(config.output), new_version(path) as folder:
        with limit.over(CONVERSION):
            signatures = write_saved_model(frozen, folder, image)
        found = run_saved_model(folder, SIGNATURE, reference.feeds, limit)
        difference = largest_difference(reference, found, "the SavedModel", config.tolerance)
        if image is not None:
            contents = _example_files(image, reference.feeds)
            rows = {image.info.name: _rows_of(contents, image)}
            asked = reference._replace(feeds={**reference.feeds, **rows})
            asked = asked._replace(results=run_frozen(frozen, asked, config))
            fed = {signatures[BYTES_SIGNATURE][BYTES_KEY].name: np.array(contents, object)}
            found = run_saved_model(folder, BYTES_SIGNATURE, {**reference.feeds, **fed}, limit)
            what = "the SavedModel on image files"
            on_files = largest_difference(asked, found, what, config.tolerance)
            difference = max(difference, on_files)
    return path, signatures, difference


def _example_files(image: ImageInput, batch: Mapping[str, Array]) -> list[bytes]:
    """As many image files of noise as a batch has rows, neither of the model's size nor square."""
    rng, files = np.random.default_rng(0), []
    for _ in batch[image.info.name]:
        pixels = rng.integers(0, 256, (image.size + 5, 2 * image.size + 3, 3), np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        files.append(content.getvalue())
    return files


def _rows_of(files: list[bytes], image: ImageInput) -> Array:
    """What predict.py would feed for image files; of the dtype and shape of `image.info`."""
    pixels = np.stack([decode_image(f, "example", image.size, image.channels) for f in files])
    rows = pixels if len(image.info.shape or ()) == 4 else pixels.reshape(len(files), -1)
    return array_rows(rows, image.info, "example", image.scale).take(np.arange(len(files)))


# The model's folder, and what is in that of a version.


def as_lines(class_names: Sequence[str]) -> list[str]:
    """Each name on one line: a line break inside of one, were there any, is a space."""
    return [" ".join(name.splitlines()) for name in class_names]


def labels_text(class_names: Sequence[str]) -> bytes:
    """The file's content in UTF-8."""
    return "".join(f"{line}\n" for line in as_lines(class_names)).encode()


def write_saved_model(
    frozen: FrozenGraph, folder: str, image: ImageInput | None = None
) -> dict[str, Mapping[str, TensorInfo]]:
    """Writes a SavedModel into an empty folder; returns the inputs of its signatures.

    Tensors keep their names. With an `image`, there is a signature `BYTES_SIGNATURE` too: where
    this input is not fed, it is computed from image files. Class names are an asset.
    """
    meta, inputs = _serving_graph(frozen, image)
    if names := frozen.plan.model.class_names:
        assets = os.path.join(folder, "assets")
        tf.io.gfile.makedirs(assets)
        file_io.write_file(os.path.join(assets, LABELS_FILE), labels_text(names))
        file_io.flush(assets)
    model = SavedModel(saved_model_schema_version=_SCHEMA_VERSION, meta_graphs=[meta])
    content = model.SerializeToString(deterministic=True)
    file_io.write_file(os.path.join(folder, "saved_model.pb"), content)
    return inputs


def _serving_graph(
    frozen: FrozenGraph, image: ImageInput | None
) -> tuple[MetaGraphDef, dict[str, Mapping[str, TensorInfo]]]:
    """What a SavedModel holds, and the inputs of its signatures."""
    file, inputs = MetaGraphFile("", "", frozen.meta), {SIGNATURE: frozen.inputs}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.meta.graph_def, name="")
        if image is not None:
            rows = image.info.shape[0] if image.info.shape else None
            contents = tf.compat.v1.placeholder(tf.string, [rows], free_scope(file, BYTES_KEY))
            with tf.name_scope(f"{free_scope(file, BYTES_SIGNATURE)}/"):
                values = rows_from_files(contents, image)
            others = {key: info for key, info in frozen.inputs.items() if key != image.key}
            encoded = TensorInfo(contents.name, tf.string, (rows,))
            inputs[BYTES_SIGNATURE] = {BYTES_KEY: encoded, **others}
        names = file.collection(TABLE_INITIALIZERS).node_list.value
        fill = [graph.get_operation_by_name(name) for name in names]
        start = tf.group(*fill, name=free_scope(file, "fill_tables")) if fill else None
        if frozen.plan.model.class_names:
            asset = tf.constant(LABELS_FILE, name=f"{free_scope(file, 'labels')}/file")
        meta = tf.compat.v1.train.export_meta_graph(
            graph=graph, clear_devices=True, strip_default_attrs=True
        )
    if image is not None:
        (fed,) = (n for n in meta.graph_def.node if n.name == node_of(image.info.name))
        fed.op = "PlaceholderWithDefault"
        fed.input.append(values.op.name)
    meta.meta_info_def.tags[:] = [_SERVE]
    for key, collection in frozen.meta.collection_def.items():
        meta.collection_def[key].CopyFrom(collection)
    for key, infos in inputs.items():
        meta.signature_def[key].CopyFrom(signature_of(infos, frozen.plan.outputs))
    if start is not None:
        meta.collection_def[_START].node_list.value.append(start.name)
    if frozen.plan.model.class_names:
        meta.asset_file_def.add(filename=LABELS_FILE).tensor_info.name = asset.name
    return meta, inputs


def run_saved_model(
    folder: str, signature: str, values: Mapping[str, Array], time_limit: TimeLimit
) -> dict[str, Array]:
    """What a SavedModel computes, loaded as a server does; ToolError where it does not run.

    Values and results are by the names of tensors. The folder may hold only what has been checked.
    """
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    # Each step of the rewriting of graphs would take a copy of all weights.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1  # L0; 0 is its default, L1.
    with (
        quiet(),
        time_limit.over(RUN),
        tf.Graph().as_default() as graph,
        tf.compat.v1.Session(graph=graph, config=config) as session,
    ):
        try:
            meta = tf.compat.v1.saved_model.load(session, [_SERVE], folder)
            found = meta.signature_def[signature]
            names = {info.name for info in found.outputs.values()}
            feeds = {info.name: values[info.name] for info in found.inputs.values()}
            results = session.run({name: name for name in names}, feeds)
        except tf.errors.OpError as error:
            raise ToolError(f"the SavedModel does not run{reason_of_run(error)}") from error
    return {  # A single text comes as bytes, not as an array.
        name: np.asarray(result, object if isinstance(result, bytes) else None)
        for name, result in results.items()
    }


def next_version(folder: str) -> int:
    """The version to write into a model's folder, which need not exist: one above the highest."""
    if not file_io.exists(folder):
        return 1
    if not tf.io.gfile.isdir(folder):
        raise ToolError(f"--output={folder} is a file; a SavedModel is a folder of versions")
    return 1 + max((int(n) for n in names_in(folder) if _NUMBER.fullmatch(n)), default=0)


@contextmanager
def new_version(path: str) -> Iterator[str]:
    """A folder to write a version into, which is at `path` where no error comes, or gone.

    A server loads a folder with the name of a number as soon as it is there: it is written under
    another name and renamed. The model's folder is locked meanwhile, and what exports that were
    killed have left there goes. Raises CheckpointError where another export has the lock, OSError
    or tf.errors.OpError where the disk refuses.
    """
    folder, temporary = os.path.dirname(path), path + _BEING_WRITTEN
    is_new = not tf.io.gfile.isdir(folder)
    tf.io.gfile.makedirs(folder)
    try:
        with FolderLock(folder, "take another --output", keeps_file=False):
            for left in filter(_LEFT.fullmatch, names_in(folder)):
                tf.io.gfile.rmtree(os.path.join(folder, left))
            try:
                tf.io.gfile.makedirs(temporary)
                yield temporary
                file_io.flush(temporary)
                tf.io.gfile.rename(temporary, path)
            finally:
                if tf.io.gfile.exists(temporary):
                    tf.io.gfile.rmtree(temporary)
            file_io.flush(folder)
    finally:
        if is_new and not names_in(folder):
            tf.io.gfile.rmtree(folder)
