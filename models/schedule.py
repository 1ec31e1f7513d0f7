"""The learning rate as a function of `global_step` alone."""

import math
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes; a constant one by default.

    Attributes:
      warmup_steps: the first updates, whose rate grows in equal steps up to the full one; 0 for
        none.
      cosine_to: the run's last step, towards which the rate falls to 0 after the warm-up; more than
        `warmup_steps`. None: it stays.
    """

    warmup_steps: int = 0
    cosine_to: int | None = None

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"there is no warm-up of {self.warmup_steps} steps")
        if self.cosine_to is not None and self.cosine_to <= self.warmup_steps:
            raise ValueError(
                f"a warm-up of {self.warmup_steps} steps leaves nothing of {self.cosine_to}"
            )

    def identity(self) -> dict[str, Any]:
        """What tells runs of different schedules apart; empty for a constant rate."""
        told: dict[str, Any] = {}
        if self.warmup_steps:
            told["warmup_steps"] = self.warmup_steps
        if self.cosine_to is not None:
            told["schedule"] = "cosine"
            told["cosine schedule's last step"] = self.cosine_to
        return told


CONSTANT = Schedule()


def scheduled(peak: float, schedule: Schedule, step: tf.Variable) -> float | tf.Tensor:
    """The learning rate of the update that follows `step` others.

    With w warm-up steps and T the last one, update k (from 0) has the rate

      peak * (k + 1) / w                                  where k < w,
      peak * (1 + cos(pi * (k - w) / (T - w))) / 2        from there on, 0 from k = T on.

    The first line is the gradual warm-up of Goyal et al., "Accurate, large minibatch SGD" (2017),
    section 2.2; the second the cosine annealing of Loshchilov and Hutter, "SGDR" (ICLR 2017),
    equation 5, without restarts and down to 0.

    Args:
      peak: the full rate, above 0.
      schedule: how it goes.
      step: int64 [], updates done.

    Returns:
      `peak` itself where it is constant; else `learning_rate:0`, float32 [].
    """
    if schedule == CONSTANT:
        return peak
    # In float64: float32 counts to 2**24 only. Read once, so that no update comes between.
    done = tf.cast(step, tf.float64)
    rate = tf.constant(peak, tf.float64)
    if schedule.cosine_to is not None:
        falling = schedule.cosine_to - schedule.warmup_steps
        share = tf.clip_by_value((done - schedule.warmup_steps) / falling, 0.0, 1.0)
        rate *= (1 + tf.cos(math.pi * share)) / 2
    if schedule.warmup_steps:
        rate *= tf.minimum((done + 1) / schedule.warmup_steps, 1)
    return tf.cast(rate, tf.float32, name="learning_rate")
