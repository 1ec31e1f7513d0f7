"""What is printed."""

import json

import numpy as np

from prediction.output import Classification, Report, as_json, as_text

OUTPUTS = {"w:0": np.array([0.5, 1.5], np.float32), "s:0": np.array([b"a"], object)}
CLASSIFICATION = Classification(
    names=["cat/1.png", "10"],
    classes=np.array([2, 0]),
    probabilities=np.array([[0.25, 0, 0.75], [1, 0, 0]], np.float32),
    labels=None,
    class_names=("ant", "bee", "cat"),
)
LABELLED = CLASSIFICATION._replace(labels=np.array([2, 1]))


def test_tensors_as_text() -> None:
    text = as_text(Report("m.meta", "m", OUTPUTS, None, rows=True))
    assert text.splitlines() == ["w:0 float32 [2]", "[0.5 1.5]", "s:0 string [1]", "[b'a']"]


def test_rows_of_a_classifier_as_text() -> None:
    text = as_text(Report("m.meta", "m", OUTPUTS, CLASSIFICATION, rows=True))
    assert text.splitlines() == ["cat/1.png  cat  0.7500", "10         ant  1.0000"]


def test_rows_with_labels_end_in_the_accuracies() -> None:
    text = as_text(Report("m.meta", "m", OUTPUTS, LABELLED, rows=True))
    assert text.splitlines() == [
        "cat/1.png  cat  0.7500  true: cat",
        "10         ant  1.0000  true: bee",
        "accuracy 0.5000 (1 of 2)",
        "  bee 0.0000 (0 of 1)",
        "  cat 1.0000 (1 of 1)",
    ]


def test_tensors_that_were_asked_for_end_in_the_accuracies_too() -> None:
    lines = as_text(Report("m.meta", "m", OUTPUTS, LABELLED, rows=False)).splitlines()
    assert lines[:2] == ["w:0 float32 [2]", "[0.5 1.5]"]
    assert lines[4] == "accuracy 0.5000 (1 of 2)"


def test_tensors_as_json() -> None:
    assert json.loads(as_json(Report("m.meta", "m", OUTPUTS, None, rows=True))) == {
        "meta": "m.meta",
        "checkpoint": "m",
        "outputs": {"w:0": [0.5, 1.5], "s:0": ["a"]},
    }


def test_rows_of_a_classifier_as_json() -> None:
    document = json.loads(as_json(Report("m.meta", "m", OUTPUTS, LABELLED, rows=True)))
    assert document["predictions"] == [
        {"name": "cat/1.png", "class": "cat", "probability": 0.75, "label": "cat"},
        {"name": "10", "class": "ant", "probability": 1.0, "label": "bee"},
    ]
    assert document["accuracy"] == 0.5
    assert document["accuracy_per_class"] == {"bee": 0.0, "cat": 1.0}
    unlabelled = json.loads(as_json(Report("m.meta", "m", OUTPUTS, CLASSIFICATION, rows=True)))
    assert "accuracy" not in unlabelled
    assert "label" not in unlabelled["predictions"][0]
