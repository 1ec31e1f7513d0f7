"""Images are resized to the pixels that Pillow gives, to the bit."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tools.export_images import resize_bilinear

SHAPES = [(1, 1), (5, 9), (32, 32), (33, 47), (64, 64), (20, 700), (375, 500), (1080, 131)]


@pytest.mark.parametrize("size", [12, 32, 224])
@pytest.mark.parametrize("kind", ["noise", "extremes"])
def test_equal_to_pillow(size: int, kind: str) -> None:
    rng = np.random.default_rng(size)
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    if kind == "extremes":
        images = [np.where(image < 128, 0, 255).astype(np.uint8) for image in images]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        image = tf.compat.v1.placeholder(tf.uint8, [None, None, 3])
        resized = resize_bilinear(image, size)
        ours = [session.run(resized, {image: pixels}) for pixels in images]
    for pixels, found in zip(images, ours, strict=True):
        bilinear = Image.Resampling.BILINEAR
        theirs = np.asarray(Image.fromarray(pixels).resize((size, size), bilinear))
        np.testing.assert_array_equal(found, theirs)


def test_a_grey_image_has_one_channel() -> None:
    pixels = np.arange(42, dtype=np.uint8).reshape(6, 7, 1)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        found = session.run(resize_bilinear(tf.constant(pixels), 4))
    theirs = Image.fromarray(pixels[..., 0]).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[..., 0], np.asarray(theirs))
