"""Which checkpoints go."""

import pytest

from checkpoints.retention import Retention, Saved, steps_to_delete

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
