"""Flags, lengths and cadences, and what the last bits of a run depend on."""

import math
from fractions import Fraction

import pytest
import tensorflow as tf

from cli.fields import parse
from cli.terminal import INTRA_OP_THREADS_VARIABLE
from train_linear import LinearConfig
from training import resume
from training.config import RunConfig, last_step, log_interval
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


@pytest.mark.parametrize(
    ("train_steps", "epochs", "batch_size", "expected"),
    [
        (None, None, 128, 200),
        (7, None, 128, 7),
        (None, 20, 128, 3125),
        (None, 1, 128, 157),
        (None, 0.001, 128, 1),
        (None, 0.07, 200, 7),  # In floats, 0.07 * 100 is a little above 7.
        (None, 0.29, 200, 29),
        (None, 0.071, 200, 8),
    ],
)
def test_last_step(
    train_steps: int | None, epochs: float | None, batch_size: int, expected: int
) -> None:
    assert last_step(train_steps, epochs, 200, 20_000, batch_size) == expected


@pytest.mark.parametrize(
    ("given", "num_examples", "expected"), [(None, 10, 10), (None, 20_000, 156), (3, 20_000, 3)]
)
def test_log_interval(given: int | None, num_examples: int, expected: int) -> None:
    assert log_interval(given, num_examples, 128 if num_examples > 128 else 10) == expected


@pytest.mark.parametrize(
    ("flag", "variable", "small", "threads"),
    [
        (None, None, True, 1),
        (None, None, False, None),
        (None, "4", True, None),
        (None, "4", False, None),
        ("3", "4", True, 3),
        ("3", None, False, 3),
    ],
)
def test_threads_by_flag_then_environment_then_size(
    monkeypatch: pytest.MonkeyPatch,
    flag: str | None,
    variable: str | None,
    small: bool,
    threads: int | None,
) -> None:
    monkeypatch.delenv(INTRA_OP_THREADS_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(INTRA_OP_THREADS_VARIABLE, variable)
    given = [] if flag is None else [f"--intra_op_threads={flag}"]
    assert parse(LinearConfig, ["s", *given]).run.threads(small_steps=small) == threads


@pytest.mark.parametrize("given", ["", "0", "1", "12"])
def test_the_environment_that_is_told(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """Threads are the processors where none are asked for, as TensorFlow has it."""
    monkeypatch.delenv(INTRA_OP_THREADS_VARIABLE, raising=False)
    processors = resume.environment()["threads"]
    assert processors >= 1
    monkeypatch.setenv(INTRA_OP_THREADS_VARIABLE, given)
    told = resume.environment()
    assert told["threads"] == (int(given) if given in ("1", "12") else processors)
    assert told["tensorflow"] == tf.__version__


def test_without_flags_a_run_is_that_of_the_defaults() -> None:
    assert parse(LinearConfig, ["s"]) == LinearConfig(RunConfig("model"))
