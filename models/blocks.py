"""What models are built of: variables, random numbers, losses, heads, the learning rate.

`ModelGraph` is what a model hands to whoever trains, saves or describes it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf


class ModelGraph(NamedTuple):
    """The handles of one training graph.

    Attributes:
      inputs: the placeholders that a batch is fed to, in the batch's order.
      training_feeds: what else is fed in a training step, such as a dropout's keep probability;
        their defaults are those of inference.
      loss: float32 [], the batch's loss before the step's update.
      accuracy: float32 [] in [0, 1], or None where the model has none.
      train_op: one update of the weights and of `global_step`.
      gradients: by each variable that is trained, and all that `train_op` takes of a batch: where
        they are fed, it is the update for the gradients that are given.
      signature_inputs: argument name -> tensor, of the signature `serving_default`.
      signature_outputs: result name -> tensor, of the same.
      learning_rate: float32 [], the present update's; None where it is the same for all.
    """

    graph: tf.Graph
    inputs: tuple[tf.Tensor, ...]
    training_feeds: Mapping[tf.Tensor, Any]
    loss: tf.Tensor
    accuracy: tf.Tensor | None
    train_op: tf.Operation
    gradients: tuple[tf.Tensor, ...]
    signature_inputs: Mapping[str, tf.Tensor]
    signature_outputs: Mapping[str, tf.Tensor]
    learning_rate: tf.Tensor | None = None


# Variables whose name is a tensor of their value, as TF1 clients expect.


def weight(name: str, shape: Sequence[int], initializer: Callable[..., tf.Tensor]) -> tf.Variable:
    """A trainable float32 variable.

    It is a ref variable: the tensor `<name>:0` is its value, so that it can be fetched by name.
    `<name>:0` of a resource variable is a handle that no client can read.
    """
    return tf.compat.v1.get_variable(
        name, shape, tf.float32, initializer=initializer, use_resource=False
    )


def global_step() -> tf.Variable:
    """The graph's `global_step:0`, int64 []: updates done. Created once a graph."""
    return tf.compat.v1.get_variable(
        "global_step",
        [],
        tf.int64,
        initializer=tf.compat.v1.zeros_initializer(),
        trainable=False,
        collections=[tf.compat.v1.GraphKeys.GLOBAL_VARIABLES, tf.compat.v1.GraphKeys.GLOBAL_STEP],
        use_resource=False,
    )


# Random numbers that follow from a seed, a stream and a step alone: TensorFlow's stateless
# generators draw the same from the same pair of integers, whatever ran before.

_INITIAL_STEP = -1  # No update has this number: initial values and masks never share a draw.
_SEED_BITS = 32


def key(seed: int, stream: int, step: int | tf.Tensor) -> tf.Tensor:
    """The generator's key for one draw, int64 [2].

    From the run's seed, in [0, 2**32), a stream in [0, 2**31), which tells the draws of one step
    apart, and the updates done so far, int64 [].
    """
    return tf.stack([tf.constant(stream << _SEED_BITS | seed, tf.int64), tf.cast(step, tf.int64)])


def _initializer(
    draw: Callable[[Sequence[int], tf.Tensor], tf.Tensor], seed: int, stream: int
) -> Callable[..., tf.Tensor]:
    """`draw`, of a shape and a key, as `tf.compat.v1.get_variable` calls an initializer."""

    def initializer(shape: Sequence[int], dtype: Any = None, partition_info: Any = None) -> Any:
        del dtype, partition_info  # All variables here are float32 and whole.
        return draw(shape, key(seed, stream, _INITIAL_STEP))

    return initializer


def uniform(low: float, high: float, seed: int, stream: int) -> Callable[..., tf.Tensor]:
    """An initializer: float32 values, uniform in [low, high)."""
    op = tf.raw_ops.StatelessRandomUniform
    return _initializer(lambda s, k: low + (high - low) * op(shape=s, seed=k), seed, stream)


def normal(stddev: float, seed: int, stream: int) -> Callable[..., tf.Tensor]:
    """An initializer: float32 values, normal around 0."""
    op = tf.raw_ops.StatelessRandomNormal
    return _initializer(lambda s, k: stddev * op(shape=s, seed=k), seed, stream)


def truncated_normal(stddev: float, seed: int, stream: int) -> Callable[..., tf.Tensor]:
    """An initializer: float32 values, normal around 0, redrawn beyond two standard deviations."""
    op = tf.raw_ops.StatelessTruncatedNormal
    return _initializer(lambda s, k: stddev * op(shape=s, seed=k), seed, stream)


