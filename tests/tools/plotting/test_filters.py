"""Kernels out of any graph, and their filters as tiles of one image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from errors import ToolError
from prediction.chosen_model import with_model
from prediction.request import PredictConfig
from tests.prediction import stock
from tools.plot_filters import Kernel, draw_filters, mosaic, read_kernel, tiles_of
from tools.plot_runs import render

v1 = tf.compat.v1


THIRD_PARTY = Path(__file__).resolve().parents[4] / "shared" / "thirdparty"


def _kernel(meta: object, tensor: str | None = None) -> Kernel:
    config = PredictConfig(str(meta))
    return with_model(config, lambda m, model: read_kernel(config, m, model, tensor))


def _random(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _by_reader(prefix: object, key: str) -> npt.NDArray[Any]:
    return np.asarray(tf.train.load_checkpoint(str(prefix)).get_tensor(key))


def test_the_first_that_the_prediction_needs(cnn_run: Path) -> None:
    found = _kernel(cnn_run)
    assert found.name == "conv1/w:0"
    np.testing.assert_array_equal(found.values, _by_reader(cnn_run / "my-model-200", "conv1/w"))


def _build(use_resource: bool) -> None:
    """A first convolution that no prediction needs, and two that it does."""
    x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    kernels = {
        name: v1.get_variable(name, initializer=_random(*shape), use_resource=use_resource)
        for name, shape in {"aside": (2, 2, 3, 4), "one": (3, 3, 3, 5), "two": (1, 1, 5, 6)}.items()
    }
    tf.nn.conv2d(x, kernels["aside"], 1, "SAME")
    hidden = tf.nn.conv2d(x, tf.identity(kernels["one"]), 1, "SAME")
    y = tf.nn.conv2d(hidden, kernels["two"], 1, "SAME", name="y")
    v1.add_to_collection("predict", y)


@pytest.mark.parametrize("use_resource", [False, True])
def test_strangers_variables_of_both_kinds(tmp_path: Path, use_resource: bool) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _build(use_resource)
    found = _kernel(tmp_path / "m.meta")
    assert found.name == "one:0"
    np.testing.assert_array_equal(found.values, _random(3, 3, 3, 5))


def test_a_partitioned_variable_is_whole(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        with v1.variable_scope("conv", partitioner=v1.fixed_size_partitioner(2, axis=3)):
            w = v1.get_variable("w", [3, 3, 3, 8], initializer=v1.ones_initializer())
        v1.add_to_collection("predict", tf.nn.conv2d(x, w, 1, "SAME"))
    np.testing.assert_array_equal(_kernel(tmp_path / "m.meta").values, np.ones((3, 3, 3, 8)))


def test_a_frozen_graph_has_its_kernels_too(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 8, 8, 1], name="x")
        tf.nn.softmax(tf.nn.conv2d(x, _random(3, 3, 1, 2), 1, "SAME"), name="y")
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    found = _kernel(tmp_path / "frozen.pb")
    np.testing.assert_array_equal(found.values, _random(3, 3, 1, 2))


def test_a_filter_that_is_fed_is_no_weights(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("step", initializer=0)
        x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        fed = v1.placeholder(tf.float32, [3, 3, 3, 2], name="fed")
        v1.add_to_collection("predict", tf.nn.conv2d(x, fed, 1, "SAME", name="y"))
    with pytest.raises(ToolError, match="found no convolution that its prediction needs"):
        _kernel(tmp_path / "m.meta")
    with pytest.raises(ToolError, match="it follows from x:0, fed:0"):
        _kernel(tmp_path / "m.meta", "y")


def test_what_the_prediction_does_not_need_is_offered(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _build(use_resource=False)
        v1.get_collection_ref("predict")[:] = [v1.get_default_graph().get_tensor_by_name("x:0")]
    with pytest.raises(ToolError, match="such as aside:0, one:0, two:0"):
        _kernel(tmp_path / "m.meta")


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("face CNN (slim), TFRecord", "conv1/weights:0", (3, 3, 3, 10)),
        ("CNN MNIST batch-norm", "d_h0_conv/w:0", (5, 5, 1, 32)),
    ],
)
def test_checkpoints_of_public_projects(kind: str, name: str, shape: tuple[int, ...]) -> None:
    if not THIRD_PARTY.is_dir():
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")
    entries = json.loads((THIRD_PARTY / "index.json").read_text())
    (entry,) = (e for e in entries if e["kind"].startswith(kind))
    found = _kernel(THIRD_PARTY / entry["meta"])
    assert (found.name, found.values.shape) == (name, shape)
    expected = _by_reader(THIRD_PARTY / entry["prefix"], name.removesuffix(":0"))
    np.testing.assert_array_equal(found.values, expected)


Array = npt.NDArray[np.float32]


def _unit(values: Array) -> npt.NDArray[np.float64]:
    wide = values.astype(np.float64)
    return np.asarray((wide - wide.min()) / (wide.max() - wide.min()))


def test_three_channels_are_a_colour() -> None:
    kernel = _random(3, 2, 3, 5)
    tiles = tiles_of(kernel)
    assert tiles.images.shape == (5, 3, 2, 3)
    for index, image in enumerate(tiles.images):
        np.testing.assert_allclose(image, _unit(kernel[..., index]))


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
