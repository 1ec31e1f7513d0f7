"""The confusion matrix, the worst mistakes, and rows of a model's input as images."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from errors import ToolError
from tests.tools.plotting.conftest import MakeClassified
from tools.plot_classes import (
    Pixels,
    confusion_matrix,
    draw_confusion,
    draw_mistakes,
    row_images,
    worst_mistakes,
)
from tools.plot_runs import Picture, render


def _one_hot(classes: npt.ArrayLike, count: int) -> npt.NDArray[np.float32]:
    return np.asarray(np.eye(count)[np.asarray(classes)], np.float32)


def _axes(picture: Picture) -> Axes:
    assert picture.figure is not None
    render(picture.figure, "p.svg")
    return picture.figure.axes[0]


def test_the_counts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    labels, classes = rng.integers(0, 5, 100), rng.integers(0, 5, 100)
    expected = [
        [sum(1 for x, y in zip(labels, classes, strict=True) if (x, y) == (i, j)) for j in range(5)]
        for i in range(5)
    ]
    assert confusion_matrix(labels, classes, np.arange(5)).tolist() == expected


def test_what_is_drawn(classified: MakeClassified) -> None:
    """Colours are shares of the true class, texts are counts, the true class goes down."""
    found = classified(
        _one_hot([0, 1, 1, 1, 2], 3), [0, 0, 1, 1, 1], class_names=["$a$", "bee", "c" * 50]
    )
    picture = draw_confusion(found)
    axes = _axes(picture)
    shares = [[1 / 2, 1 / 2, 0.0], [0.0, 2 / 3, 1 / 3], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), shares)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert {(int(x), int(y)): int(t) for (x, y), t in texts.items() if t != "0"} == {
        (0, 0): 1,
        (1, 0): 1,
        (1, 1): 2,
        (2, 1): 1,
    }
    names = ["$a$", "bee", "c" * 31 + "\u2026"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert picture.record["counts"] == [[1, 1, 0], [0, 2, 1], [0, 0, 0]]
    assert picture.record["classes"] == ["$a$", "bee", "c" * 50]
    assert picture.summary == "5 rows of 3 classes, accuracy 0.6000 (3 of 5)"


def test_of_many_classes_those_that_occur_are_shown(classified: MakeClassified) -> None:
    found = classified(_one_hot([7, 500, 7], 1000), [7, 7, 999])
    picture = draw_confusion(found)
    assert picture.record["classes"] == ["7", "500", "999"]
    assert picture.record["counts"] == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert len(_axes(picture).texts) == 9


def test_of_a_large_matrix_every_so_many_is_named(classified: MakeClassified) -> None:
    classes = np.arange(130)
    axes = _axes(draw_confusion(classified(_one_hot(classes, 200), classes)))
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(130))
    assert not axes.texts
    assert [label.get_text() for label in axes.get_yticklabels()] == [*map(str, range(0, 130, 3))]


def test_too_many_classes_are_one_line(classified: MakeClassified) -> None:
    classes = np.arange(2001)
    with pytest.raises(ToolError, match="2001 classes are too many"):
        draw_confusion(classified(_one_hot(classes, 2001), classes))


def test_a_label_of_no_class_is_one_line(classified: MakeClassified) -> None:
    with pytest.raises(ToolError, match="expected labels from 0 to 1, found 2"):
        draw_confusion(classified(_one_hot([0], 2), [2]))


# Of the rows 1 to 4, the class is wrong; row 3 is the surest of them.
PROBABILITIES = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.95, 0.05], [0.4, 0.6], [0.01, 0.99]]


LABELS = [0, 0, 0, 1, 0, 1]


WORST_FIRST = [3, 2, 1, 4]


def _figure(picture: Picture) -> Figure:
    assert picture.figure is not None
    render(picture.figure, "p.svg")
    return picture.figure


def test_a_probability_that_is_none_comes_last(classified: MakeClassified) -> None:
    found = classified([[np.nan, 0.0], [0.0, 0.6]], [1, 0])
    assert worst_mistakes(found, 4).tolist() == [1, 0]


def test_each_image_has_its_texts(classified: MakeClassified) -> None:
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


def test_all_of_them(classified: MakeClassified) -> None:
    images = np.zeros((6, 2, 2, 1), np.uint8)
    picture = draw_mistakes(classified(PROBABILITIES, LABELS, images=images), 16)
    assert picture.summary == "all 4 mistakes in 6 rows"
    assert _figure(picture).get_suptitle() == "run/my-model-3\nall 4 mistakes in 6 rows"


def test_that_brightness_is_stretched_is_said(classified: MakeClassified) -> None:
    images = np.full((6, 2, 2, 1), 100.0, np.float32)
    picture = draw_mistakes(classified(PROBABILITIES, LABELS, images=images, scale=1 / 255), 16)
    assert picture.summary.endswith(", brightness stretched")


RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)


def _seen(make: MakeClassified, rows: npt.NDArray[Any], **options: Any) -> tuple[Pixels, bool]:
    return row_images(make([[1.0, 0.0]], [1], images=rows[np.newaxis], **options)).image(0)


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 2 / 255])
def test_pixels_are_unscaled(classified: MakeClassified, scale: float) -> None:
    found = _seen(classified, (RGB * scale).astype(np.float32), scale=scale)
    np.testing.assert_allclose(found[0], RGB / 255, atol=1e-6)
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


@pytest.mark.parametrize("image", [RGB, RGB[..., :1]])
def test_flat_rows_whose_graph_says_their_shape(
    classified: MakeClassified, image: npt.NDArray[np.uint8]
) -> None:
    flat = (image / 255).astype(np.float32).reshape(-1)
    height, width, channels = image.shape
    found = _seen(classified, flat, scale=1 / 255, image_shape=(height, width, channels))
    np.testing.assert_allclose(found[0], np.broadcast_to(image / 255, (4, 6, 3)), atol=1e-6)


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
