"""Lengths and cadences that follow from the data."""

import pytest

from training.config import last_step, log_interval


@pytest.mark.parametrize(
    ("train_steps", "epochs", "expected"),
    [(None, None, 200), (7, None, 7), (None, 20, 3125), (None, 1, 157), (None, 0.001, 1)],
)
def test_last_step(train_steps: int | None, epochs: float | None, expected: int) -> None:
    assert last_step(train_steps, epochs, 200, num_examples=20_000, batch_size=128) == expected


@pytest.mark.parametrize(
    ("given", "num_examples", "expected"), [(None, 10, 10), (None, 20_000, 156), (3, 20_000, 3)]
)
def test_log_interval(given: int | None, num_examples: int, expected: int) -> None:
    assert log_interval(given, num_examples, 128 if num_examples > 128 else 10) == expected


@pytest.mark.parametrize(("epochs", "expected"), [(0.07, 7), (0.29, 29), (0.071, 8), (1e-05, 1)])
def test_epochs_are_taken_as_written(epochs: float, expected: int) -> None:
    """In floats, 0.07 * 100 is a little above 7."""
    assert last_step(None, epochs, 0, num_examples=100, batch_size=1) == expected
