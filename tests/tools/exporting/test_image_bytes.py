"""Image files in a graph become what predict.py feeds for them, to the bit."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from data.images import decode_image, to_grey
from metagraph.meta import NO_SIGNATURE, TensorInfo
from metagraph.model import Model
from tools.export_images import ImageInput, find_image_input, rows_from_files

Array = npt.NDArray[Any]


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _files() -> dict[str, bytes]:
    """Files of all the kinds of pixels that both formats know."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 53, 3), np.uint8))
    waves = np.sin(np.mgrid[0:90, 0:70].sum(axis=0) / 9)[..., np.newaxis] * [90, 120, 40] + 128
    smooth = Image.fromarray(waves.astype(np.uint8))
    red, green, blue = noise.split()
    deep = Image.fromarray(rng.integers(0, 65536, (33, 20), np.uint16))
    return {
        "rgb": _encoded(noise, "PNG"),
        "rgba": _encoded(Image.merge("RGBA", [red, green, blue, red]), "PNG"),
        "grey": _encoded(green, "PNG"),
        "grey with alpha": _encoded(Image.merge("LA", [red, blue]), "PNG"),
        "palette": _encoded(smooth.convert("P"), "PNG"),
        "palette with a transparent colour": _encoded(smooth.convert("P"), "PNG", transparency=3),
        "one bit": _encoded(green.convert("1"), "PNG"),
        "16 bits": _encoded(deep, "PNG"),
        "jpeg": _encoded(smooth, "JPEG", quality=85),
        "jpeg of noise": _encoded(noise, "JPEG", quality=40),
        "jpeg, full colour": _encoded(smooth, "JPEG", subsampling=0),
        "progressive jpeg": _encoded(smooth, "JPEG", progressive=True),
        "grey jpeg": _encoded(green, "JPEG"),
        "cmyk jpeg": _encoded(smooth.convert("CMYK"), "JPEG"),
    }


def _input(shape: tuple[int | None, ...], channels: int, **changes: Any) -> ImageInput:
    info = TensorInfo("x:0", changes.pop("dtype", tf.float32), shape)
    return ImageInput("x", info, 24, channels, changes.pop("scale", 1 / 255))


def _rows(contents: list[bytes], image: ImageInput) -> Array:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        found: Array = session.run(rows_from_files(tf.constant(contents), image))
    return found


def _pixels(contents: list[bytes]) -> Array:
    return np.stack([decode_image(content, "file", 24) for content in contents])


def test_every_kind_is_decoded_as_predict_does() -> None:
    files = _files()
    rows = _rows([*files.values()], _input((None, 24, 24, 3), 3))
    expected = np.multiply(_pixels([*files.values()]), np.float32(1 / 255), dtype=np.float32)
    assert rows.dtype == np.float32
    for name, ours, theirs in zip(files, rows, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_a_grey_model_takes_the_brightness() -> None:
    contents = [*_files().values()]
    rows = _rows(contents, _input((None, 24, 24, 1), 1, scale=None))
    np.testing.assert_array_equal(rows, to_grey(_pixels(contents)).astype(np.float32))


def test_a_flat_row_holds_the_image_in_order() -> None:
    contents = [*_files().values()][:2]
    rows = _rows(contents, _input((None, 24 * 24 * 3), 3, scale=None, dtype=tf.float16))
    np.testing.assert_array_equal(rows, _pixels(contents).reshape(2, -1).astype(np.float16))


def test_what_is_no_image_fails() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        _rows([b"no image"], _input((None, 24, 24, 3), 3))


def _model(image_shape: tuple[int, int, int] | None = None, scale: float | None = 0.5) -> Model:
    return Model(NO_SIGNATURE, (), (), (), scale, None, None, image_shape)


def _found(*shapes: Any, dtype: tf.DType = tf.float32, **model: Any) -> ImageInput | None:
    infos = {f"k{i}": TensorInfo(f"x{i}:0", dtype, shape) for i, shape in enumerate(shapes)}
    return find_image_input(infos, _model(**model))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_input_of_squares_takes_images(channels: int) -> None:
    found = _found([], (None, 28, 28, channels))
    assert found is not None
    assert (found.key, found.size, found.channels, found.scale) == ("k1", 28, channels, 0.5)


def test_a_flat_input_takes_images_where_the_graph_says_so() -> None:
    found = _found((None, 784), image_shape=(28, 28, 1))
    assert found is not None
    assert (found.size, found.channels) == (28, 1)
    assert _found((None, 784)) is None
    assert _found((None, 783), image_shape=(28, 28, 1)) is None


@pytest.mark.parametrize(
    "shape", [(None, 28, 27, 3), (None, 28, 28, 2), (None, None, None, 3), (28, 28, 3), None]
)
def test_other_inputs_do_not(shape: tuple[int | None, ...] | None) -> None:
    assert _found(shape) is None


def test_of_two_inputs_of_images_neither_is_chosen() -> None:
    assert _found((None, 8, 8, 3), (None, 9, 9, 3)) is None


def test_whole_numbers_are_not_scaled_and_so_no_images() -> None:
    assert _found((None, 8, 8, 3), dtype=tf.int32) is None


def test_a_missing_scale_is_told(caplog: pytest.LogCaptureFixture) -> None:
    found = _found((None, 8, 8, 3), scale=None)
    assert found is not None
    assert found.scale is None
    assert "x0:0 as 0 to 255" in caplog.text
