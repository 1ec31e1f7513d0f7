"""Training the perceptron: an epoch a save, and the resumed run that ends with equal bytes."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

import train_mlp
from errors import DataError, TrainingError
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.data.idx_files import digits, write_mnist
from train_mlp import MlpConfig
from training import loop
from training.task import Batch


@pytest.fixture(scope="module")
def mnist_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred digits to train on, twenty to test on."""
    return write_mnist(tmp_path_factory.mktemp("digits") / "MNIST_data", 100, 20)


@pytest.fixture
def config(mlp_config: Callable[..., MlpConfig], mnist_folder: Path, tmp_path: Path) -> MlpConfig:
    """Four epochs of 100 / 16 = 6.25 steps: they end with the steps 7, 13, 19 and 25."""
    return mlp_config(
        tmp_path / "run", data_dir=str(mnist_folder), batch_size=16, epochs=4.0, max_to_keep=0
    )


def _train_and_stop_after(config: MlpConfig, step: int) -> loop.Outcome:
    """Trains; SIGTERM arrives with the batch of this step."""
    task = train_mlp.make_task(config)

    def batches(start: int, stop: int) -> Generator[Batch, None, None]:
        for number, batch in enumerate(task.batches(start, stop), start):
            if number == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    return loop.train(task._replace(batches=batches), config.run)


def _variables(config: MlpConfig) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(config.run.ckpt_dir))
    return {n: reader.get_tensor(n).tobytes() for n in reader.get_variable_to_shape_map()}


def _metrics(config: MlpConfig) -> list[dict[str, float]]:
    with open(f"{config.run.ckpt_dir}/logs/metrics.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _saved(config: MlpConfig) -> list[int]:
    names = (path.stem for path in Path(config.run.ckpt_dir).glob("*.manifest"))
    return sorted(int(name.removeprefix("my-model-")) for name in names)


def _with_run(config: MlpConfig, **changes: Any) -> MlpConfig:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))


def test_each_epoch_is_tested_and_saved(config: MlpConfig) -> None:
    outcome = train_mlp.train(config)
    assert (outcome.step, outcome.exit_code) == (25, 0)
    assert _saved(config) == [7, 13, 19, 25]
    lines = _metrics(config)
    assert [line["step"] for line in lines] == [7, 13, 19, 25]
    assert all({*line} == {"step", "loss", "accuracy", "test_accuracy"} for line in lines)


def test_a_finished_epoch_is_not_trained_again(config: MlpConfig) -> None:
    train_mlp.train(dataclasses.replace(config, epochs=2.0))
    assert _saved(config) == [7, 13]
    task = train_mlp.make_task(config)
    starts: list[int] = []

    def batches(start: int, stop: int) -> Generator[Batch, None, None]:
        starts.append(start)
        return task.batches(start, stop)

    loop.train(task._replace(batches=batches), config.run)
    assert starts == [13]
    assert [line["step"] for line in _metrics(config)] == [7, 13, 19, 25]


def test_an_interrupted_run_ends_with_the_same_bytes(config: MlpConfig, tmp_path: Path) -> None:
    """Stopped within epochs, at the end of one, and never."""
    for step in (2, 7, 17):
        assert _train_and_stop_after(config, step).exit_code == 143
    interrupted = train_mlp.train(config)
    unbroken = _with_run(config, ckpt_dir=str(tmp_path / "unbroken"))
    assert train_mlp.train(unbroken).step == interrupted.step == 25
    assert _variables(config) == _variables(unbroken)
    assert _metrics(config) == _metrics(unbroken)
    assert {7, 13, 19, 25} <= {*_saved(config)}


def test_it_learns_the_digits(config: MlpConfig) -> None:
    train_mlp.train(dataclasses.replace(config, epochs=40.0))
    assert _metrics(config)[-1]["test_accuracy"] == 1.0


def test_the_interval_between_saves_can_be_given(config: MlpConfig) -> None:
    train_mlp.train(_with_run(config, save_every_steps=10, log_every_steps=12))
    assert _saved(config) == [10, 20, 25]
    assert [line["step"] for line in _metrics(config)] == [12, 24, 25]


def test_a_task_without_epochs_is_saved_at_its_end(config: MlpConfig) -> None:
    loop.train(train_mlp.make_task(config)._replace(epoch_steps=None), config.run)
    assert _saved(config) == [25]


def test_the_defaults_of_the_flags() -> None:
    values = flags.FlagValues()
    train_mlp.define_flags(values)
    values(["train_mlp.py"])
    assert (values.ckpt_dir, values.data_dir) == ("ckpt_dir", "MNIST_data/")
    assert (values.batch_size, values.learning_rate) == (128, 1e-3)
    assert (values.save_every_steps, values.max_to_keep) == (None, 5)
    assert (values.epochs, values.train_steps) == (None, None)


def test_a_step_takes_shuffled_digits_and_one_hot_labels(config: MlpConfig) -> None:
    task = train_mlp.make_task(config)
    x, y = (np.concatenate(parts) for parts in zip(*task.batches(0, 25), strict=True))
    images, labels = digits(100, 0)
    # Four epochs, each digit once in each.
    for epoch in range(4):
        rows = slice(100 * epoch, 100 * (epoch + 1))
        assert not np.array_equal(y[rows].argmax(axis=1), labels)
        order = np.lexsort(x[rows].T)
        flat = images.reshape(100, 784) * np.float32(1 / 255)
        expected = np.lexsort(flat.T)
        np.testing.assert_array_equal(x[rows][order], flat[expected])
        np.testing.assert_array_equal(y[rows][order], np.eye(10)[labels[expected]])


