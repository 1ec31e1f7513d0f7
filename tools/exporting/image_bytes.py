"""Decodes, resizes and scales image files inside a graph, as `data/image_file.py` does outside.

But no operation of TensorFlow reads EXIF data: images are not turned.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from checkpoints.loading.tensor_info import TensorInfo
from prediction.model import Model
from prediction.target import Target
from tools.exporting.pillow_resize import resize_bilinear

# As `data.image_file.to_grey` has them: the weights of ITU-R BT.601 in 16 bits.
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
