import numpy as np
import pytest

from data.batches import split_rows
from tests.data.conftest import DataErrorLine

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 10, 1]))


def test_each_row_is_on_one_side_in_file_order() -> None:
    train, held_out = split_rows(LABELS, 0.2, seed=0)
    assert sorted([*train, *held_out]) == list(range(len(LABELS)))
    for rows in (train, held_out):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.2, [20, 2, 0]), (0.06, [6, 1, 0]), (0.5, [50, 5, 0]), (0.999, [99, 9, 0])],
)
def test_holds_out_of_each_class_and_leaves_one(fraction: float, expected: list[int]) -> None:
    _, held_out = split_rows(LABELS, fraction, seed=0)
    assert np.bincount(LABELS[held_out], minlength=3).tolist() == expected


def test_follows_from_the_seed() -> None:
    same = [split_rows(LABELS, 0.2, seed=4)[1].tolist() for _ in range(2)]
    assert same[0] == same[1]
    assert split_rows(LABELS, 0.2, seed=5)[1].tolist() != same[0]


def test_every_image_of_a_class_can_be_held_out() -> None:
    labels = np.repeat([0, 1], 5)
    held_out = [split_rows(labels, 0.2, seed)[1].tolist() for seed in range(100)]
    assert np.unique(held_out).tolist() == list(range(10))


def test_larger_fraction_holds_out_the_same_and_more() -> None:
    smaller = split_rows(LABELS, 0.1, seed=0)[1]
    larger = split_rows(LABELS, 0.3, seed=0)[1]
    assert {*smaller} < {*larger}


def test_fraction_that_holds_out_nothing_names_the_flag(data_error_line: DataErrorLine) -> None:
    with data_error_line(r"--validation_fraction=0\.001 of 111 images holds out none"):
        split_rows(LABELS, 0.001, seed=0)


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.0, float("nan")])
def test_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        split_rows(LABELS, fraction, seed=0)
