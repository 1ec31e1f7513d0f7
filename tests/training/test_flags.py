"""What the trainers make of their flags."""

import pytest
from absl import flags

from cli.tensorflow_startup import INTRA_OP_THREADS_VARIABLE
from training.flags import define_run_flags, intra_op_threads


def _parsed(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    define_run_flags(values, ckpt_dir="model")
    values(["script", *arguments])
    return values


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
    values = _parsed(*([] if flag is None else [f"--intra_op_threads={flag}"]))
    assert intra_op_threads(values, small_steps=small) == threads
