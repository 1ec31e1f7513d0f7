"""Small checkpoints to mutate, one for each thing that a graph may be made of.

Each takes `x:0` float32 [?, 4] and computes `y:0` float32 [?, 2] of it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def write_models(folder: Path) -> None:
    """Writes `<folder>/<name>/m.{meta,index,data-*}` of every model. It runs sessions."""
    for name, build in MODELS.items():
        (folder / name).mkdir(parents=True)
        with tf.Graph().as_default():
            x = v1.placeholder(tf.float32, [None, 4], name="x")
            y = tf.identity(build(x), name="y")
            v1.add_to_collection("predict", y)
            saver = v1.train.Saver()
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                saver.save(session, str(folder / name / "m"))


def _weights(name: str = "w", columns: int = 2) -> tf.Tensor:
    initial = np.linspace(0.5, 1.5, 4 * columns, dtype=np.float32).reshape(4, columns)
    return v1.get_variable(name, initializer=initial, use_resource=False)


def _linear(x: tf.Tensor) -> tf.Tensor:
    """With a loss and the optimizer that trains it."""
    y = tf.matmul(x, _weights())
    v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_mean(tf.square(y)))
    return y


def _cnn(x: tf.Tensor) -> tf.Tensor:
    """With batch normalization, dropout and a summary."""
    kernel = v1.get_variable("kernel", initializer=np.ones((2, 2, 1, 3), np.float32))
    images = tf.reshape(x, [-1, 2, 2, 1])
    hidden = tf.nn.relu(tf.nn.conv2d(images, kernel, strides=1, padding="SAME"))
    ones, zeros = tf.ones([3]), tf.zeros([3])
    normal, *_ = v1.nn.fused_batch_norm(hidden, ones, zeros, zeros, ones, is_training=False)
    pooled = tf.nn.max_pool2d(normal, 2, 2, "SAME")
    dropped = tf.nn.dropout(tf.reshape(pooled, [-1, 3]), rate=v1.placeholder_with_default(0.0, []))
    v1.summary.histogram("dropped", dropped)
    return tf.nn.softmax(dropped[:, :2])


def _old_control_flow(build: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same with Switch, Merge, Enter and so on in place of functions."""

    def built(x: tf.Tensor) -> tf.Tensor:
        v1.disable_control_flow_v2()
        try:
            return build(x)
        finally:
            v1.enable_control_flow_v2()

    return built


def _loop(x: tf.Tensor) -> tf.Tensor:
    w = _weights()
    _, y = tf.while_loop(
        lambda i, _: i < 3,
        lambda i, y: (i + 1, y + tf.matmul(x, w)),
        (tf.constant(0), tf.matmul(x, w)),
        maximum_iterations=10,
    )
    return y


def _condition(x: tf.Tensor) -> tf.Tensor:
    w = v1.get_variable("w", initializer=np.ones((4, 2), np.float32), use_resource=True)
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, w), lambda: tf.matmul(-x, w) + 1.0)


def _functions(x: tf.Tensor) -> tf.Tensor:
    """A function that calls another."""
    inner = tf.function(lambda a, b: tf.matmul(a, b) * 2.0)
    outer = tf.function(lambda a, b: inner(a, b) - inner(-a, b))
    return outer(x, _weights())


def _partitioned(x: tf.Tensor) -> tf.Tensor:
    w = v1.get_variable(
        "w",
        initializer=lambda shape, **_: tf.ones(shape),
        shape=[4, 2],
        partitioner=v1.fixed_size_partitioner(2),
        use_resource=False,
    )
    return tf.matmul(x, tf.convert_to_tensor(w))


def _texts(x: tf.Tensor) -> tf.Tensor:
    """A table, and numbers that go through text."""
    numbers = tf.strings.to_number(tf.strings.as_string(x))
    initial = tf.lookup.KeyValueTensorInitializer(
        tf.constant([b"a", b"b"]), tf.constant([1.0, 2.0])
    )
    table = tf.lookup.StaticHashTable(initial, 0.0)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, table._initializer)  # noqa: SLF001
    return tf.matmul(numbers, _weights()) + v1.placeholder_with_default(0.0, [])


def _pipeline(x: tf.Tensor) -> tf.Tensor:
    """An iterator and a queue, on the side."""
    data = tf.data.Dataset.from_tensors(np.ones((1, 2), np.float32)).repeat()
    pulled = v1.data.make_initializable_iterator(data).get_next()
    queue = v1.FIFOQueue(4, [tf.float32], shapes=[[2]])
    tf.reduce_sum(queue.dequeue_many(2) + pulled, name="training_only")
    return tf.matmul(x, _weights())


MODELS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "linear": _linear,
    "cnn": _cnn,
    "while": _loop,
    "while_v1": _old_control_flow(_loop),
    "cond": _condition,
    "cond_v1": _old_control_flow(_condition),
    "functions": _functions,
    "partitioned": _partitioned,
    "texts": _texts,
    "pipeline": _pipeline,
}