def dropout(
    values: tf.Tensor, keep_prob: tf.Tensor, seed: int, stream: int, step: tf.Tensor
) -> tf.Tensor:
    """Keeps each value with probability `keep_prob`, scaled by 1 / keep_prob; else 0.

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15 (2014), in its inverted form. Takes values float32 [N, ...] and keep_prob float32 [] in
    (0, 1]; at 1.0 the values pass unchanged, to the bit. What is drawn is as of `key`.
    """
    drawn = tf.raw_ops.StatelessRandomUniform(shape=tf.shape(values), seed=key(seed, stream, step))
    # `drawn` is in [0, 1), so all of it lies below a keep_prob of 1.
    return values * (tf.cast(drawn < keep_prob, tf.float32) / keep_prob)


# What classifiers share.


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """`loss:0`, float32 []: the mean softmax cross entropy of logits, float32 [N, K].

    Labels are int64 [N], in [0, K); or float32 [N, K], each row the shares of the classes, such as
    one-hot.
    """
    losses = (
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        if labels.dtype.is_integer
        else tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
    return tf.reduce_mean(losses, name="loss")


def accuracy(classes: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """`acc:0`, float32 [] in [0, 1]: the share of equal entries of two int64 [N]."""
    return tf.reduce_mean(tf.cast(tf.equal(classes, labels), tf.float32), name="acc")


def minimize(
    optimizer: tf.compat.v1.train.Optimizer, loss: tf.Tensor, step: tf.Variable
) -> tuple[tf.Operation, tuple[tf.Tensor, ...]]:
    """The operation `train`, an update of all that is trained and of `step`; and the gradients."""
    pairs = optimizer.compute_gradients(loss)
    train_op = optimizer.apply_gradients(pairs, global_step=step, name="train")
    return train_op, tuple(gradient for gradient, _ in pairs)


# The learning rate as a function of `global_step` alone. Another schedule is a field of `Schedule`,
# an entry of its identity, a line of `scheduled`, a name in training/config.py, and what
# train_cnn.py makes of --schedule (`_LEARNING_RATES`, `_schedule`).


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes; a constant one by default.

    The rate of the first `warmup_steps` updates grows in equal steps to the full one. From there it
    falls to 0 at `cosine_to`, the run's last step; it stays where that is None.
    """

    warmup_steps: int = 0
    cosine_to: int | None = None

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


# A new last layer on the features of another network.

DENSE, CONV = "dense", "conv"
_HEAD_STREAM = 0


class Head(NamedTuple):
    """The results of a head."""

    logits: tf.Tensor  # `add:0`, float32 [N, K]
    probabilities: tf.Tensor  # `probabilities:0`, float32 [N, K]
    classes: tf.Tensor  # `classes:0`, int64 [N]
    variables: tuple[tf.Variable, tf.Variable]  # `w` and `b`

    @property
    def outputs(self) -> dict[str, tf.Tensor]:
        """The results by the names of the signature."""
        return {"logits": self.logits, "probabilities": self.probabilities, "classes": self.classes}


def head(kind: str, features: tf.Tensor, num_classes: int, seed: int) -> Head:
    """Adds a head in the present scope; the seed, in [0, 2**32), draws its weights.

    `DENSE` flattens features, float32 [N, ...] of known sizes but N, and multiplies them by
    w [D, K]. `CONV` takes [N, H, W, C], C known, and gives the mean over all positions of a 1x1
    convolution with w [1, 1, C, K]. Both add b [K], at first zeros. The weights have a standard
    deviation of 1 / sqrt(inputs), so that outputs are of the size of the inputs: LeCun et al.,
    "Efficient BackProp" (1998), section 4.6.
    """
    inputs = features.shape[-1] if kind == CONV else math.prod(features.shape[1:])
    shape = [1, 1, inputs, num_classes] if kind == CONV else [inputs, num_classes]
    w = weight("w", shape, truncated_normal(1 / math.sqrt(max(inputs, 1)), seed, _HEAD_STREAM))
    b = weight("b", [num_classes], tf.compat.v1.zeros_initializer())
    if kind == CONV:
        scores = tf.nn.conv2d(features, w, strides=1, padding="VALID")  # [N, H, W, K]
        # The mean of scores + b is that of the scores, plus b.
        logits = tf.add(tf.reduce_mean(scores, axis=[1, 2]), b, name="add")
    else:
        flat = tf.reshape(features, [-1, inputs])  # [N, D]
        logits = tf.add(tf.matmul(flat, w), b, name="add")
    return Head(
        logits=logits,
        probabilities=tf.nn.softmax(logits, name="probabilities"),
        classes=tf.argmax(logits, axis=1, name="classes"),
        variables=(w, b),
    )
