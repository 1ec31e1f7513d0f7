"""What a run is asked for, whichever model it trains."""

import math
from dataclasses import dataclass
from fractions import Fraction

from checkpoints.retention import Retention

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
