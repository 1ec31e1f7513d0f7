"""Training the perceptron: an epoch a save, and the resumed run that ends with equal bytes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import train_mlp
from cli.fields import parse
from tests import runs
from tests.conftest import Make
from tests.data.idx_files import digits, write_mnist
from tests.test_train_cnn import ADDITIONS
from train_mlp import MlpConfig
from training import loop


@pytest.fixture(scope="module")
def mnist_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred digits to train on, twenty to test on."""
    return write_mnist(tmp_path_factory.mktemp("digits") / "MNIST_data", 100, 20)


@pytest.fixture
def config(mlp_config: Callable[..., MlpConfig], mnist_folder: Path, tmp_path: Path) -> MlpConfig:
    """Four epochs of 100 / 16 = 6.25 steps: they end with the steps 7, 13, 19 and 25."""
    folder, data = tmp_path / "run", str(mnist_folder)
    return mlp_config(folder, data_dir=data, batch_size=16, epochs=4.0, max_to_keep=0)


def _saved(config: MlpConfig) -> list[int]:
    return [*runs.manifests(config.run)]


def test_each_epoch_is_tested_and_saved_and_none_is_trained_again(config: MlpConfig) -> None:
    train_mlp.train(dataclasses.replace(config, epochs=2.0))
    assert _saved(config) == [7, 13]
    asked_for: list[int] = []
    outcome = runs.train_watched(train_mlp.make_task(config), config.run, asked_for.append)
    assert (outcome.step, outcome.exit_code) == (25, 0)
    assert asked_for == list(range(13, 25))
    assert _saved(config) == [7, 13, 19, 25]
    lines = runs.lines(config.run)
    assert [line["step"] for line in lines] == [7, 13, 19, 25]
    assert all({*line} == {"step", "loss", "accuracy", "test_accuracy"} for line in lines)


@pytest.mark.parametrize("additions", [{}, ADDITIONS], ids=["plain", "with all additions"])
def test_an_interrupted_run_ends_with_the_same_bytes(
    config: MlpConfig, tmp_path: Path, additions: dict[str, Any]
) -> None:
    """Stopped within epochs, at the end of one, and never."""
    config = runs.with_run(config, **additions)
    for step in (2, 7, 17):
        task = train_mlp.make_task(config)
        assert runs.train_watched(task, config.run, runs.stop_at(step)).exit_code == 143
    assert train_mlp.train(config).step == 25
    unbroken = runs.with_run(config, ckpt_dir=str(tmp_path / "unbroken"))
    train_mlp.train(unbroken)
    assert runs.same(config.run, unbroken.run)
    assert {7, 13, 19, 25} <= {*_saved(config)}
    identity = runs.manifests(config.run)[25]["config"]
    assert {name: identity.get(name) for name in ADDITIONS} == dict.fromkeys(ADDITIONS) | additions


def test_the_interval_between_saves_can_be_given(config: MlpConfig, tmp_path: Path) -> None:
    train_mlp.train(runs.with_run(config, save_every_steps=10, log_every_steps=12))
    assert _saved(config) == [10, 20, 25]
    assert [line["step"] for line in runs.lines(config.run)] == [12, 24, 25]
    other = runs.with_run(config, ckpt_dir=str(tmp_path / "other"))
    loop.train(train_mlp.make_task(other)._replace(epoch_steps=None), other.run)
    assert _saved(other) == [25]  # A task without epochs is saved at its end.


def test_the_defaults(config: MlpConfig) -> None:
    asked = parse(MlpConfig, ["train_mlp.py"])
    assert (asked.run.ckpt_dir, asked.data_dir) == ("ckpt_dir", "MNIST_data/")
    default = dataclasses.replace(config, epochs=asked.epochs, train_steps=asked.train_steps)
    assert train_mlp.make_task(default).last_step == 313  # ceil(50 * 6.25)
    assert train_mlp.make_task(dataclasses.replace(default, train_steps=8)).last_step == 8


def test_a_step_takes_shuffled_digits_and_one_hot_labels(config: MlpConfig) -> None:
    """Four epochs, each digit once in each."""
    task = train_mlp.make_task(config)
    x, y = (np.concatenate(parts) for parts in zip(*task.batches(0, 25), strict=True))
    images, labels = digits(100, 0)
    flat = images.reshape(100, 784) * np.float32(1 / 255)
    expected = np.lexsort(flat.T)
    for rows, targets in zip(np.split(x, 4), np.split(y, 4), strict=True):
        assert not np.array_equal(targets.argmax(axis=1), labels)
        order = np.lexsort(rows.T)
        np.testing.assert_array_equal(rows[order], flat[expected])
        np.testing.assert_array_equal(targets[order], np.eye(10)[labels[expected]])


def test_a_stock_client_finds_the_names(config: MlpConfig) -> None:
    """`import_meta_graph`, `restore`, names: the accuracy is that of the log."""
    outcome = train_mlp.train(config)
    outputs = {"logits": "logits:0", "probabilities": "probabilities:0", "classes": "predict_op:0"}
    meta = runs.check_description(outcome.prefix, "0123456789", {"X": "X:0"}, outputs)
    assert meta.collection_def["image_shape"].int64_list.value == [28, 28, 1]
    images, labels = digits(20, 1)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(outcome.prefix + ".meta")
        saver.restore(session, outcome.prefix)
        x = images.reshape(20, 784) * np.float32(1 / 255)
        classes, accuracy = session.run(
            [graph.get_tensor_by_name("predict_op:0"), graph.get_tensor_by_name("acc:0")],
            {"X:0": x, "Y:0": np.eye(10)[labels]},
        )
        assert session.run("global_step:0") == 25
    assert accuracy == pytest.approx(runs.lines(config.run)[-1]["test_accuracy"])
    assert np.mean(classes == labels) == pytest.approx(accuracy)


def test_an_epoch_of_real_digits(real_data: Path, mlp_config: Make, tmp_path: Path) -> None:
    config = mlp_config(tmp_path / "run", data_dir=f"{real_data}/MNIST_data", epochs=1.0)
    assert train_mlp.train(config).step == 469
    assert runs.lines(config.run)[-1]["test_accuracy"] > 0.94
