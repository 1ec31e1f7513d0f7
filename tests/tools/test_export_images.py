"""Image files in a graph become what predict.py feeds for them, to the bit."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from data.images import decode_image
from metagraph.description import NO_SIGNATURE, Model, TensorInfo
from tests.data.conftest import encode
from tools.export_saved_model import ImageInput, find_image_input, resize_bilinear, rows_from_files

Array = npt.NDArray[Any]
SHAPES = [(1, 1), (5, 9), (32, 32), (33, 47), (64, 64), (20, 700), (375, 500), (1080, 131)]


@pytest.mark.parametrize("size", [12, 32, 224])
def test_they_are_resized_as_pillow_does(size: int) -> None:
    rng = np.random.default_rng(size)
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    images += [np.where(image < 128, 0, 255).astype(np.uint8) for image in images]
    images.append(images[5][:, :, :1])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        image = tf.compat.v1.placeholder(tf.uint8, [None, None, None])
        resized = resize_bilinear(image, size)
        for pixels in images:
            picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
            theirs = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
            found = session.run(resized, {image: pixels})
            np.testing.assert_array_equal(found, theirs.reshape(found.shape))


def _files() -> dict[str, bytes]:
    """Files of all the kinds of pixels that both formats know."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 53, 3), np.uint8))
    waves = np.sin(np.mgrid[0:90, 0:70].sum(axis=0) / 9)[..., np.newaxis] * [90, 120, 40] + 128
    smooth = Image.fromarray(waves.astype(np.uint8))
    red, green, blue = noise.split()
    deep = Image.fromarray(rng.integers(0, 65536, (33, 20), np.uint16))
    return {
        "rgb": encode(noise, "PNG"),
        "rgba": encode(Image.merge("RGBA", [red, green, blue, red]), "PNG"),
        "grey": encode(green, "PNG"),
        "grey with alpha": encode(Image.merge("LA", [red, blue]), "PNG"),
        "palette": encode(smooth.convert("P"), "PNG"),
        "palette with a transparent colour": encode(smooth.convert("P"), "PNG", transparency=3),
        "one bit": encode(green.convert("1"), "PNG"),
        "16 bits": encode(deep, "PNG"),
        "jpeg": encode(smooth, "JPEG", quality=85),
        "jpeg of noise": encode(noise, "JPEG", quality=40),
        "jpeg, full colour": encode(smooth, "JPEG", subsampling=0),
        "progressive jpeg": encode(smooth, "JPEG", progressive=True),
        "grey jpeg": encode(green, "JPEG"),
        "cmyk jpeg": encode(smooth.convert("CMYK"), "JPEG"),
    }


def _rows(contents: list[bytes], shape: tuple[int | None, ...], **given: Any) -> Array:
    info = TensorInfo("x:0", given.get("dtype", tf.float32), shape)
    image = ImageInput("x", info, 24, given.get("channels", 3), given.get("scale"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        found: Array = session.run(rows_from_files(tf.constant(contents), image))
    assert found.dtype == info.dtype
    return found


def test_every_kind_is_decoded_as_predict_does() -> None:
    files = _files()
    contents = [*files.values()]
    pixels = np.stack([decode_image(content, "file", 24) for content in contents])
    rows = _rows(contents, (None, 24, 24, 3), scale=1 / 255)
    expected = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
    for name, ours, theirs in zip(files, rows, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    grey = _rows(contents, (None, 24, 24, 1), channels=1)
    brightness = [decode_image(content, "file", 24, 1) for content in contents]
    np.testing.assert_array_equal(grey, np.stack(brightness))
    flat = _rows(contents, (None, 24 * 24 * 3), dtype=tf.float16)
    np.testing.assert_array_equal(flat, pixels.reshape(len(files), -1))
    with pytest.raises(tf.errors.InvalidArgumentError):
        _rows([b"no image"], (None, 24, 24, 3))


FLAT = (28, 28, 1)


@pytest.mark.parametrize(
    ("shapes", "image_shape", "dtype", "expected"),
    [
        ([[], (None, 28, 28, 1)], None, tf.float32, ("k1", 28, 1)),
        ([[], (None, 28, 28, 3)], None, tf.float32, ("k1", 28, 3)),
        ([(None, 784)], FLAT, tf.float32, ("k0", 28, 1)),
        ([(None, 784)], None, tf.float32, None),
        ([(None, 783)], FLAT, tf.float32, None),
        ([(None, 28, 27, 3)], None, tf.float32, None),
        ([(None, 28, 28, 2)], None, tf.float32, None),
        ([(None, None, None, 3)], None, tf.float32, None),
        ([(28, 28, 3)], None, tf.float32, None),
        ([None], None, tf.float32, None),
        ([(None, 8, 8, 3), (None, 9, 9, 3)], None, tf.float32, None),  # Two: neither is chosen.
        ([(None, 8, 8, 3)], None, tf.int32, None),  # Whole numbers are not scaled.
    ],
)
def test_the_input_that_takes_images(
    shapes: Any, image_shape: Any, dtype: tf.DType, expected: Any, caplog: Any
) -> None:
    infos = {f"k{i}": TensorInfo(f"x{i}:0", dtype, shape) for i, shape in enumerate(shapes)}
    model = Model(NO_SIGNATURE, (), (), (), None, None, None, image_shape)
    found = find_image_input(infos, model)
    assert (found and (found.key, found.size, found.channels)) == expected
    assert ("feeds x" in caplog.text and "as 0 to 255" in caplog.text) == (found is not None)
