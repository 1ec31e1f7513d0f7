"""A perceptron with two hidden layers for digits of 28x28 pixels.

Tensor names (they never change): inputs `X:0`, `Y:0`, `p_keep_input:0`, `p_keep_hidden:0`;
variables `w_h:0`, `w_h2:0`, `w_o:0`, `global_step:0`; outputs `logits:0`, `probabilities:0`,
`predict_op:0`, `acc:0`, `loss:0`; the collection `predict` holds the logits.
"""

import tensorflow as tf

from models import blocks
from models.blocks import PLAIN, ModelGraph, Recipe

NUM_PIXELS = 28 * 28
NUM_CLASSES = 10
KEEP_INPUT, KEEP_HIDDEN = 0.8, 0.5  # of the dropout before each layer, in training

_HIDDEN_UNITS = 625
_WEIGHT_STDDEV = 0.01
_RMS_DECAY = 0.9
_DROPOUT_STREAM = 100  # Streams below it draw the initial weights; each layer has its own.


def _layer(
    name: str, features: tf.Tensor, units: int, keep_prob: tf.Tensor, seed: int, number: int,
    step: tf.Variable,
) -> tf.Tensor:  # fmt: skip
    """Dropout, then a product with the weights `name`: float32 [N, C] -> [N, units]."""
    shape = [features.shape[-1], units]
    w = blocks.weight(name, shape, blocks.normal(_WEIGHT_STDDEV, seed, number))
    kept = blocks.dropout(features, keep_prob, seed, _DROPOUT_STREAM + number, step)
    return tf.matmul(kept, w)


def inference(
    x: tf.Tensor, keep_input: tf.Tensor, keep_hidden: tf.Tensor, seed: int, step: tf.Variable
) -> tf.Tensor:
    """The network, up to `logits:0`, float32 [N, 10].

    Args:
      x: float32 [N, 784], in [0, 1].
      keep_input: float32 [] in (0, 1]: the share of pixels that dropout keeps.
      keep_hidden: float32 [] in (0, 1]: the same of each hidden layer's units.
      seed: draws the initial weights and the dropout masks.
      step: int64 [], updates done; the masks of a step follow from it and the seed.
    """
    hidden = tf.nn.relu(_layer("w_h", x, _HIDDEN_UNITS, keep_input, seed, 0, step))  # [N, 625]
    hidden = tf.nn.relu(_layer("w_h2", hidden, _HIDDEN_UNITS, keep_hidden, seed, 1, step))
    return tf.identity(_layer("w_o", hidden, NUM_CLASSES, keep_hidden, seed, 2, step), "logits")


def build(*, learning_rate: float, seed: int, recipe: Recipe = PLAIN) -> ModelGraph:
    """Builds the training graph; weights and dropout masks follow from the seed, in [0, 2**32)."""
    graph = tf.Graph()
    with graph.as_default():
        step = blocks.global_step()
        x = tf.compat.v1.placeholder(tf.float32, [None, NUM_PIXELS], name="X")
        labels = tf.compat.v1.placeholder(tf.float32, [None, NUM_CLASSES], name="Y")
        keep_input = tf.compat.v1.placeholder_with_default(1.0, [], name="p_keep_input")
        keep_hidden = tf.compat.v1.placeholder_with_default(1.0, [], name="p_keep_hidden")
        logits = inference(x, keep_input, keep_hidden, seed, step)
        results = blocks.results(logits, classes="predict_op")
        loss = blocks.cross_entropy(logits, labels, recipe)
        tf.compat.v1.add_to_collection("predict", logits)
        optimizer = tf.compat.v1.train.RMSPropOptimizer(learning_rate, decay=_RMS_DECAY)
        accuracy = blocks.accuracy(results["classes"], tf.argmax(labels, axis=1))
        train_op, gradients = blocks.minimize(optimizer, loss, step, learning_rate, recipe)
        return ModelGraph(
            graph=graph,
            inputs=(x, labels),
            training_feeds={keep_input: KEEP_INPUT, keep_hidden: KEEP_HIDDEN},
            loss=loss,
            accuracy=accuracy,
            train_op=train_op,
            gradients=gradients,
            signature_inputs={"X": x},
            signature_outputs=results,
        )
