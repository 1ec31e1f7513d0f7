"""A small convolutional network for colour images, of 32x32 pixels unless another size is given.

Tensor names (they never change): inputs `x:0`, `y_:0`, `keep_prob:0`; variables `conv1/w:0`,
`conv1/b:0`, `conv2/w:0`, `conv2/b:0`, `fc1/w:0`, `fc1/b:0`, `fc2/w:0`, `fc2/b:0`,
`global_step:0`; outputs `fc2/add:0` (logits), `probabilities:0`, `classes:0`, `y_labels:0`,
`acc:0`, `loss:0`; the collection `predict` holds the logits.
"""

import math

import tensorflow as tf

from models import blocks
from models.blocks import CONSTANT, PLAIN, ModelGraph, Recipe, Schedule, scheduled

IMAGE_SHAPE = (32, 32, 3)
KEEP_PROB = 0.5  # of the dropout after fc1, in training

_WEIGHT_STDDEV = 0.1
_INITIAL_BIAS = 0.1
_DROPOUT_STREAM = 100  # Streams below it draw the initial weights.


def _weight_and_bias(shape: list[int], seed: int, stream: int) -> tuple[tf.Variable, tf.Variable]:
    """`w` of the given shape and `b` of its last dimension, in the present scope."""
    w = blocks.weight("w", shape, blocks.truncated_normal(_WEIGHT_STDDEV, seed, stream))
    b = blocks.weight("b", shape[-1:], tf.compat.v1.constant_initializer(_INITIAL_BIAS))
    return w, b


def _convolution(name: str, images: tf.Tensor, channels: int, seed: int, stream: int) -> tf.Tensor:
    """`<name>/MaxPool2d:0`: 3x3 convolution, ReLU, 3x3 max-pooling with stride 3, padded SAME.

    [N, H, W, C] -> [N, ceil(H / 3), ceil(W / 3), channels].
    """
    with tf.compat.v1.variable_scope(name):
        w, b = _weight_and_bias([3, 3, images.shape[-1], channels], seed, stream)
        features = tf.nn.conv2d(images, w, strides=1, padding="SAME")  # [N, H, W, channels]
        # Bias and ReLU never decrease: they give the same after the pooling, on a ninth of the
        # values. The last of the three has the name of the whole.
        greatest = tf.nn.max_pool2d(features, ksize=3, strides=3, padding="SAME", name="Pool")
        return tf.nn.relu(tf.nn.bias_add(greatest, b), name="MaxPool2d")


def _fully_connected(
    name: str, features: tf.Tensor, units: int, seed: int, stream: int
) -> tf.Tensor:
    """`<name>/add:0`, features w + b: float32 [N, C] -> [N, units]."""
    with tf.compat.v1.variable_scope(name):
        w, b = _weight_and_bias([features.shape[-1], units], seed, stream)
        return tf.add(tf.matmul(features, w), b, name="add")


def inference(
    x: tf.Tensor, keep_prob: tf.Tensor, num_classes: int, seed: int, step: tf.Variable
) -> tf.Tensor:
    """The network, up to its logits `fc2/add:0`, float32 [N, num_classes].

    Args:
      x: float32 [N, 32, 32, 3], in [0, 1] for real images; the shapes below are for that size.
      keep_prob: float32 [] in (0, 1]: the share of fc1's units that dropout keeps.
      num_classes: at least 2.
      seed: draws the initial weights and the dropout masks.
      step: int64 [], updates done; the mask of a step follows from it and the seed.
    """
    pooled = _convolution("conv1", x, 32, seed, stream=0)  # [N, 11, 11, 32]
    pooled = _convolution("conv2", pooled, 64, seed, stream=1)  # [N, 4, 4, 64]
    flat = tf.reshape(pooled, [-1, math.prod(pooled.shape[1:])])  # [N, 1024]
    hidden = tf.nn.relu(_fully_connected("fc1", flat, 128, seed, stream=2))  # [N, 128]
    hidden = blocks.dropout(hidden, keep_prob, seed, _DROPOUT_STREAM, step)
    return _fully_connected("fc2", hidden, num_classes, seed, stream=3)


def build(
    *,
    num_classes: int,
    learning_rate: float,
    seed: int,
    schedule: Schedule = CONSTANT,
    image_size: int = IMAGE_SHAPE[0],
    recipe: Recipe = PLAIN,
) -> ModelGraph:
    """Builds the training graph, for images of `image_size` pixels in height and width.

    Initial weights and dropout masks follow from the seed, in [0, 2**32). The learning rate is
    Adam's; where it changes with the step, its greatest value.
    """
    graph = tf.Graph()
    with graph.as_default():
        step = blocks.global_step()
        x = tf.compat.v1.placeholder(tf.float32, [None, image_size, image_size, 3], name="x")
        labels = tf.compat.v1.placeholder(tf.int64, [None], name="y_")
        keep_prob = tf.compat.v1.placeholder_with_default(1.0, [], name="keep_prob")
        logits = inference(x, keep_prob, num_classes, seed, step)
        results = blocks.results(logits)
        tf.one_hot(labels, num_classes, name="y_labels")
        loss = blocks.cross_entropy(logits, labels, recipe)
        tf.compat.v1.add_to_collection("predict", logits)
        rate = scheduled(learning_rate, schedule, step)
        optimizer = tf.compat.v1.train.AdamOptimizer(rate)
        accuracy = blocks.accuracy(results["classes"], labels)
        train_op, gradients = blocks.minimize(optimizer, loss, step, rate, recipe)
        return ModelGraph(
            graph=graph,
            inputs=(x, labels),
            training_feeds={keep_prob: KEEP_PROB},
            loss=loss,
            accuracy=accuracy,
            train_op=train_op,
            gradients=gradients,
            signature_inputs={"x": x},
            signature_outputs=results,
            learning_rate=rate if isinstance(rate, tf.Tensor) else None,
        )
