"""The flags that every trainer has, and the config they become."""

import dataclasses
import os
from typing import Any, TypeVar, cast

from absl import flags

from cli import flag_types
from cli.tensorflow_startup import INTRA_OP_THREADS_VARIABLE, MOST_THREADS
from training.config import RunConfig
from training.init_flags import define_init_flags, init_from

_LARGEST_SEED = 2**32 - 1
_MOST_STEPS = 10**12
_MOST_EPOCHS = 10**6

CONSTANT, COSINE = "constant", "cosine"

_Config = TypeVar("_Config")


def define_run_flags(
    values: flags.FlagValues,
    ckpt_dir: str,
    *,
    save_every_steps: int | None = 10,
    max_to_keep: int = 4,
    init_flags: bool = True,
) -> None:
    """Defines the flags of `RunConfig` in `values`.

    Args:
      values: where they are defined.
      ckpt_dir: the default folder.
      save_every_steps: by default; None saves after each epoch.
      max_to_keep: by default.
      init_flags: whether --init_from is among them.
    """
    flag_types.define_path(
        "ckpt_dir", ckpt_dir, "Folder of the run: checkpoints, metrics, events.", values
    )
    _define_checkpoint_flags(values, save_every_steps, max_to_keep)
    flags.DEFINE_integer(
        "log_every_steps",
        None,
        "Steps between two log lines, each with the accuracy on the test split where there is one; "
        "by default 10, or an epoch where that is longer.",
        lower_bound=1,
        flag_values=values,
    )
    _define_repeating_flags(values)
    if init_flags:
        define_init_flags(values)


def _define_checkpoint_flags(
    values: flags.FlagValues, save_every_steps: int | None, max_to_keep: int
) -> None:
    """Which checkpoints there are."""
    flags.DEFINE_integer(
        "save_every_steps",
        save_every_steps,
        "Steps between two checkpoints; the last step is always saved."
        + (" By default an epoch." if save_every_steps is None else ""),
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_to_keep",
        max_to_keep,
        "Newest checkpoints that stay; 0 keeps all.",
        lower_bound=0,
        flag_values=values,
    )
    flag_types.define_non_negative_float(
        "keep_checkpoint_every_n_hours",
        0.0,
        "Beside the newest, keep the first checkpoint of each span of so many hours; 0 keeps none.",
        values,
    )


def _define_repeating_flags(values: flags.FlagValues) -> None:
    """What a run's numbers follow from, whatever it trains."""
    flags.DEFINE_integer(
        "seed",
        0,
        "Initial values, batches and dropout masks follow from it.",
        lower_bound=0,
        upper_bound=_LARGEST_SEED,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "intra_op_threads",
        None,
        "Threads among which an operation may split its work, which changes the last bits of its "
        f"result; by default {INTRA_OP_THREADS_VARIABLE}, else 1 for steps so small that splitting "
        "them costs more than it gains, else one a processor.",
        lower_bound=1,
        upper_bound=MOST_THREADS,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Continue a run although its seed, data, batch size, learning rate, schedule or "
        "augmentation has changed.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "start_anew",
        False,
        "Begin at step 0 in a folder whose checkpoints are gone, although its state file or its "
        "metrics tell of some. Where there are checkpoints it changes nothing.",
        flag_values=values,
    )


def define_length_flags(values: flags.FlagValues, default: int | str, *, epochs: bool) -> None:
    """Defines --train_steps and, where an epoch has many steps, --epochs: at most one is given.

    Args:
      values: where they are defined.
      default: the length where neither is given, for the help: steps, or such as "50 epochs".
      epochs: whether --epochs is defined.
    """
    flags.DEFINE_integer(
        "train_steps",
        None,
        f"Step the run ends at, counted from its very start; {default} by default.",
        lower_bound=1,
        upper_bound=_MOST_STEPS,
        flag_values=values,
    )
    if not epochs:
        return
    flags.DEFINE_float(
        "epochs",
        None,
        "Passes over the training images the run ends after, above 0 and up to a million; in place "
        "of --train_steps.",
        flag_values=values,
    )
    flags.register_validator(
        "epochs",
        lambda value: value is None or 0 < value <= _MOST_EPOCHS,
        message=f"must be a number above 0 and up to {_MOST_EPOCHS:,}",
        flag_values=values,
    )
    flags.register_multi_flags_validator(
        ["train_steps", "epochs"],
        lambda given: given["train_steps"] is None or given["epochs"] is None,
        message="give --train_steps or --epochs, not both",
        flag_values=values,
    )


def define_keep_best_flag(values: flags.FlagValues) -> None:
    """Defines --keep_best, for a trainer whose model has an accuracy."""
    flags.DEFINE_bool(
        "keep_best",
        False,
        "Beside the newest, keep the checkpoint with the best accuracy on the test split, which is "
        "then measured at each save.",
        flag_values=values,
    )


def define_schedule_flags(values: flags.FlagValues) -> None:
    """Defines --schedule and --warmup_steps."""
    flags.DEFINE_enum(
        "schedule",
        CONSTANT,
        [CONSTANT, COSINE],
        "How the learning rate goes after the warm-up: it stays, or falls along a half cosine to 0 "
        "at the run's last step.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "warmup_steps",
        None,
        "The first steps, in which the learning rate grows up to its full value; by default 0, and "
        "with --schedule=cosine 500, or half the run where that is less.",
        lower_bound=0,
        upper_bound=_MOST_STEPS,
        flag_values=values,
    )


def run_config(values: flags.FlagValues) -> RunConfig:
    """The config that the parsed flags of `define_run_flags` ask for."""
    return RunConfig(
        ckpt_dir=values.ckpt_dir,
        seed=values.seed,
        save_every_steps=values.save_every_steps,
        max_to_keep=values.max_to_keep,
        keep_checkpoint_every_n_hours=values.keep_checkpoint_every_n_hours,
        log_every_steps=values.log_every_steps,
        allow_config_change=values.allow_config_change,
        keep_best="keep_best" in values and values.keep_best,
        init_from=init_from(values),
        start_anew=values.start_anew,
    )


def config_of(kind: type[_Config], values: flags.FlagValues, **others: Any) -> _Config:
    """A script's config out of the parsed flags.

    Args:
      kind: a dataclass whose field `run` is a `RunConfig`, and whose others are called as the flags
        are that they come from. What is None takes the field's default, where it has one.
      values: the flags.
      others: fields that do not come from a flag as it is.
    """
    given: dict[str, Any] = {"run": run_config(values)}
    for field in dataclasses.fields(cast(Any, kind)):
        value = values[field.name].value if field.name in values else None
        if value is not None or field.default is dataclasses.MISSING:
            given.setdefault(field.name, tuple(value) if isinstance(value, list) else value)
    return kind(**{**given, **others})


def intra_op_threads(values: flags.FlagValues, *, small_steps: bool) -> int | None:
    """The threads for `import_tensorflow`; None leaves them to the environment."""
    given: int | None = values.intra_op_threads
    if given is None and small_steps and INTRA_OP_THREADS_VARIABLE not in os.environ:
        return 1
    return given
