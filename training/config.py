"""What a run is asked for, whichever model it trains: its flags, and the config they become."""

import dataclasses
import math
import os
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar, cast

from absl import flags

from checkpoints.retention import Retention
from cli import flag_types
from cli.flag_types import define_ignore_exif
from cli.terminal import INTRA_OP_THREADS_VARIABLE, MOST_THREADS
from data.options import DEFAULT_MEMORY_MB, RAMP, SKIP, STOP

_LOG_EVERY_STEPS = 10  # unless an epoch is longer


@dataclass(frozen=True)
class InitFrom:
    """What is asked for.

    Attributes:
      path: of --init_from: a checkpoint's prefix, or a folder for its newest checkpoint.
      assign: of --assign, (old, new): what begins with `old` in the checkpoint gives what begins
        with `new` here. Both end in a slash, or are whole names, or are empty for everything. No
        rule at all is the same as one of two empty ones.
      exclude: of --exclude, a regular expression; variables of the run whose whole name it
        matches stay new.
    """

    path: str
    assign: tuple[tuple[str, str], ...] = ()
    exclude: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """The part of a trainer's config that the training loop reads.

    Attributes:
      ckpt_dir: the run's folder.
      seed: in [0, 2**32); initial values, batches and dropout masks follow from it.
      save_every_steps: a checkpoint every so many steps, and one at the end; at least 1. None
        saves after each epoch.
      max_to_keep: the newest checkpoints that stay; 0 keeps all.
      keep_checkpoint_every_n_hours: beside them, one of each such span stays; 0 keeps none.
      log_every_steps: a log line every so many steps; None chooses by the epoch's length.
      allow_config_change: continue a run although its config has changed.
      start_anew: begin at step 0 although the checkpoints that the folder tells of are gone.
      keep_best: beside the newest, the checkpoint with the best test accuracy stays.
      init_from: whose values the run begins with; None for initial ones.
    """

    ckpt_dir: str
    seed: int
    save_every_steps: int | None
    max_to_keep: int
    keep_checkpoint_every_n_hours: float
    log_every_steps: int | None
    allow_config_change: bool
    keep_best: bool = False
    init_from: InitFrom | None = None
    start_anew: bool = False

    @property
    def retention(self) -> Retention:
        """Which checkpoints stay."""
        return Retention(self.max_to_keep, self.keep_checkpoint_every_n_hours, self.keep_best)


def last_step(
    train_steps: int | None, epochs: float | None, default: int, num_examples: int, batch_size: int
) -> int:
    """The step a run ends at.

    Args:
      train_steps: the step itself, or None.
      epochs: passes over the training examples, or None; the last batch may reach beyond.
      default: the step where both are None.
      num_examples: in one epoch.
      batch_size: examples a step.
    """
    if train_steps is not None:
        return train_steps
    if epochs is not None:
        # As it was written: 0.07 * 100 is above 7 in floats.
        return math.ceil(Fraction(str(epochs)) * num_examples / batch_size)
    return default


def log_interval(log_every_steps: int | None, num_examples: int, batch_size: int) -> int:
    """The steps between two log lines: as asked for, else 10, or an epoch where that is longer."""
    if log_every_steps is not None:
        return log_every_steps
    return max(_LOG_EVERY_STEPS, num_examples // batch_size)


# The flags of a run that begins with the values of another checkpoint, and what they ask for.


def define_init_flags(values: flags.FlagValues) -> None:
    """Defines --init_from, --assign and --exclude in `values`."""
    flag_types.define_path(
        "init_from",
        None,
        "A checkpoint's prefix, or a folder for its newest: the run begins with its values, by "
        "name, in place of initial ones. All variables but an optimizer's have to be in both.",
        values,
    )
    flags.DEFINE_multi_string(
        "assign",
        [],
        "With --init_from: old_scope/=new_scope/ takes only what is in old_scope/ there, for "
        "new_scope/ here; without slashes it names one variable. May be repeated.",
        flag_values=values,
    )
    define_exclude_flag(values, "With --init_from: variables that stay new")
    flags.register_validator(
        "assign",
        lambda rules: all(_is_rule(rule) for rule in rules),
        message="must be old_scope/=new_scope/ or old_name=new_name",
        flag_values=values,
    )
    flags.register_multi_flags_validator(
        ["init_from", "assign", "exclude"],
        lambda given: given["init_from"] or not (given["assign"] or given["exclude"]),
        message="--assign and --exclude need --init_from",
        flag_values=values,
    )


def define_exclude_flag(values: flags.FlagValues, help_text: str) -> None:
    """Defines --exclude, a regular expression, in `values`."""
    flags.DEFINE_string(
        "exclude",
        None,
        f"{help_text}; a regular expression that matches their whole names.",
        flag_values=values,
    )
    flags.register_validator(
        "exclude",
        lambda pattern: pattern is None or _is_pattern(pattern),
        message="must be a regular expression",
        flag_values=values,
    )


def init_from(values: flags.FlagValues) -> InitFrom | None:
    """What the parsed flags ask for; None where they ask for nothing, or are not defined."""
    if "init_from" not in values or values.init_from is None:
        return None
    rules = (rule.partition("=") for rule in values.assign)
    return InitFrom(values.init_from, tuple((old, new) for old, _, new in rules), values.exclude)


def _is_rule(rule: str) -> bool:
    """Whether both sides are scopes (or empty, for all there is), or both are names."""
    old, equals, new = rule.partition("=")
    are_scopes = [not side or side.endswith("/") for side in (old, new)]
    return bool(equals) and "=" not in new and are_scopes[0] == are_scopes[1]


def _is_pattern(text: str) -> bool:
    try:
        return bool(text) and re.compile(text) is not None
    except re.error:
        return False


# The flags that every trainer has, and the config they become.

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


# The flags that say which images are trained on, and how they are read.


def define_data_flags(values: flags.FlagValues, default: str | None) -> None:
    """Defines them in `values`; `default` is that of --data, None where it has to be given."""
    flag_types.define_path(
        "data",
        default,
        f"Images to train on: '{RAMP}'; 'cifar10', 'mnist' or 'fashion_mnist', downloaded once; an "
        ".npz with X [N,32,32,3] and Y [N]; an .npy of any size, images.npy, with the labels in "
        "images.labels.npy; or a folder with one subfolder a class, or with train/ and test/ of "
        "that kind.",
        values,
    )
    if default is None:
        flags.mark_flag_as_required("data", flag_values=values)
    _define_split_flags(values)
    _define_reading_flags(values)


def _define_split_flags(values: flags.FlagValues) -> None:
    """Which of the images are taken, and what for."""
    flags.DEFINE_list(
        "classes",
        [],
        "Classes to train on, such as airplane,ship: in the order of their labels, by name, or by "
        "number where they have no names. All by default.",
        flag_values=values,
    )
    flag_types.define_non_negative_float(
        "validation_fraction",
        0.0,
        "Share of the images held out as the test split, where --data has no test/.",
        values,
        below=1.0,
    )


def _define_reading_flags(values: flags.FlagValues) -> None:
    """How images on disk are read."""
    flags.DEFINE_integer(
        "data_memory_mb",
        DEFAULT_MEMORY_MB,
        "Images of a folder or an .npy that take no more, decoded, are read into memory at the "
        "start; more of them are read as they are needed. It changes no numbers.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "on_bad_image",
        STOP,
        [STOP, SKIP],
        "What an image of a folder or an .npy that cannot be read does: stop the run, or be "
        "skipped, with the next one of the epoch in its place.",
        flag_values=values,
    )
    define_ignore_exif(values)
