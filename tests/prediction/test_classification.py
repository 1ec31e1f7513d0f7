"""Counting right rows, against counts by hand."""

import numpy as np

from prediction.output import Classification, Share, accuracy, accuracy_per_class

LABELS = np.array([0, 1, 1, 3, 0])
RESULT = Classification(
    names=["a", "b", "c", "d", "e"],
    classes=np.array([0, 1, 0, 2, 0]),
    probabilities=np.arange(20, dtype=np.float32).reshape(5, 4),
    labels=LABELS,
    class_names=("ant", "bee"),
)


def test_probability_is_that_of_each_rows_class() -> None:
    np.testing.assert_array_equal(RESULT.probability, [0, 5, 8, 14, 16])


def test_a_class_without_a_name_has_its_number() -> None:
    assert [RESULT.class_name(index) for index in range(4)] == ["ant", "bee", "2", "3"]


def test_accuracy() -> None:
    assert accuracy(RESULT, LABELS) == Share(3, 5)
    assert Share(3, 5).accuracy == 0.6
    assert str(Share(1, 3)) == "0.3333 (1 of 3)"


def test_accuracy_of_each_class_that_there_is() -> None:
    assert accuracy_per_class(RESULT, LABELS) == {
        "ant": Share(2, 2),
        "bee": Share(1, 2),
        "3": Share(0, 1),
    }
