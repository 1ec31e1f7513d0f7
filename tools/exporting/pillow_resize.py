"""Resizes an image inside a graph to the very pixels that Pillow gives.

`tf.image.resize(..., antialias=True)` has the same filter, but does not round between its two
passes, as Pillow does, so that one pixel in six of a photo differs by one level; without
antialias, nearly all differ, by up to 150. Here Pillow's own arithmetic is done over, in whole
numbers that float64 holds exactly.

Source: `src/libImaging/Resample.c` of Pillow, `ImagingResample` for 8 bits per channel.
"""

import tensorflow as tf

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
