"""What the trainers make of their flags."""

import dataclasses

import pytest
from absl import flags

from cli.terminal import INTRA_OP_THREADS_VARIABLE
from training.config import (
    RunConfig,
    config_of,
    define_length_flags,
    define_run_flags,
    intra_op_threads,
)


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


@dataclasses.dataclass(frozen=True)
class _Config:
    run: RunConfig
    train_steps: int | None
    names: tuple[str, ...] = ()
    rate: float = 0.5
    other: int = 1


def test_a_config_comes_from_the_flags_of_its_fields_names() -> None:
    values = flags.FlagValues()
    define_run_flags(values, ckpt_dir="f")
    define_length_flags(values, 5, epochs=False)
    flags.DEFINE_list("names", [], "", flag_values=values)
    flags.DEFINE_float("rate", None, "", flag_values=values)
    values(["script.py", "--names=a,b", "--seed=3"])
    config = config_of(_Config, values, other=2)
    assert config.run.seed == 3
    assert dataclasses.astuple(config)[1:] == (None, ("a", "b"), 0.5, 2)
