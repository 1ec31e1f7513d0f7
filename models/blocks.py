"""What models are built of: variables, random numbers, losses, heads, the learning rate.

`ModelGraph` is what a model hands to whoever trains, saves or describes it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from errors import TrainingError

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(eq=False)
class ModelGraph:
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


class Recipe(NamedTuple):
    """What a training adds to the plain one; by default nothing. Its flags: training/config.py."""

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()  # By label; empty where all classes weigh the same.
    weight_decay: float = 0.0
    clip_norm: float | None = None
    ema_decay: float = 0.0

    @classmethod
    def of(cls, asked: Mapping[str, Any], labels: Array, num_classes: int) -> "Recipe":
        """The recipe that is `asked` for by name, of a training on labels as `cross_entropy` has.

        The balanced weight of a class of n of the N examples, where K classes have some, is
        N / (K n), as scikit-learn has it: each class has the same part of the loss.
        """
        if "class_weights" not in asked:
            return cls(**asked)
        counts = labels.sum(0) if labels.ndim > 1 else np.bincount(labels, minlength=num_classes)
        weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return cls(**{**asked, "class_weights": tuple(weights.tolist())})


PLAIN = Recipe()


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


def results(logits: tf.Tensor, classes: str = "classes") -> dict[str, tf.Tensor]:
    """What a classifier gives, by the names of its signature.

    Logits and probabilities are float32 [N, K], classes int64 [N], of an operation named `classes`.
    """
    return {
        "logits": logits,
        "probabilities": tf.nn.softmax(logits, name="probabilities"),
        "classes": tf.argmax(logits, axis=1, name=classes),
    }


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, recipe: Recipe = PLAIN) -> tf.Tensor:
    """`loss:0`, float32 []: the mean softmax cross entropy of logits, float32 [N, K].

    Labels are int64 [N], in [0, K); or float32 [N, K], each row the shares of the classes, such as
    one-hot. With a smoothing of s, the share p of a class becomes (1 - s) p + s / K: Szegedy et
    al., "Rethinking the Inception architecture for computer vision" (CVPR 2016), section 7. An
    example counts as often as the weight of its class says; the mean is over N all the same, so
    that the mean over equal parts of a batch is that of the whole.
    """
    classes, smoothing = logits.shape[-1], recipe.label_smoothing
    if labels.dtype.is_integer and (smoothing or recipe.class_weights):
        labels = tf.one_hot(labels, classes)
    smooth = labels * (1 - smoothing) + smoothing / classes if smoothing else labels
    losses = (
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        if labels.dtype.is_integer
        else tf.nn.softmax_cross_entropy_with_logits(labels=smooth, logits=logits)
    )
    if recipe.class_weights:
        losses *= tf.reduce_sum(labels * tf.constant(recipe.class_weights, tf.float32), axis=1)
    return tf.reduce_mean(losses, name="loss")


def accuracy(classes: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """`acc:0`, float32 [] in [0, 1]: the share of equal entries of two int64 [N]."""
    return tf.reduce_mean(tf.cast(tf.equal(classes, labels), tf.float32), name="acc")


# The update.


class Part(NamedTuple):
    """Variables that one optimizer updates."""

    optimizer: tf.compat.v1.train.Optimizer
    rate: float | tf.Tensor  # The optimizer's learning rate.
    gradients: Sequence[tf.Tensor]
    variables: Sequence[tf.Variable]
    name: str = "train"  # Of the operation.


def minimize(
    optimizer: tf.compat.v1.train.Optimizer,
    loss: tf.Tensor,
    step: tf.Variable,
    rate: float | tf.Tensor = 0.0,
    recipe: Recipe = PLAIN,
) -> tuple[tf.Operation, tuple[tf.Tensor, ...]]:
    """The operation `train`, an update of all that is trained and of `step`; and the gradients.

    The rate is that of the optimizer; only a recipe with a weight decay needs it.
    """
    gradients, trained = zip(*optimizer.compute_gradients(loss), strict=True)
    return update([Part(optimizer, rate, gradients, trained)], step, recipe), gradients


def update(
    parts: Sequence[Part],
    step: tf.Variable,
    recipe: Recipe = PLAIN,
    before: Sequence[tf.Operation] = (),
) -> tf.Operation:
    """The operation `train`: the update of each part, the last one after `before`, then of `step`.

    All of the recipe follows from the gradients, which may be fed, and from variables:

    - All gradients are divided by their global norm over `clip_norm`, where that is above 1:
      Pascanu et al., "On the difficulty of training recurrent neural networks" (ICML 2013).
    - With the optimizer's own step, of whose slots the decay is no part, w -= rate * weight_decay *
      w, of weights and not of biases, which are variables of fewer than two dimensions: Loshchilov
      and Hutter, "Decoupled weight decay regularization" (ICLR 2019), algorithm 2. The rate is that
      of the step, as AdamW of PyTorch and Keras have it.
    - See `_averages`.
    """
    ready = [gradient for part in parts for gradient in part.gradients]
    if recipe.clip_norm is not None:
        ready, _ = tf.clip_by_global_norm(ready, recipe.clip_norm)
    decays = _decays(parts, recipe.weight_decay) if recipe.weight_decay else []
    is_plain_end = not (decays or recipe.ema_decay)
    waiting, done = iter(ready), [*before]
    for part in parts:
        pairs = [(next(waiting), variable) for variable in part.variables]
        is_last, counted, name = part is parts[-1], None, part.name
        if is_last and is_plain_end:
            counted = step
        elif is_last:
            name = "update"  # What follows it is the rest of the step.
        # They are computed of the values before the update.
        with tf.control_dependencies([by for _, by in decays] + (done if is_last else [])):
            done.append(part.optimizer.apply_gradients(pairs, global_step=counted, name=name))
    if is_plain_end:
        return done[-1]
    with tf.control_dependencies(done):
        done = [variable.assign_sub(by, read_value=False) for variable, by in decays] or done
    with tf.control_dependencies(done):
        trained = [variable for part in parts for variable in part.variables]
        done = _averages(trained, recipe.ema_decay, step) if recipe.ema_decay else done
    with tf.control_dependencies(done):
        train_op = step.assign_add(1, name=parts[-1].name, read_value=False)
    # The optimizers have added operations that are no whole step here.
    train_op.graph.get_collection_ref(tf.compat.v1.GraphKeys.TRAIN_OP)[:] = [train_op]
    return train_op


def _decays(parts: Sequence[Part], decay: float) -> list[tuple[tf.Variable, tf.Tensor]]:
    """By how much each weight decays."""
    return [
        (variable, part.rate * decay * variable)
        for part in parts
        for variable in part.variables
        if len(variable.shape) > 1
    ]


def _averages(
    variables: Sequence[tf.Variable], decay: float, step: tf.Variable
) -> list[tf.Operation]:
    """An update of the moving average of each variable, as tf.train.ExponentialMovingAverage has.

    `<variable>/ExponentialMovingAverage` begins as the variable does, and after `step` updates
    becomes d times itself plus 1 - d times the variable, where d is the least of the decay and
    (1 + step) / (10 + step), so that a short run's averages do not dwell on where it began.

    TensorFlow's own class would begin them with a conditional, and read variables at no set time.
    """
    done, updates = tf.cast(step, tf.float64), []
    new_share = 1 - tf.minimum(tf.constant(decay, tf.float64), (1 + done) / (10 + done))
    for variable in variables:
        name = f"{variable.op.name}/ExponentialMovingAverage"
        with tf.control_dependencies(None):
            # A tensor of its own, as whoever assigns a variable feeds its initial value.
            initial = tf.reshape(variable.initial_value, variable.shape)
            average = tf.compat.v1.get_variable(
                name, initializer=initial, trainable=False, use_resource=False
            )
        if average.op.name != name:
            raise TrainingError(f"the model has a {name} of its own: train without --ema_decay")
        tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.MOVING_AVERAGE_VARIABLES, variable)
        apart = tf.cast(new_share, initial.dtype) * (average - variable.read_value())
        updates.append(average.assign_sub(apart, read_value=False))
    return updates


# The learning rate as a function of `global_step` alone. Another schedule is a field of `Schedule`,
# an entry of its identity, a line of `scheduled`, a name in training/config.py, and in train_cnn.py
# one of the choices of --schedule and what is made of it (`_LEARNING_RATES`, `_schedule`).


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

    With w warm-up steps and the run's last step T, update k (from 0) has the rate

      peak * (k + 1) / w                                  where k < w,
      peak * (1 + cos(pi * (k - w) / (T - w))) / 2        from there on, 0 from k = T on.

    Without `cosine_to`, the rate stays `peak` from k = w on.

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


def head(
    kind: str, features: tf.Tensor, num_classes: int, seed: int
) -> tuple[dict[str, tf.Tensor], tuple[tf.Variable, tf.Variable]]:
    """Adds a head in the present scope; gives the `results` of its logits, and `w` and `b`.

    Logits, `add:0`, are float32 [N, K]. The seed, in [0, 2**32), draws the weights.
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
    return results(logits), (w, b)
