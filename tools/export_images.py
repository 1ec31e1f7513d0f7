"""Decodes, resizes and scales image files inside a graph, to the pixels that predict.py feeds.

But no operation of TensorFlow reads EXIF data: images are not turned.

`tf.image.resize(..., antialias=True)` has Pillow's filter, but does not round between its two
passes, as Pillow does, so that one pixel in six of a photo differs by one level; without antialias,
nearly all differ, by up to 150. Here Pillow's own arithmetic is done over, in whole numbers that
float64 holds exactly.

Source: `src/libImaging/Resample.c` of Pillow, `ImagingResample` for 8 bits per channel.
"""

import io
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from data.images import decode_image
from metagraph.description import Array, Model, TensorInfo
from prediction.file_inputs import Target, array_rows

_PRECISION_BITS = 32 - 8 - 2  # Of a weight, as Pillow has it.
_ONE = 2.0**_PRECISION_BITS
# The weights of ITU-R BT.601 in 16 bits, as Pillow's conversion to its mode "L" has them.
_GREY_WEIGHTS = (19595, 38470, 7471)
_GREY_ONE, _GREY_HALF = 1 << 16, 1 << 15


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
    """The one of a signature's inputs that takes images, told as predict.py tells it.

    None where not one alone does.
    """
    found = []
    for key, info in inputs.items():
        flat = Target(info, None, (), None, model.image_shape).flat_image
        shape = flat or (info.shape[1:] if info.shape and len(info.shape) == 4 else ())
        if info.dtype.is_floating and len(shape) == 3:
            height, width, channels = shape
            if height and height == width and channels in (1, 3):
                found.append(ImageInput(key, info, height, channels, model.input_scale))
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


def resize_bilinear(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes an image as a whole to a square, as `Image.resize` does with `BILINEAR`.

    Takes uint8 [H, W, C], of any size; gives uint8 [size, size, C].
    """
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


def example_files(image: ImageInput, batch: Mapping[str, Array]) -> list[bytes]:
    """As many image files of noise as a batch has rows, neither of the model's size nor square."""
    rng, files = np.random.default_rng(0), []
    for _ in batch[image.info.name]:
        pixels = rng.integers(0, 256, (image.size + 5, 2 * image.size + 3, 3), np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        files.append(content.getvalue())
    return files


def rows_of(files: list[bytes], image: ImageInput) -> Array:
    """What predict.py would feed for image files; of the dtype and shape of `image.info`."""
    pixels = np.stack([decode_image(f, "example", image.size, image.channels) for f in files])
    rows = pixels if len(image.info.shape or ()) == 4 else pixels.reshape(len(files), -1)
    return array_rows(rows, image.info, "example", image.scale).batch(0, len(files))
