"""The worst mistakes as images."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from errors import ToolError
from tests.tools.plotting.conftest import MakeClassified
from tools.plot_classes import draw_mistakes, worst_mistakes
from tools.plot_runs import Picture, render

# Of the rows 1 to 4, the class is wrong; row 3 is the surest of them.
PROBABILITIES = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.95, 0.05], [0.4, 0.6], [0.01, 0.99]]
LABELS = [0, 0, 0, 1, 0, 1]
WORST_FIRST = [3, 2, 1, 4]


def _figure(picture: Picture) -> Figure:
    assert picture.figure is not None
    render(picture.figure, "p.svg")
    return picture.figure


@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_the_surest_come_first(classified: MakeClassified, most: int) -> None:
    found = worst_mistakes(classified(PROBABILITIES, LABELS), most)
    assert found.tolist() == WORST_FIRST[:most]


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


def test_without_a_mistake_there_is_no_picture(classified: MakeClassified) -> None:
    picture = draw_mistakes(classified([[0.9, 0.1]], [0]), 16)
    assert picture.figure is None
    assert picture.summary == "no mistake in 1 rows: no picture is written"
    assert (picture.record["wrong"], picture.record["mistakes"]) == (0, [])


def test_without_labels_is_one_line(classified: MakeClassified) -> None:
    with pytest.raises(ToolError, match="are not known"):
        draw_mistakes(classified([[0.9, 0.1]], None), 16)


def test_rows_that_are_no_images_are_one_line(classified: MakeClassified) -> None:
    found = classified([[0.9, 0.1]], [1], images=np.zeros((1, 7), np.float32))
    with pytest.raises(ToolError, match=r"expected rows that are images, found x:0 \[7\]"):
        draw_mistakes(found, 16)
