"""The confusion matrix, the worst mistakes, and the filters of a kernel out of any graph."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from errors import ToolError
from metagraph.description import Model, Signature, TensorInfo
from prediction.evaluation import Classified
from prediction.file_inputs import RowInputs, array_rows
from prediction.output import Classification
from prediction.request import PredictConfig
from tests.prediction import stock
from tools.plot_models import (
    Kernel,
    Pixels,
    confusion,
    draw_confusion,
    draw_filters,
    draw_mistakes,
    mosaic,
    read_kernel,
    row_images,
    tiles_of,
)
from tools.plotting import Picture, render

v1 = tf.compat.v1
Array = npt.NDArray[np.float32]

pytestmark = pytest.mark.usefixtures("styled")


def classified(
    probabilities: Any,
    labels: Any,
    *,
    class_names: Sequence[str] = (),
    images: Any = None,
    scale: float | None = None,
    image_shape: tuple[int, int, int] | None = None,
    names: Sequence[str] | None = None,
) -> Classified:
    """What a classifier has said of some rows."""
    found = np.asarray(probabilities, np.float32)
    rows = np.zeros((len(found), 2, 2, 3), np.float32) if images is None else images
    info = TensorInfo("x:0", tf.as_dtype(rows.dtype), (None, *rows.shape[1:]))
    signature = Signature("serving_default", {"x": "x:0"}, {})
    numbers = names or [str(row) for row in range(len(found))]
    result = Classification(
        numbers,
        found.argmax(axis=1),
        found,
        None if labels is None else np.asarray(labels, np.int64),
        class_names,
    )
    return Classified(
        "run/my-model-3.meta",
        "run/my-model-3",
        Model(signature, (), (), tuple(class_names), scale, None, None, image_shape),
        RowInputs({"x:0": array_rows(rows, info, "rows")}, numbers, result.labels),
        result,
    )


def _figure(picture: Picture) -> Figure:
    assert picture.figure is not None
    render(picture.figure, "p.svg")
    return picture.figure


def _one_hot(classes: npt.ArrayLike, count: int) -> Array:
    return np.asarray(np.eye(count)[np.asarray(classes)], np.float32)


def test_what_is_drawn() -> None:
    """Colours are shares of the true class, texts are counts, the true class goes down."""
    found = classified(
        _one_hot([0, 1, 1, 1, 2], 3), [0, 0, 1, 1, 1], class_names=["$a$", "bee", "c" * 50]
    )
    picture = draw_confusion(found)
    axes = _figure(picture).axes[0]
    shares = [[1 / 2, 1 / 2, 0.0], [0.0, 2 / 3, 1 / 3], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), shares)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    shown = {(int(x), int(y)): int(t) for (x, y), t in texts.items() if t != "0"}
    assert shown == {(0, 0): 1, (1, 0): 1, (1, 1): 2, (2, 1): 1}
    names = ["$a$", "bee", "c" * 31 + "\u2026"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert picture.record["classes"] == ["$a$", "bee", "c" * 50]
    assert picture.summary == "5 rows of 3 classes, accuracy 0.6000 (3 of 5)"


def test_of_many_classes_those_that_occur_are_shown() -> None:
    names, counts = confusion(classified(_one_hot([7, 500, 7], 1000), [7, 7, 999]))
    assert names == ["7", "500", "999"]
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    classes = np.arange(130)
    axes = _figure(draw_confusion(classified(_one_hot(classes, 200), classes))).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(130))
    assert not axes.texts
    assert [label.get_text() for label in axes.get_yticklabels()] == [*map(str, range(0, 130, 3))]


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        (np.arange(2001), 2001, "2001 classes are too many"),
        ([2], 2, "expected labels from 0 to 1, found 2"),
    ],
)
def test_labels_that_cannot_be_drawn_are_one_line(
    labels: npt.ArrayLike, count: int, message: str
) -> None:
    with pytest.raises(ToolError, match=message):
        draw_confusion(classified(_one_hot(np.arange(np.size(labels)), count), labels))


# Of the rows 1 to 4, the class is wrong; row 3 is the surest of them.
PROBABILITIES = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.95, 0.05], [0.4, 0.6], [0.01, 0.99]]
LABELS = [0, 0, 0, 1, 0, 1]
WORST_FIRST = [3, 2, 1, 4]


def test_a_probability_that_is_none_comes_last() -> None:
    picture = draw_mistakes(classified([[np.nan, 0.0], [0.0, 0.6]], [1, 0]), 4)
    assert [mistake["name"] for mistake in picture.record["mistakes"]] == ["1", "0"]


def test_each_image_has_its_texts() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
    names = [f"dir/$_{row}$.png" for row in range(6)]
    found = classified(
        PROBABILITIES, LABELS, images=images, class_names=["$ant", "be\ne"], names=names
    )
    picture = draw_mistakes(found, 3)
    drawn = [axes for axes in _figure(picture).axes if axes.images]
    for axes, row in zip(drawn, WORST_FIRST[:3], strict=True):
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), images[row] / 255)
    assert drawn[0].get_title() == "dir/$_3$.png\ntrue: be e\npredicted: $ant 0.9500"
    assert drawn[1].get_title() == "dir/$_2$.png\ntrue: $ant\npredicted: be e 0.7000"
    assert picture.summary == "the 3 surest of 4 mistakes in 6 rows"
    assert picture.record["wrong"] == 4
    assert picture.record["mistakes"][1] == {
        "name": "dir/$_2$.png",
        "label": "$ant",
        "class": "be\ne",
        "probability": pytest.approx(0.7),
    }


@pytest.mark.parametrize(("kind", "said"), [(np.uint8, ""), (np.float32, ", brightness stretched")])
def test_all_of_them(kind: type, said: str) -> None:
    images: npt.NDArray[Any] = np.full((6, 2, 2, 1), 100, kind)
    picture = draw_mistakes(classified(PROBABILITIES, LABELS, images=images, scale=1 / 255), 16)
    assert picture.summary == f"all 4 mistakes in 6 rows{said}"
    assert _figure(picture).get_suptitle() == f"run/my-model-3\nall 4 mistakes in 6 rows{said}"


RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)


def _seen(rows: npt.NDArray[Any], **options: Any) -> tuple[Pixels, bool]:
    found = classified([[1.0, 0.0]], [1], images=rows[np.newaxis], **options)
    (image,), is_stretched = row_images(found, [0])
    return image, is_stretched


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 2 / 255])
@pytest.mark.parametrize("image", [RGB, RGB[..., :1]])
def test_pixels_are_unscaled(scale: float, image: npt.NDArray[np.uint8]) -> None:
    """Those of flat rows too, whose graph says their shape."""
    rows = (image * scale).astype(np.float32)
    for row, shape in ((rows, None), (rows.reshape(-1), image.shape)):
        found, is_stretched = _seen(row, scale=scale, image_shape=shape)
        np.testing.assert_allclose(found, np.broadcast_to(image / 255, (4, 6, 3)), atol=1e-6)
        assert not is_stretched


@pytest.mark.parametrize(
    ("rows", "scale"),
    [(RGB.astype(np.float32), None), (RGB.astype(np.float32), 1 / 255), (RGB / 255 - 0.5, 1 / 255)],
)
def test_what_has_no_known_white_is_stretched(rows: npt.NDArray[Any], scale: float | None) -> None:
    found = _seen(rows.astype(np.float32), scale=scale)
    low, high = rows.min(), rows.max()
    np.testing.assert_allclose(found[0], (rows - low) / (high - low), atol=1e-6)
    assert found[1]


@pytest.mark.parametrize(
    "row",
    [np.zeros(12, np.float32), np.zeros((4, 4, 2), np.float32), np.array(b"an image", object)],
)
def test_what_is_no_image_is_one_line(row: npt.NDArray[Any]) -> None:
    with pytest.raises(ToolError, match="expected rows that are images, found x:0"):
        _seen(row)


def _kernel(meta: object, tensor: str | None = None) -> Kernel:
    return read_kernel(PredictConfig(str(meta)), tensor)


def _random(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _by_reader(prefix: object, key: str) -> npt.NDArray[Any]:
    return np.asarray(tf.train.load_checkpoint(str(prefix)).get_tensor(key))


def test_the_first_that_the_prediction_needs(cnn_run: Path) -> None:
    found = _kernel(cnn_run)
    assert found.name == "conv1/w:0"
    np.testing.assert_array_equal(found.values, _by_reader(cnn_run / "my-model-200", "conv1/w"))


def _convolution(folder: Path, make_filters: Callable[[], Any]) -> Path:
    """A stranger's `y`, after a first convolution that no prediction needs."""
    with stock.checkpoint(folder / "m"):
        x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        tf.nn.conv2d(x, v1.get_variable("aside", [2, 2, 3, 4]), 1, "SAME")
        v1.add_to_collection("predict", tf.nn.conv2d(x, make_filters(), 1, "SAME", name="y"))
    return folder / "m.meta"


