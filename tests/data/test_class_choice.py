import numpy as np
import pytest

from data.image_folder import Choice, choose, chosen_rows, pick
from data.source import ArraySource
from tests.data.conftest import DataErrorLine

KNOWN = ("ant", "bee", "T-shirt/top", "Ähre two")


def test_classes_are_found_in_the_order_given() -> None:
    wanted = ["Ähre two", "ant", "T-shirt/top"]
    assert choose(wanted, KNOWN) == Choice((3, 0, 2), ("Ähre two", "ant", "T-shirt/top"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            ["ant", "cat"],
            "^--classes=ant,cat: there is no class 'cat'; the classes are ant, bee",
        ),
        (["ant", "Bee"], "there is no class 'Bee'"),
        (["ant", ""], "there is no class ''"),
        (
            ["bee", "ant", "bee"],
            "^--classes=bee,ant,bee: names 'bee' twice; the classes are ant",
        ),
        (["bee"], "^--classes=bee: expected two classes or more; the classes are ant, bee"),
    ],
)
def test_bad_choices_are_refused_with_the_known_classes(
    wanted: list[str], message: str, data_error_line: DataErrorLine
) -> None:
    with data_error_line(message):
        choose(wanted, KNOWN)


def test_of_many_known_classes_the_first_are_shown(data_error_line: DataErrorLine) -> None:
    with data_error_line(r"the classes are 0, 1, .*, 19, \.\.\.$"):
        choose(["x", "1"], [str(number) for number in range(1000)])


def test_labels_count_in_the_order_of_the_choice() -> None:
    labels = np.array([0, 1, 2, 3, 3, 2, 1, 0])
    members, renumbered = chosen_rows(labels, Choice((3, 0), ("d", "a")))
    assert members.tolist() == [0, 3, 4, 7]
    assert renumbered.tolist() == [1, -1, -1, 0, 0, -1, -1, 1]


def test_picked_examples_keep_their_order() -> None:
    labels = np.array([0, 1, 2, 3, 3, 2, 1, 0])
    source = ArraySource(np.arange(8, dtype=np.float32), labels, ("a", "b", "c", "d"))
    picked = pick(source, Choice((3, 0), ("d", "a")))
    x, y = picked.rows(np.arange(4))
    assert x.tolist() == [0, 3, 4, 7]
    assert y.tolist() == picked.labels.tolist() == [1, 0, 0, 1]
    assert picked.class_names == ("d", "a")
    assert len(picked) == 4
    other_order = pick(source, Choice((0, 3), ("a", "d")))
    assert picked.digest() != other_order.digest()
