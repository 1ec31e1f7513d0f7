"""A frozen network with batch normalisation: its switch on in training, or off.

  python -m benchmarks.frozen_batch_norm --images=../shared/data/cifar4.tar.gz

A CNN with batch normalisation, made and saved by plain TensorFlow, is trained on two of four
classes. A head on it is then trained on 50 images of each of the other two, once with the switch on
(the features are normalised by the statistics of the batch), once with it off (by the moving
averages, as in predictions). Each seed draws other images.
"""

import itertools
import logging
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from benchmarks.measuring import CLASSES, few, run_config, test_accuracy, unpacked
from cli.run import run
from cli.terminal import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

    from data.source import Source

PER_CLASS = 50
BASE_STEPS = 500
BASE_BATCH = 128
STEPS = 300
_DECAY = 0.05  # of the moving averages


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    flags.DEFINE_string(
        "images",
        "../shared/data/cifar4.tar.gz",
        "A .tar.gz with train/ and test/, each with a folder for each of the four classes.",
        flag_values=values,
    )
    flags.DEFINE_integer("seeds", 3, "Runs of each kind.", lower_bound=1, flag_values=values)


def main(values: flags.FlagValues) -> None:
    """Prints the test accuracies, and how much better the switch is off."""
    import_tensorflow()
    logging.getLogger("absl").setLevel(logging.ERROR)
    differences: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = unpacked(values.images, folder)
        for known in itertools.combinations(CLASSES, 2):
            others = tuple(name for name in CLASSES if name not in known)
            base = _train_base(images, folder / "-".join(known), known)
            for seed in range(values.seeds):
                data = few(images, others, folder, PER_CLASS, seed)
                off, on = (_tuned(base, data, switch, seed) for switch in ("false", "true"))
                print(f"to {' and '.join(others)}: off {off:.4f}, on {on:.4f}", flush=True)
                differences.append(off - on)
    better = sum(difference > 0 for difference in differences)
    print(
        f"off is better than on by {statistics.median(differences):+.4f} in the median, in "
        f"{better} of {len(differences)} runs"
    )


def _tuned(base: str, data: Path, switch: str, seed: int) -> float:
    """The test accuracy of a head that was trained with the switch so."""
    from finetune import train
    from finetuning.settings import FinetuneConfig

    folder = data.with_name(f"{data.name}-{switch}")
    train(
        FinetuneConfig(
            run=run_config(folder, seed),
            meta=base,
            tensor="maps",
            data=str(data),
            train_feed=(f"is_training={switch}",),
            train_steps=STEPS,
            batch_size=32,
        )
    )
    return test_accuracy(folder)


def _train_base(images: Path, folder: Path, classes: tuple[str, ...]) -> str:
    """The `.meta` file of the CNN trained on these classes."""
    import tensorflow as tf

    from data.image_data import ReadOptions, open_image_data

    source = open_image_data(
        str(images), ramp_path="", validation_fraction=0.0, seed=0, options=ReadOptions(classes)
    ).train
    folder.mkdir()
    with tf.Graph().as_default():
        _build(len(classes))
        with tf.compat.v1.Session() as session:
            _train(session, source)
            prefix = str(folder / "model")
            tf.compat.v1.train.Saver().save(session, prefix)
    return f"{prefix}.meta"


def _train(session: "tf.compat.v1.Session", source: "Source") -> None:
    import tensorflow as tf

    session.run(tf.compat.v1.global_variables_initializer())
    generator = np.random.default_rng(0)
    for _ in range(BASE_STEPS):
        x, y = source.rows(generator.integers(0, len(source), BASE_BATCH))
        session.run("train", {"x:0": x, "y:0": y, "is_training:0": True})


def _build(num_classes: int) -> None:
    """Two layers of convolution, batch normalisation, ReLU and pooling, and a dense one."""
    import tensorflow as tf

    v1 = tf.compat.v1
    maps = v1.placeholder(tf.float32, [None, 32, 32, 3], name="x")
    y = v1.placeholder(tf.int64, [None], name="y")
    training = v1.placeholder(tf.bool, [], name="is_training")
    for number, channels in enumerate((32, 64)):
        with v1.variable_scope(f"conv{number}"):
            draw = v1.truncated_normal_initializer(stddev=0.1, seed=number)
            w = v1.get_variable("w", [3, 3, maps.shape[-1], channels], initializer=draw)
            maps = _normed(tf.nn.conv2d(maps, w, 1, "SAME"), training)
            maps = tf.nn.max_pool2d(tf.nn.relu(maps), 3, 3, "SAME")
    maps = tf.identity(maps, name="maps")  # [N, 4, 4, 64]
    draw = v1.truncated_normal_initializer(stddev=0.03, seed=2)
    w = v1.get_variable("w", [1024, num_classes], initializer=draw)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=y, logits=tf.matmul(tf.reshape(maps, [-1, 1024]), w)
    )
    with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
        v1.train.AdamOptimizer(1e-3).minimize(tf.reduce_mean(losses), name="train")


def _normed(x: "tf.Tensor", training: "tf.Tensor") -> "tf.Tensor":
    """Batch normalisation (Ioffe and Szegedy, 2015), its averages in the collection UPDATE_OPS."""
    import tensorflow as tf

    v1 = tf.compat.v1
    size, ones, zeros = [x.shape[-1]], v1.ones_initializer(), v1.zeros_initializer()
    gamma = v1.get_variable("gamma", size, initializer=ones)
    beta = v1.get_variable("beta", size, initializer=zeros)
    moving_mean = v1.get_variable("moving_mean", size, initializer=zeros, trainable=False)
    moving_variance = v1.get_variable("moving_variance", size, initializer=ones, trainable=False)
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    for average, present in ((moving_mean, mean), (moving_variance, variance)):
        update = average.assign_sub((average - present) * _DECAY, read_value=False)
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
    mean = tf.where(training, mean, moving_mean)
    variance = tf.where(training, variance, moving_variance)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)


if __name__ == "__main__":
    run(main, define_flags, __doc__)
