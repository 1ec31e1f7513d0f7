"""The rule for what happens every so many steps."""

import pytest

from training.cadence import due


@pytest.mark.parametrize(
    ("every", "last", "steps"),
    [(10, 30, [10, 20, 30]), (10, 25, [10, 20, 25]), (1, 3, [1, 2, 3]), (7, 3, [3])],
)
def test_due(every: int, last: int, steps: list[int]) -> None:
    assert [step for step in range(1, last + 1) if due(step, every, last)] == steps
