"""The rule for what happens every so many steps."""

import math
from fractions import Fraction

import pytest

from training.loop import due


@pytest.mark.parametrize(
    ("every", "last", "steps"),
    [(10, 30, [10, 20, 30]), (10, 25, [10, 20, 25]), (1, 3, [1, 2, 3]), (7, 3, [3])],
)
def test_due(every: int, last: int, steps: list[int]) -> None:
    assert [step for step in range(1, last + 1) if due(step, every, last)] == steps


@pytest.mark.parametrize(
    ("num_examples", "batch_size"), [(60_000, 128), (10, 10), (7, 7), (36, 5), (11, 10)]
)
def test_an_epoch_is_due_at_the_step_that_completes_it(num_examples: int, batch_size: int) -> None:
    last = math.ceil(50 * num_examples / batch_size)
    ends = [math.ceil(epoch * num_examples / batch_size) for epoch in range(1, 51)]
    every = Fraction(num_examples, batch_size)
    assert [step for step in range(1, last + 1) if due(step, every, last)] == ends