@pytest.mark.parametrize("use_resource", [False, True])
def test_strangers_variables_of_both_kinds(tmp_path: Path, use_resource: bool) -> None:
    weights = _random(3, 3, 3, 2)
    made = functools.partial(v1.get_variable, "w", initializer=weights, use_resource=use_resource)
    found = _kernel(_convolution(tmp_path, lambda: tf.identity(made())))
    assert found.name == "w:0"
    np.testing.assert_array_equal(found.values, weights)


def test_a_frozen_graph_has_its_kernels_too(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 8, 8, 1], name="x")
        tf.nn.softmax(tf.nn.conv2d(x, _random(3, 3, 1, 2), 1, "SAME"), name="y")
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    found = _kernel(tmp_path / "frozen.pb")
    np.testing.assert_array_equal(found.values, _random(3, 3, 1, 2))


def test_a_filter_that_is_fed_is_no_weights(tmp_path: Path) -> None:
    fed = functools.partial(v1.placeholder, tf.float32, [3, 3, 3, 2], name="fed")
    meta = _convolution(tmp_path, fed)
    with pytest.raises(ToolError, match="found no convolution that its prediction needs"):
        _kernel(meta)
    with pytest.raises(ToolError, match="it follows from x:0, fed:0"):
        _kernel(meta, "y")


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("face CNN (slim), TFRecord", "conv1/weights:0", (3, 3, 3, 10)),
        ("CNN MNIST batch-norm", "d_h0_conv/w:0", (5, 5, 1, 32)),
    ],
)
def test_checkpoints_of_public_projects(
    third_party: Path, kind: str, name: str, shape: tuple[int, ...]
) -> None:
    entries = json.loads((third_party / "index.json").read_text())
    (entry,) = (e for e in entries if e["kind"].startswith(kind))
    found = _kernel(third_party / entry["meta"])
    assert (found.name, found.values.shape) == (name, shape)
    expected = _by_reader(third_party / entry["prefix"], name.removesuffix(":0"))
    np.testing.assert_array_equal(found.values, expected)


