"""The flags that every trainer has, and the config they become."""

import os

from absl import flags

from cli import flag_types
from cli.tensorflow_startup import INTRA_OP_THREADS_VARIABLE
from training.config import RunConfig

_LARGEST_SEED = 2**32 - 1
_MOST_STEPS = 10**12
_MOST_EPOCHS = 10**6
_MOST_THREADS = 1024


def define_run_flags(values: flags.FlagValues, ckpt_dir: str) -> None:
    """Defines the flags of `RunConfig` in `values`; `ckpt_dir` is the default folder."""
    flag_types.define_path(
        "ckpt_dir", ckpt_dir, "Folder of the run: checkpoints, metrics, events.", values
    )
    flags.DEFINE_integer(
        "save_every_steps",
        10,
        "Steps between two checkpoints; the last step is always saved.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_to_keep",
        4,
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
    flags.DEFINE_integer(
        "log_every_steps",
        None,
        "Steps between two log lines, each with the accuracy on the test split where there is one; "
        "by default 10, or an epoch where that is longer.",
        lower_bound=1,
        flag_values=values,
    )
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
        upper_bound=_MOST_THREADS,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Continue a run although its seed, data, batch size or learning rate has changed.",
        flag_values=values,
    )


def define_length_flags(values: flags.FlagValues, default_steps: int, *, epochs: bool) -> None:
    """Defines --train_steps and, where an epoch has many steps, --epochs: at most one is given."""
    flags.DEFINE_integer(
        "train_steps",
        None,
        f"Step the run ends at, counted from its very start; {default_steps} by default.",
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
    )


def intra_op_threads(values: flags.FlagValues, *, small_steps: bool) -> int | None:
    """The threads for `import_tensorflow`; None leaves them to the environment."""
    given: int | None = values.intra_op_threads
    if given is None and small_steps and INTRA_OP_THREADS_VARIABLE not in os.environ:
        return 1
    return given
