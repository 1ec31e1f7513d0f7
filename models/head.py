"""A new last layer on the features of another network.

Tensor names, in the scope that the caller has opened, `head`: variables `head/w:0`, `head/b:0`;
`head/add:0` (logits), `head/probabilities:0`, `head/classes:0`.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from models import blocks

DENSE, CONV = "dense", "conv"

_WEIGHT_STREAM = 0


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


def build(kind: str, features: tf.Tensor, num_classes: int, seed: int) -> Head:
    """Adds a head of a kind, `DENSE` or `CONV`; the seed, in [0, 2**32), draws its weights."""
    logits, w, b = (dense if kind == DENSE else conv)(features, num_classes, seed)
    return Head(
        logits=logits,
        probabilities=tf.nn.softmax(logits, name="probabilities"),
        classes=tf.argmax(logits, axis=1, name="classes"),
        variables=(w, b),
    )


def dense(
    features: tf.Tensor, num_classes: int, seed: int
) -> tuple[tf.Tensor, tf.Variable, tf.Variable]:
    """Flattened features, float32 [N, ...] of known sizes but N, times w [D, K], plus b [K].

    Gives the logits `add:0`, float32 [N, K]; w; b.
    """
    size = math.prod(features.shape[1:])
    w, b = _weight_and_bias([size, num_classes], size, seed)
    flat = tf.reshape(features, [-1, size])  # [N, D]
    return tf.add(tf.matmul(flat, w), b, name="add"), w, b


def conv(
    features: tf.Tensor, num_classes: int, seed: int
) -> tuple[tf.Tensor, tf.Variable, tf.Variable]:
    """The mean over all positions of a 1x1 convolution of features, float32 [N, H, W, C], C known.

    Gives the logits `add:0`, float32 [N, K]; w [1, 1, C, K]; b [K].
    """
    channels = features.shape[-1]
    w, b = _weight_and_bias([1, 1, channels, num_classes], channels, seed)
    scores = tf.nn.conv2d(features, w, strides=1, padding="VALID")  # [N, H, W, K]
    # The mean of scores + b is that of the scores, plus b.
    return tf.add(tf.reduce_mean(scores, axis=[1, 2]), b, name="add"), w, b


def _weight_and_bias(shape: list[int], inputs: int, seed: int) -> tuple[tf.Variable, tf.Variable]:
    """Weights with a standard deviation of 1 / sqrt(inputs), and zeros.

    LeCun et al., "Efficient BackProp" (1998), section 4.6: outputs of the size of the inputs.
    """
    draw = blocks.truncated_normal(1 / math.sqrt(max(inputs, 1)), seed, _WEIGHT_STREAM)
    w = blocks.weight("w", shape, draw)
    return w, blocks.weight("b", shape[-1:], tf.compat.v1.zeros_initializer())
