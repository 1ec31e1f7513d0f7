"""Random numbers that follow from a seed, a stream and a step alone.

TensorFlow's stateless generators draw the same numbers from the same pair of integers, whatever
ran before; so an initial value or a dropout mask is a pure function of the run's seed, and a
resumed run draws what an unbroken one would have drawn.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_INITIAL_STEP = -1  # No update has this number: initial values and masks never share a draw.
_SEED_BITS = 32


def key(seed: int, stream: int, step: int | tf.Tensor) -> tf.Tensor:
    """The generator's key for one draw.

    Args:
      seed: the run's seed, in [0, 2**32).
      stream: tells the draws of one step apart, in [0, 2**31).
      step: updates done so far, int64 [].

    Returns:
      int64 [2].
    """
    return tf.stack([tf.constant(stream << _SEED_BITS | seed, tf.int64), tf.cast(step, tf.int64)])


def _initializer(draw: Callable[[Sequence[int]], tf.Tensor]) -> Callable[..., tf.Tensor]:
    """`draw` under the arguments that `tf.compat.v1.get_variable` calls an initializer with."""

    def initializer(shape: Sequence[int], dtype: Any = None, partition_info: Any = None) -> Any:
        del dtype, partition_info  # All variables here are float32 and whole.
        return draw(shape)

    return initializer


def uniform(low: float, high: float, seed: int, stream: int) -> Callable[..., tf.Tensor]:
    """An initializer: float32 values, uniform in [low, high)."""
    return _initializer(
        lambda shape: (
            low
            + (high - low)
            * tf.raw_ops.StatelessRandomUniform(shape=shape, seed=key(seed, stream, _INITIAL_STEP))
        )
    )


def normal(stddev: float, seed: int, stream: int) -> Callable[..., tf.Tensor]:
    """An initializer: float32 values, normal around 0."""
    return _initializer(
        lambda shape: (
            stddev
            * tf.raw_ops.StatelessRandomNormal(shape=shape, seed=key(seed, stream, _INITIAL_STEP))
        )
    )


def truncated_normal(stddev: float, seed: int, stream: int) -> Callable[..., tf.Tensor]:
    """An initializer: float32 values, normal around 0, redrawn beyond two standard deviations."""
    return _initializer(
        lambda shape: (
            stddev
            * tf.raw_ops.StatelessTruncatedNormal(
                shape=shape, seed=key(seed, stream, _INITIAL_STEP)
            )
        )
    )


def dropout(
    values: tf.Tensor, keep_prob: tf.Tensor, seed: int, stream: int, step: tf.Tensor
) -> tf.Tensor:
    """Keeps each value with probability `keep_prob`, scaled by 1 / keep_prob; else 0.

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15 (2014), in its inverted form. At keep_prob 1.0 the values pass unchanged, to the bit.

    Args:
      values: float32 [N, ...].
      keep_prob: float32 [] in (0, 1].
      seed: the run's seed.
      stream: tells this dropout's draws from all others of the step.
      step: int64 [], the variable that counts updates: the mask follows from it and the seed.

    Returns:
      float32, the shape of `values`.
    """
    drawn = tf.raw_ops.StatelessRandomUniform(shape=tf.shape(values), seed=key(seed, stream, step))
    # `drawn` is in [0, 1), so all of it lies below a keep_prob of 1.
    return values * (tf.cast(drawn < keep_prob, tf.float32) / keep_prob)
