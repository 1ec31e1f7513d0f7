"""What classifiers share: the loss and the measure of their logits."""

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """`loss:0`, float32 []: the mean softmax cross entropy.

    Args:
      logits: float32 [N, K].
      labels: int64 [N], in [0, K); or float32 [N, K], each row the shares of the classes, such as
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