def _unit(values: Array) -> npt.NDArray[np.float64]:
    wide = values.astype(np.float64)
    return np.asarray((wide - wide.min()) / (wide.max() - wide.min()))


def test_three_channels_are_a_colour_and_of_more_each_is_a_tile() -> None:
    """A filter is scaled as a whole."""
    three, four = _random(3, 2, 3, 5), _random(3, 2, 4, 5)
    for index, image in enumerate(tiles_of(three)[0]):
        np.testing.assert_allclose(image, _unit(three[..., index]))
    tiles = tiles_of(four)
    assert tiles.shape == (5, 4, 3, 2, 3)
    for row, column in np.ndindex(5, 4):
        np.testing.assert_allclose(tiles[row, column, ..., 1], _unit(four[..., row])[..., column])


@pytest.mark.parametrize(
    ("filters", "grid"),
    [(1, (1, 1)), (5, (1, 5)), (7, (3, 3)), (10, (2, 5)), (32, (4, 8)), (64, (8, 8))],
)
def test_the_grid_is_nearly_square(filters: int, grid: tuple[int, int]) -> None:
    assert tiles_of(_random(3, 3, 3, filters)).shape[:2] == grid


@pytest.mark.parametrize(("channels", "filters", "shown"), [(3, 300, 256), (64, 80, 48)])
def test_of_too_many_the_first_are_shown_and_it_says_so(
    channels: int, filters: int, shown: int
) -> None:
    picture = draw_filters(Kernel("m.meta", "w:0", _random(3, 3, channels, filters)))
    assert f"the first {shown} of {filters} filters" in picture.summary
    assert picture.record["filters"] == shown


def test_a_filter_that_no_picture_holds_is_one_line() -> None:
    values = np.broadcast_to(np.float32(1), (5000, 5000, 1, 1))
    with pytest.raises(ToolError, match="5000x5000 weights are too large"):
        draw_filters(Kernel("m.meta", "w:0", values))


def test_what_is_not_finite_is_marked_and_does_not_count() -> None:
    kernel = _random(2, 2, 1, 2)
    kernel[0, 0, 0, 0], kernel[1, 1, 0, 0] = np.nan, np.inf
    kernel[..., 1] = np.nan
    one, two = tiles_of(kernel)[0]
    red = np.array([0.835, 0.369, 0.0])
    np.testing.assert_array_equal(one[0, 0], red)
    np.testing.assert_array_equal(one[1, 1], red)
    assert sorted([one[0, 1, 0], one[1, 0, 0]]) == [0.0, 1.0]
    assert (two == red).all()
    assert "6 weights not finite" in draw_filters(Kernel("m.meta", "w:0", kernel)).summary


def test_the_mosaic_has_each_tile_at_its_place() -> None:
    tiles = tiles_of(_random(3, 2, 3, 7))
    image = mosaic(tiles)
    assert image.shape == (3 * 4 + 1, 3 * 3 + 1, 3)
    for row, column in np.ndindex(3, 3):
        top, left = 1 + row * 4, 1 + column * 3
        np.testing.assert_array_equal(image[top : top + 3, left : left + 2], tiles[row, column])
    assert (image[:, ::3] == image[0, 0]).all()
    assert (image[::4] == image[0, 0]).all()


@pytest.mark.parametrize(("channels", "label"), [(3, ""), (40, "input channels, from 0")])
def test_what_is_drawn_is_the_mosaic(channels: int, label: str) -> None:
    kernel = Kernel("a/b/m.meta", "$w$:0", _random(3, 3, channels, 32))
    picture = draw_filters(kernel)
    axes: Axes
    (axes,) = _figure(picture).axes
    np.testing.assert_array_equal(axes.images[0].get_array(), mosaic(tiles_of(kernel.values)))
    assert axes.get_xlabel() == label
    start = f"b/m.meta: $w$:0 [3, 3, {channels}, 32]\n32 filters of 3x3, "
    assert axes.get_title().startswith(start)
    assert picture.record["filters"] == 32
