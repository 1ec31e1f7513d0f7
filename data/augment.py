"""Shifted and mirrored copies of training images: a pure function of (seed, step)."""

import numpy as np

from data.random_bits import Stream, raw_bits
from data.source import Array, Indices

MAX_SHIFT = 4  # pixels


def augment(images: Array, seed: int, step: int) -> Array:
    """Shifts each image by up to `MAX_SHIFT` pixels along both axes, and mirrors every other one.

    The shifts are uniform in [-MAX_SHIFT, MAX_SHIFT] and the mirroring, left to right, has
    probability 1/2, all independent: the augmentation of He et al., "Deep residual learning for
    image recognition", CVPR 2016, section 4.2, with the image's edge repeated in place of zeros.

    Args:
      images: [B, H, W, C] of any dtype; not changed.
      seed: the run's seed, 0 or more.
      step: of the batch, 0 or more. What happens to image i follows from (seed, step, i).

    Returns:
      [B, H, W, C] of the same dtype, new.
    """
    count, height, width, channels = images.shape
    bits = raw_bits(count, seed, Stream.AUGMENTATION, step)
    rows = _shifted(height, bits & 0xFFFF_FFFF)  # [B, H]
    columns = _shifted(width, bits >> 32 & 0x7FFF_FFFF)  # [B, W]
    mirrored = (bits >> 63).astype(bool)
    columns[mirrored] = columns[mirrored, ::-1]
    first_rows = np.arange(count)[:, np.newaxis] * height
    pixels = ((first_rows + rows) * width)[:, :, np.newaxis] + columns[:, np.newaxis]  # [B, H, W]
    return images.reshape(-1, channels).take(pixels, axis=0)


def _shifted(size: int, bits: Array) -> Indices:
    """Where along an axis each pixel comes from, [B, size]; beyond the edge, from the edge."""
    shifts = (bits % (2 * MAX_SHIFT + 1)).astype(np.int64) - MAX_SHIFT
    return np.clip(np.arange(size) + shifts[:, np.newaxis], 0, size - 1)
