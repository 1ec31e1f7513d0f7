"""Filters as tiles of one image."""

import numpy as np
import numpy.typing as npt
import pytest

from errors import ToolError
from tools.plot_filters import Kernel, draw_filters, mosaic, scaled, tiles_of
from tools.plot_runs import render

Array = npt.NDArray[np.float32]


def _random(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _unit(values: Array) -> npt.NDArray[np.float64]:
    wide = values.astype(np.float64)
    return np.asarray((wide - wide.min()) / (wide.max() - wide.min()))


def test_three_channels_are_a_colour() -> None:
    kernel = _random(3, 2, 3, 5)
    tiles = tiles_of(kernel)
    assert tiles.images.shape == (5, 3, 2, 3)
    for index, image in enumerate(tiles.images):
        np.testing.assert_allclose(image, _unit(kernel[..., index]))


def test_one_channel_is_grey() -> None:
    kernel = _random(3, 2, 1, 5)
    for index, image in enumerate(tiles_of(kernel).images):
        np.testing.assert_allclose(image, np.repeat(_unit(kernel[..., index]), 3, axis=2))


def test_of_more_channels_each_is_a_tile() -> None:
    """A row is a filter, scaled as a whole."""
    kernel = _random(3, 2, 4, 5)
    tiles = tiles_of(kernel)
    assert (tiles.rows, tiles.columns, len(tiles.images)) == (5, 4, 20)
    for row in range(5):
        for column in range(4):
            expected = _unit(kernel[..., row])[..., column]
            np.testing.assert_allclose(tiles.images[row * 4 + column][..., 1], expected)


@pytest.mark.parametrize(
    ("filters", "rows", "columns"), [(1, 1, 1), (7, 3, 3), (10, 2, 5), (32, 4, 8), (64, 8, 8)]
)
def test_the_grid_is_nearly_square(filters: int, rows: int, columns: int) -> None:
    tiles = tiles_of(_random(3, 3, 3, filters))
    assert (tiles.rows, tiles.columns) == (rows, columns)


@pytest.mark.parametrize("shape", [(3, 3, 3, 300), (3, 3, 64, 80), (1000, 1000, 3, 40)])
def test_of_too_many_the_first_are_shown_and_it_says_so(shape: tuple[int, ...]) -> None:
    kernel: Array = np.broadcast_to(np.linspace(0, 1, shape[3], dtype=np.float32), shape)
    tiles = tiles_of(kernel)
    assert tiles.images.size <= 3 * 2**24
    if shape[0] == 3:
        shown = {300: 256, 80: 48}[shape[3]]
        summary = draw_filters(Kernel("m.meta", "w:0", kernel)).summary
        assert f"the first {shown} of {shape[3]} filters" in summary


def test_a_filter_that_no_picture_holds_is_one_line() -> None:
    with pytest.raises(ToolError, match="5000x5000 weights is too large"):
        tiles_of(np.broadcast_to(np.float32(1), (5000, 5000, 1, 1)))


def test_equal_weights_are_grey() -> None:
    assert (scaled(np.full((2, 3, 3), 7.0)) == 0.5).all()


def test_what_is_not_finite_is_marked_and_does_not_count() -> None:
    kernel = _random(2, 2, 1, 2)
    kernel[0, 0, 0, 0], kernel[1, 1, 0, 0] = np.nan, np.inf
    kernel[..., 1] = np.nan
    images = tiles_of(kernel).images
    red = np.array([0.835, 0.369, 0.0])
    np.testing.assert_array_equal(images[0, 0, 0], red)
    np.testing.assert_array_equal(images[0, 1, 1], red)
    assert sorted([images[0, 0, 1, 0], images[0, 1, 0, 0]]) == [0.0, 1.0]
    assert (images[1] == red).all()
    assert "6 weights not finite" in draw_filters(Kernel("m.meta", "w:0", kernel)).summary


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.float64])
def test_any_real_numbers(dtype: type) -> None:
    kernel = np.arange(9).reshape(3, 3, 1, 1).astype(np.dtype(dtype))
    np.testing.assert_allclose(tiles_of(kernel).images[0, ..., 0], np.arange(9).reshape(3, 3) / 8)


def test_the_mosaic_has_each_tile_at_its_place() -> None:
    tiles = tiles_of(_random(3, 2, 3, 7))
    image = mosaic(tiles)
    assert image.shape == (3 * 4 + 1, 3 * 3 + 1, 3)
    for index, tile in enumerate(tiles.images):
        top, left = 1 + index // 3 * 4, 1 + index % 3 * 3
        np.testing.assert_array_equal(image[top : top + 3, left : left + 2], tile)
    assert (image[:, ::3] == image[0, 0]).all()
    assert (image[::4] == image[0, 0]).all()


def test_what_is_drawn_is_the_mosaic() -> None:
    kernel = Kernel("a/b/m.meta", "$w$:0", _random(3, 3, 3, 32))
    picture = draw_filters(kernel)
    assert picture.figure is not None
    render(picture.figure, "p.png")
    (axes,) = picture.figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), mosaic(tiles_of(kernel.values)))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "8", "16", "24"]
    assert axes.get_title().startswith(
        "b/m.meta: $w$:0 [3, 3, 3, 32]\n32 filters of 3x3, in colour"
    )
    assert picture.record["filters"] == 32


def test_the_numbers_stand_at_their_tiles() -> None:
    picture = draw_filters(Kernel("m.meta", "w:0", _random(3, 2, 40, 2)))
    assert picture.figure is not None
    (axes,) = picture.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]
    numbers = [int(label.get_text()) for label in axes.get_xticklabels()]
    assert numbers == [*range(0, 40, 2)]
    np.testing.assert_allclose(axes.get_xticks(), [1 + n * 3 + 0.5 for n in numbers])
