"""The confusion matrix."""

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes

from errors import ToolError
from tests.tools.plotting.conftest import MakeClassified
from tools.plot_classes import confusion_matrix, draw_confusion
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


def test_only_some_classes() -> None:
    labels, classes = np.array([10, 900, 900]), np.array([10, 10, 900])
    found = confusion_matrix(labels, classes, np.array([10, 900]))
    assert found.tolist() == [[1, 0], [1, 1]]


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


def test_counts_are_readable_on_their_colour(classified: MakeClassified) -> None:
    axes = _axes(draw_confusion(classified(_one_hot([0, 0], 2), [0, 0])))
    colours = {text.get_position(): text.get_color() for text in axes.texts}
    assert colours == {(0, 0): "white", (1, 0): "black", (0, 1): "black", (1, 1): "black"}


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


def test_without_labels_is_one_line(classified: MakeClassified) -> None:
    with pytest.raises(ToolError, match="expected --input with a folder of one subfolder a class"):
        draw_confusion(classified(_one_hot([0], 2), None))


def test_a_label_of_no_class_is_one_line(classified: MakeClassified) -> None:
    with pytest.raises(ToolError, match="expected labels from 0 to 1, found 2"):
        draw_confusion(classified(_one_hot([0], 2), [2]))
