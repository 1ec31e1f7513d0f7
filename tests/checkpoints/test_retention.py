"""Which checkpoints go."""

import math

import pytest

from checkpoints.naming import Retention, Saved, best_first, steps_to_delete

HOUR = 3600.0


def _saved(*hours: float) -> list[Saved]:
    return [Saved(step, hour * HOUR) for step, hour in enumerate(hours, 1)]


@pytest.mark.parametrize(
    ("count", "keep", "doomed"),
    [(0, 2, []), (2, 2, []), (4, 2, [1, 2]), (4, 0, []), (4, 1, [1, 2, 3])],
)
def test_the_newest_stay(count: int, keep: int, doomed: list[int]) -> None:
    assert steps_to_delete(_saved(*range(count)), Retention(keep)) == doomed


def test_the_first_of_each_span_stays() -> None:
    saved = _saved(0, 0.5, 1.0, 1.9, 2.0, 2.1, 2.2)
    assert steps_to_delete(saved, Retention(1, every_n_hours=1)) == [2, 4, 6]


def test_a_clock_that_was_ahead_costs_no_later_span() -> None:
    """Ten years ahead for a while, then right: spans are counted anew from there on."""
    saved = _saved(87_600, 87_600.5, 0, 0.5, 1.0, 1.5, 2.0, 2.5)
    assert steps_to_delete(saved, Retention(1, every_n_hours=1)) == [2, 4, 6]


def test_one_whose_time_is_not_known_begins_no_span() -> None:
    saved = [Saved(1, 0.0), Saved(2, -math.inf), Saved(3, HOUR / 2), Saved(4, HOUR)]
    assert steps_to_delete(saved, Retention(1, every_n_hours=1)) == [2, 3]


def test_it_is_the_same_whether_asked_each_time_or_once() -> None:
    """Retention holds across reruns: deleting step by step ends where deleting at once does."""
    hours = [0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8]
    retention = Retention(2, every_n_hours=1)
    present = []
    for checkpoint in _saved(*hours):
        present.append(checkpoint)
        doomed = steps_to_delete(present, retention)
        present = [c for c in present if c.step not in doomed]
    at_once = steps_to_delete(_saved(*hours), retention)
    assert [c.step for c in present] == [c.step for c in _saved(*hours) if c.step not in at_once]


def _measured(*accuracies: float | None) -> list[Saved]:
    return [Saved(step, step * HOUR, accuracy) for step, accuracy in enumerate(accuracies, 1)]


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ((), None),
        ((None, None), None),
        ((0.1, 0.9, 0.5), 2),
        ((0.5, 0.9, 0.9), 2),
        ((None, 0.0, None), 2),
    ],
)
def test_the_best_is_the_earliest_of_the_most_accurate(
    accuracies: tuple[float | None, ...], best: int | None
) -> None:
    found = best_first(_measured(*accuracies))
    assert (found[0].step if found else None) == best
    assert len(found) == len([each for each in accuracies if each is not None])


@pytest.mark.parametrize(
    ("accuracies", "doomed"),
    [
        ((0.9, 0.1, 0.2, 0.3), [2]),  # The best is beside the two newest.
        ((0.1, 0.2, 0.9, 0.3), [1, 2]),  # It is one of them.
        ((0.9, 0.9, 0.9, 0.9), [2]),
        ((None, None, None, None), [1, 2]),
        ((None, 0.0, None, None), [1]),
    ],
)
def test_the_best_stays_beside_the_newest(
    accuracies: tuple[float | None, ...], doomed: list[int]
) -> None:
    saved = _measured(*accuracies)
    assert steps_to_delete(saved, Retention(2, keep_best=True)) == doomed
    assert steps_to_delete(saved, Retention(2)) == [1, 2]


def test_the_best_takes_no_place_of_the_spans() -> None:
    """Step by step or at once, with the best leaving a span it is not the first of."""
    saved = [Saved(k, k * HOUR / 2, a) for k, a in enumerate((0.1, 0.8, 0.2, 0.9, 0.3, 0.4), 1)]
    retention = Retention(1, every_n_hours=1, keep_best=True)
    present: list[Saved] = []
    for checkpoint in saved:
        present.append(checkpoint)
        doomed = steps_to_delete(present, retention)
        present = [c for c in present if c.step not in doomed]
    assert [c.step for c in present] == [1, 3, 4, 5, 6]
    assert steps_to_delete(saved, retention) == [2]


def test_a_damaged_one_is_not_kept_as_the_best() -> None:
    saved = _measured(0.9, 0.8, 0.1, 0.1)
    damaged = frozenset({1})
    assert steps_to_delete(saved, Retention(2, keep_best=True, damaged=damaged)) == [1]
    assert steps_to_delete(saved, Retention(2, keep_best=True)) == [2]
