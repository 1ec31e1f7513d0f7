"""What the trainers make of their flags."""

import pytest

from cli.fields import parse
from cli.terminal import INTRA_OP_THREADS_VARIABLE
from train_linear import LinearConfig
from training.config import RunConfig


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


def test_without_flags_a_run_is_that_of_the_defaults() -> None:
    assert parse(LinearConfig, ["s"]) == LinearConfig(RunConfig("model"))