def test_the_default_length_is_fifty_epochs(config: MlpConfig) -> None:
    default = dataclasses.replace(config, epochs=None)
    assert train_mlp.make_task(default).last_step == 313  # ceil(50 * 6.25)
    assert train_mlp.make_task(dataclasses.replace(default, train_steps=8)).last_step == 8


def test_the_meta_graph_tells_names_scale_and_signature(config: MlpConfig) -> None:
    outcome = train_mlp.train(dataclasses.replace(config, epochs=None, train_steps=1))
    meta = tf.compat.v1.MetaGraphDef()
    meta.ParseFromString(Path(outcome.prefix + ".meta").read_bytes())
    names = meta.collection_def["class_names"].bytes_list.value
    assert [name.decode() for name in names] == list("0123456789")
    scale = meta.collection_def["input_scale"].float_list.value
    assert np.array(scale, np.float32) == np.float32(1 / 255)
    assert meta.collection_def["image_shape"].int64_list.value == [28, 28, 1]
    signature = meta.signature_def["serving_default"]
    assert {k: t.name for k, t in signature.inputs.items()} == {"X": "X:0"}
    assert {k: t.name for k, t in signature.outputs.items()} == {
        "logits": "logits:0",
        "probabilities": "probabilities:0",
        "classes": "predict_op:0",
    }
    assert {node.device for node in meta.graph_def.node} == {""}


def test_a_stock_client_finds_the_names(config: MlpConfig) -> None:
    """`import_meta_graph`, `restore`, names: the accuracy is that of the log."""
    outcome = train_mlp.train(config)
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
    assert accuracy == pytest.approx(_metrics(config)[-1]["test_accuracy"])
    assert np.mean(classes == labels) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_dir": "nowhere"}, "--data_dir=nowhere: holds no train-images-idx3-ubyte"),
        ({"batch_size": 101}, "--batch_size=101 is more than the 100"),
    ],
)
def test_bad_data_leaves_no_folder(
    config: MlpConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        train_mlp.train(dataclasses.replace(config, **changes))
    assert not os.path.exists(config.run.ckpt_dir)


@pytest.mark.parametrize("changes", [{"batch_size": 17}, {"learning_rate": 1e-2}, {"data_dir": ""}])
def test_a_run_is_not_continued_as_another(
    config: MlpConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    train_mlp.train(dataclasses.replace(config, epochs=1.0))
    if "data_dir" in changes:
        changes = {"data_dir": str(write_mnist(tmp_path / "others", 110, 20))}
    with pytest.raises(TrainingError, match=r"was .*, is now"):
        train_mlp.train(dataclasses.replace(config, **changes))


def test_an_epoch_of_real_digits(
    real_data: Path, mlp_config: Callable[..., MlpConfig], tmp_path: Path
) -> None:
    config = mlp_config(tmp_path / "run", data_dir=f"{real_data}/MNIST_data", epochs=1.0)
    assert train_mlp.train(config).step == 469
    assert _metrics(config)[-1]["test_accuracy"] > 0.94


def test_every_kind_of_digits_is_predicted_alike(config: MlpConfig, tmp_path: Path) -> None:
    """PNG files by class, arrays of either shape and IDX files, against NumPy on the checkpoint."""
    prefix = train_mlp.train(config).prefix
    images, labels = digits(20, 1)
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "folders" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "folders" / str(label) / f"{row:02d}.png")
    np.savez(tmp_path / "square.npz", X=images, Y=labels)
    np.savez(tmp_path / "flat.npz", X=images.reshape(20, 784), Y=labels)
    reader = tf.train.load_checkpoint(prefix)
    hidden = images.reshape(20, 784) / 255.0
    for name in ("w_h", "w_h2"):
        hidden = np.maximum(hidden @ reader.get_tensor(name).astype(np.float64), 0)
    logits = hidden @ reader.get_tensor("w_o").astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    by_class = np.argsort(labels, kind="stable")
    inputs = {"square.npz": slice(None), "flat.npz": slice(None), "folders": by_class}
    idx_file = f"{config.data_dir}/t10k-images-idx3-ubyte"
    for path, order in {idx_file: slice(None), **inputs}.items():
        asked = PredictConfig(prefix + ".meta", input=[str(tmp_path / path)], format="json")
        document = json.loads(predict(asked))
        rows = document["predictions"]
        assert [int(row["class"]) for row in rows] == logits[order].argmax(axis=1).tolist()
        np.testing.assert_allclose(
            [row["probability"] for row in rows], probabilities[order].max(axis=1), rtol=1e-4
        )
        if path != idx_file:
            accuracy = np.mean(logits.argmax(axis=1) == labels)
            assert document["accuracy"] == pytest.approx(accuracy)


def test_other_test_digits_are_another_run(config: MlpConfig, tmp_path: Path) -> None:
    data = write_mnist(tmp_path / "copy", 100, 20)
    config = dataclasses.replace(config, data_dir=str(data))
    train_mlp.train(dataclasses.replace(config, epochs=1.0))
    (labels,) = data.glob("t10k-labels*")
    content = bytearray(labels.read_bytes())
    content[-1] = (content[-1] + 1) % 10
    labels.write_bytes(content)
    with pytest.raises(TrainingError, match="another run: test_data was "):
        train_mlp.train(config)
