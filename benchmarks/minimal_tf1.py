"""The shortest TF1 script for the CNN on the ramp: what `train_cnn.py` is timed against.

It does the same 200 steps on the ramp and saves every ten with a stock Saver, and has none of the
rest: no resume, no metrics, no progress, no flush to the disk, no checks.
"""

import os
import sys

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def _variables(layer: str, shape: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
    with v1.variable_scope(layer, use_resource=False):
        w = v1.get_variable("w", shape, initializer=v1.truncated_normal_initializer(stddev=0.1))
        b = v1.get_variable("b", shape[-1:], initializer=v1.constant_initializer(0.1))
    return w, b


def _convolution(layer: str, inputs: tf.Tensor, shape: list[int]) -> tf.Tensor:
    w, b = _variables(layer, shape)
    features = tf.nn.relu(tf.nn.conv2d(inputs, w, 1, "SAME") + b)
    return tf.nn.max_pool2d(features, 3, 3, "SAME")


def _dense(layer: str, inputs: tf.Tensor, shape: list[int]) -> tf.Tensor:
    w, b = _variables(layer, shape)
    return tf.add(tf.matmul(inputs, w), b, name=f"{layer}/add")


def main(folder: str) -> None:
    """Trains and saves into `folder`."""
    v1.disable_eager_execution()
    x = v1.placeholder(tf.float32, [None, 32, 32, 3], name="x")
    y = v1.placeholder(tf.int64, [None], name="y_")
    keep_prob = v1.placeholder_with_default(1.0, [], name="keep_prob")
    hidden = _convolution("conv1", x, [3, 3, 3, 32])
    hidden = tf.reshape(_convolution("conv2", hidden, [3, 3, 32, 64]), [-1, 1024])
    hidden = tf.nn.relu(_dense("fc1", hidden, [1024, 128]))
    hidden = v1.nn.dropout(hidden, rate=1 - keep_prob)
    logits = _dense("fc2", hidden, [128, 4])
    loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits), name="loss"
    )
    step = v1.train.get_or_create_global_step()
    train = v1.train.AdamOptimizer(1e-3).minimize(loss, global_step=step)
    saver = v1.train.Saver(max_to_keep=4)

    images = np.arange(30720, dtype=np.float32).reshape(10, 32, 32, 3) / 255
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3, 2, 0])
    os.makedirs(folder, exist_ok=True)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for k in range(1, 201):
            value, _ = session.run([loss, train], {x: images, y: labels, keep_prob: 0.5})
            if k % 10 == 0:
                print(f"step {k} loss {value:.4f}")
                saver.save(session, os.path.join(folder, "my-model"), global_step=step)


if __name__ == "__main__":
    main(sys.argv[1])
