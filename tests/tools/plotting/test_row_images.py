"""Rows of a model's input as images."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from errors import ToolError
from tests.tools.plotting.conftest import MakeClassified
from tools.plot_classes import Pixels, row_images

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)


def _seen(make: MakeClassified, rows: npt.NDArray[Any], **options: Any) -> tuple[Pixels, bool]:
    return row_images(make([[1.0, 0.0]], [1], images=rows[np.newaxis], **options)).image(0)


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 2 / 255])
def test_pixels_are_unscaled(classified: MakeClassified, scale: float) -> None:
    found = _seen(classified, (RGB * scale).astype(np.float32), scale=scale)
    np.testing.assert_allclose(found[0], RGB / 255, atol=1e-6)
    assert not found[1]


def test_bytes_are_what_they_are(classified: MakeClassified) -> None:
    found = _seen(classified, RGB)
    np.testing.assert_allclose(found[0], RGB / 255)
    assert not found[1]


@pytest.mark.parametrize(
    ("rows", "scale"),
    [(RGB.astype(np.float32), None), (RGB.astype(np.float32), 1 / 255), (RGB / 255 - 0.5, 1 / 255)],
)
def test_what_has_no_known_white_is_stretched(
    classified: MakeClassified, rows: npt.NDArray[Any], scale: float | None
) -> None:
    found = _seen(classified, rows.astype(np.float32), scale=scale)
    low, high = rows.min(), rows.max()
    np.testing.assert_allclose(found[0], (rows - low) / (high - low), atol=1e-6)
    assert found[1]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1)])
def test_grey_images(classified: MakeClassified, shape: tuple[int, ...]) -> None:
    grey = RGB[..., 0]
    found = _seen(classified, grey.reshape(shape))
    np.testing.assert_allclose(found[0], np.repeat(grey[..., np.newaxis], 3, 2) / 255)


@pytest.mark.parametrize("image", [RGB, RGB[..., :1]])
def test_flat_rows_whose_graph_says_their_shape(
    classified: MakeClassified, image: npt.NDArray[np.uint8]
) -> None:
    flat = (image / 255).astype(np.float32).reshape(-1)
    height, width, channels = image.shape
    found = _seen(classified, flat, scale=1 / 255, image_shape=(height, width, channels))
    np.testing.assert_allclose(found[0], np.broadcast_to(image / 255, (4, 6, 3)), atol=1e-6)


def test_an_even_image_is_no_error(classified: MakeClassified) -> None:
    assert np.isfinite(_seen(classified, np.full((2, 2, 3), -7.0, np.float32))[0]).all()


def test_files_that_the_graph_decodes(classified: MakeClassified) -> None:
    content = io.BytesIO()
    Image.fromarray(np.full((5, 7, 3), [10, 20, 30], np.uint8)).save(content, "PNG")
    found = _seen(classified, np.array(content.getvalue(), object))
    assert found[0].shape == (128, 128, 3)
    np.testing.assert_allclose(found[0][0, 0], np.array([10, 20, 30]) / 255)


@pytest.mark.parametrize(
    "row",
    [
        np.zeros(12, np.float32),
        np.zeros((4, 4, 2), np.float32),
        np.array(b"no image", object),
        np.full((2, 2, 3), np.nan, np.float32),
    ],
)
def test_what_is_no_image_is_one_line(classified: MakeClassified, row: npt.NDArray[Any]) -> None:
    with pytest.raises(ToolError, match="expected rows that are images, found x:0"):
        _seen(classified, row)
