"""Trains a new head on a part of any model.

  python finetune.py --meta=cifar/my-model-3125.meta --tensor=Relu:0 --data=flowers

takes the network up to the tensor, with the values of its checkpoint, and trains a new last layer
on it for the classes of the data: finetuned/my-model-200 is a checkpoint like any other. What is
taken stays as it is, unless --train_scopes=fc1,conv2 unfreezes parts of it.

Interrupt it and run the same line again: it goes on where it stopped.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import functools
from typing import TYPE_CHECKING, TextIO

from absl import flags

from cli import flag_types
from cli.flag_types import define_max_meta_mb, define_time_limit, define_trust_graph
from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, print_result
from errors import CheckpointError, DataError, TrainingError
from finetuning.settings import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_FINETUNE_RATE,
    DEFAULT_STEPS,
    FinetuneConfig,
)
from training.config import (
    config_of,
    define_data_flags,
    define_exclude_flag,
    define_keep_best_flag,
    define_length_flags,
    define_run_flags,
    intra_op_threads,
)

if TYPE_CHECKING:
    from training.loop import Outcome

_SMALL_BATCH = 32  # images; below it one thread trains faster than two


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    flag_types.define_path(
        "meta",
        None,
        "The model to build on: the .meta file of a checkpoint, another of its files or their "
        "prefix, a folder for its newest checkpoint, a frozen graph, or a SavedModel's folder.",
        values,
    )
    flag_types.define_path(
        "tensor", None, "What the head takes, by name, such as fc1/add:0 or a layer's maps.", values
    )
    flags.mark_flags_as_required(["meta", "tensor"], flag_values=values)
    define_data_flags(values, default=None)
    define_run_flags(values, ckpt_dir="finetuned", init_flags=False)
    define_keep_best_flag(values)
    define_length_flags(values, DEFAULT_STEPS, epochs=True)
    flags.DEFINE_integer(
        "batch_size",
        None,
        f"Images a step; by default {DEFAULT_BATCH_SIZE}, or the one number that the model takes.",
        lower_bound=1,
        flag_values=values,
    )
    _define_head_flags(values)
    _define_unfrozen_flags(values)
    _define_input_flags(values)
    define_max_meta_mb(values)
    define_trust_graph(values)
    define_time_limit(values, "Seconds that reading the model and importing it may take each")


def _define_head_flags(values: flags.FlagValues) -> None:
    """What is new."""
    flags.DEFINE_enum(
        "head",
        "dense",
        ["dense", "conv"],
        "The new layer: dense on the flattened tensor, or for maps [N,H,W,C] a 1x1 convolution and "
        "the mean over all positions.",
        flag_values=values,
    )
    flag_types.define_positive_float("learning_rate", 1e-3, "Of Adam, for the head.", values)


def _define_unfrozen_flags(values: flags.FlagValues) -> None:
    """What becomes of the model in training."""
    flags.DEFINE_list(
        "train_scopes",
        [],
        "Scopes of the model that are trained, too, such as fc1,conv2; by default all is frozen.",
        flag_values=values,
    )
    define_exclude_flag(values, "Variables of the model that are not restored but begin anew")
    flags.DEFINE_multi_string(
        "train_feed",
        [],
        "The value of a placeholder in training, such as keep_prob=0.8; may be repeated. Without "
        "it, switches are on where something is unfrozen, and a dropout keeps a half.",
        flag_values=values,
    )
    flags.register_validator(
        "train_feed",
        lambda texts: all(text.find("=") > 0 for text in texts),
        message="must be name=value",
        flag_values=values,
    )
    flag_types.define_positive_float(
        "finetune_learning_rate",
        None,
        f"Of Adam, for what --train_scopes unfreezes; {DEFAULT_FINETUNE_RATE} by default.",
        values,
    )
    flags.register_multi_flags_validator(
        ["finetune_learning_rate", "train_scopes"],
        lambda given: given["finetune_learning_rate"] is None or given["train_scopes"],
        message="--finetune_learning_rate is that of the scopes that --train_scopes names, and it "
        "names none: give it some, such as --train_scopes=fc1, or set --learning_rate, the head's",
        flag_values=values,
    )


def _define_input_flags(values: flags.FlagValues) -> None:
    """What the model takes."""
    flag_types.define_finite_float(
        "input_scale",
        None,
        "What uint8 pixels are multiplied by; by default what the model says, else 1/255.",
        values,
    )
    flags.register_validator(
        "input_scale",
        lambda scale: scale is None or flag_types.is_normal_float32(scale),
        message="must not be 0, as a float32 either, which makes all images the same",
        flag_values=values,
    )
    flag_types.define_finite_float(
        "input_offset", 0.0, "What is added to the scaled pixels, in the graph.", values
    )


def train(config: FinetuneConfig, terminal: TextIO | None = None) -> "Outcome":
    """Trains to the config's last step; `terminal` as of `training.loop.train`.

    Raises:
      CheckpointError, DataError, TrainingError: what `finetuning.fitting.make_task` and
        `training.loop.train` raise, and one line for an operation of the model that fails.
    """
    import tensorflow as tf

    from finetuning.fitting import make_task
    from metagraph.importing import reason_of_run
    from training import loop

    try:
        return loop.train(make_task(config), config.run, terminal)
    except tf.errors.OpError as error:
        raise TrainingError(f"{config.meta} cannot be trained on{reason_of_run(error)}") from error


def main(values: flags.FlagValues, supervisor: Supervisor | None = None) -> int:
    """Trains as the flags say; `supervisor` is that of this process."""
    small = values.batch_size is not None and values.batch_size < _SMALL_BATCH
    import_tensorflow(intra_op_threads(values, small_steps=small))
    end_after = supervisor.end_after if supervisor else None
    terminal = supervisor.terminal() if supervisor else None
    config = config_of(
        FinetuneConfig, values, max_meta_bytes=values.max_meta_mb << 20, end_after=end_after
    )
    outcome = train(config, terminal)
    return print_result(f"step {outcome.step}: {outcome.prefix}", outcome.exit_code)


if __name__ == "__main__":
    supervisor = Supervisor("give it a smaller --batch_size", waits_for_stop=True)
    run(
        functools.partial(main, supervisor=supervisor),
        define_flags,
        __doc__,
        user_errors=(CheckpointError, DataError, TrainingError),
        supervisor=supervisor,
    )
