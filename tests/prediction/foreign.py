"""Graphs as others made them, in plain TensorFlow: each saves one and returns its `.meta` file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.prediction import stock

v1 = tf.compat.v1


def save(folder: Path, build: Callable[[], object]) -> str:
    """Saves what `build` builds, and one variable so that there is a checkpoint."""
    with stock.checkpoint(folder / "m-1"):
        v1.get_variable("bias", initializer=np.float32(0.5), use_resource=False)
        build()
    return f"{folder}/m-1.meta"


def bias() -> tf.Tensor:
    """The variable that `save` adds: 0.5."""
    (variable,) = v1.global_variables()
    return variable


def fixed_batch(size: int) -> None:
    """[size, 3] in; per row `y` [size, 2]; `flat` [2 * size]; `mean` over all."""
    x = v1.placeholder(tf.float32, [size, 3], name="x")
    y = tf.add(tf.stack([x[:, 0] * x[:, 1], x[:, 2] ** 2], axis=1), bias(), name="y")
    tf.reshape(y, [2 * size], name="flat")
    tf.reshape(tf.transpose(y), [2 * size], name="interleaved")
    tf.reduce_mean(y, name="mean")
    tf.identity(tf.boolean_mask(y, y[:, 0] > 0), name="masked")
    labels = v1.placeholder(tf.float32, [size], name="labels")
    tf.add(labels * 100.0, x[:, 0], name="labelled")


def encoded_images() -> None:
    """The bytes of image files [?] in, `pixels` [?, 4, 4, 3] uint8."""
    files = v1.placeholder(tf.string, [None], name="files")
    decoded = tf.map_fn(lambda file: tf.io.decode_png(file, 3), files, fn_output_signature=tf.uint8)
    tf.reshape(decoded, [-1, 4, 4, 3], name="pixels")
    tf.cast(bias(), tf.uint8)


def endless() -> None:
    """`loop` is a loop without an end."""
    end = v1.while_loop(lambda i: i >= 0, lambda i: tf.nn.relu(i * 0.5), [bias()], name="while")
    tf.identity(end, name="loop")


def bfloat16() -> None:
    """`x` [?, 2] in, `y` is x doubled, of the same dtype."""
    x = v1.placeholder(tf.bfloat16, [None, 2], name="x")
    tf.add(x, x, name="y")


def mixed() -> None:
    """A switch, an int scalar and a string scalar decide on `y` [?]."""
    x = v1.placeholder(tf.float32, [None], name="x")
    training = v1.placeholder(tf.bool, [], name="training")
    times = v1.placeholder(tf.int32, [], name="times")
    text = v1.placeholder(tf.string, [], name="text")
    factor = tf.cast(times + tf.strings.length(text), tf.float32, name="factor")
    hidden = tf.multiply(x, factor, name="hidden")
    tf.add(tf.where(training, hidden, -hidden), bias(), name="y")


def three_inputs() -> None:
    """`a` [?, 3], `b` [?] and `words` [?], strings, in; `y` [?]."""
    a = v1.placeholder(tf.float32, [None, 3], name="a")
    b = v1.placeholder(tf.float32, [None], name="b")
    words = v1.placeholder(tf.string, [None], name="words")
    lengths = tf.cast(tf.strings.length(words), tf.float32)
    tf.add(tf.reduce_sum(a, axis=1) * b, lengths, name="y")
