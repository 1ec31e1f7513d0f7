"""Training the CNN on each kind of data, up to the resumed run that ends with equal bytes."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import train_cnn
from checkpoints.errors import CheckpointError
from checkpoints.tensor_bundle import BundleWriter
from data.errors import DataError
from train_cnn import CnnConfig
from training import loop
from training.errors import TrainingError
from training.task import Batch

CLASSES = ("cat", "dog", "émeu")


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve training and four test images, of any size."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                noise = generator.integers(0, 60, (40, 36, 3))
                pixels = (noise + np.eye(3, dtype=np.int64)[label] * 190).astype(np.uint8)
                suffix = "png" if number % 2 else "jpg"
                Image.fromarray(pixels).save(folder / split / name / f"{number}.{suffix}")
    return folder


@pytest.fixture
def config(cnn_config: Callable[..., CnnConfig], image_folder: Path, tmp_path: Path) -> CnnConfig:
    """Thirty steps of five images, so that batches span epochs."""
    return cnn_config(
        tmp_path / "run",
        data=str(image_folder),
        batch_size=5,
        train_steps=30,
        log_every_steps=4,
        save_every_steps=7,
    )


def _train_and_stop_after(config: CnnConfig, step: int) -> loop.Outcome:
    """Trains; SIGTERM arrives with the batch of this step."""
    task = train_cnn.make_task(config)

    def batches(start: int, stop: int) -> Generator[Batch, None, None]:
        for number, batch in enumerate(task.batches(start, stop), start):
            if number == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    return loop.train(task._replace(batches=batches), config.run)


def _variables(config: CnnConfig) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(config.run.ckpt_dir))
    return {n: reader.get_tensor(n).tobytes() for n in reader.get_variable_to_shape_map()}


def _metrics(config: CnnConfig) -> str:
    with open(f"{config.run.ckpt_dir}/logs/metrics.jsonl", encoding="utf-8") as file:
        return file.read()


def test_an_interrupted_run_ends_with_the_same_bytes(
    config: CnnConfig, cnn_config: Callable[..., CnnConfig], tmp_path: Path
) -> None:
    """Shuffled batches, dropout, Adam's slots and metrics: stopped five times, and never."""
    for step in (2, 8, 9, 17, 25):
        assert _train_and_stop_after(config, step).exit_code == 143
    interrupted = train_cnn.train(config)
    unbroken = cnn_config(
        tmp_path / "unbroken",
        data=config.data,
        batch_size=5,
        train_steps=30,
        log_every_steps=4,
        save_every_steps=7,
    )
    assert train_cnn.train(unbroken).step == interrupted.step == 30
    assert _variables(config) == _variables(unbroken)
    assert _metrics(config) == _metrics(unbroken)


@pytest.mark.parametrize("where", ["evaluation", "save"])
def test_a_signal_in_an_evaluation_or_a_save_loses_no_step(
    config: CnnConfig, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in the test of step 8, or while step 7 is being written beside the next steps."""
    task = train_cnn.make_task(config)
    evaluations: list[int] = []
    write = BundleWriter.write

    def test_batches() -> Iterable[Batch]:
        evaluations.append(len(evaluations))
        if where == "evaluation" and len(evaluations) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        assert task.test_batches is not None
        return task.test_batches()

    def signalled_write(writer: BundleWriter, prefix: str, values: Any) -> None:
        if where == "save" and prefix.endswith("-7"):
            os.kill(os.getpid(), signal.SIGTERM)
        write(writer, prefix, values)

    monkeypatch.setattr(BundleWriter, "write", signalled_write)
    stopped = loop.train(task._replace(test_batches=test_batches), config.run)
    monkeypatch.undo()
    assert stopped.exit_code == 143
    assert (stopped.step == 8) if where == "evaluation" else (stopped.step >= 7)
    assert os.path.exists(f"{stopped.prefix}.manifest")
    assert train_cnn.train(config).step == 30
    run = dataclasses.replace(config.run, ckpt_dir=str(tmp_path / "unbroken"))
    unbroken = _replace(config, run=run)
    train_cnn.train(unbroken)
    assert _variables(config) == _variables(unbroken)
    assert _metrics(config) == _metrics(unbroken)


def test_it_learns_the_classes_and_says_so(config: CnnConfig) -> None:
    train_cnn.train(config)
    lines = [json.loads(line) for line in _metrics(config).splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert {*lines[0]} == {"step", "loss", "accuracy", "test_accuracy"}
    assert lines[-1]["test_accuracy"] == 1.0


def test_the_meta_graph_tells_names_scale_and_signature(config: CnnConfig) -> None:
    outcome = train_cnn.train(config)
    meta = tf.compat.v1.MetaGraphDef()
    with open(outcome.prefix + ".meta", "rb") as file:
        meta.ParseFromString(file.read())
    names = meta.collection_def["class_names"].bytes_list.value
    assert [name.decode() for name in names] == list(CLASSES)
    scale = meta.collection_def["input_scale"].float_list.value
    assert np.array(scale, np.float32) == np.float32(1 / 255)
    assert "trained_on" not in meta.collection_def
    signature = meta.signature_def["serving_default"]
    assert {k: t.name for k, t in signature.inputs.items()} == {"x": "x:0"}
    assert {k: t.name for k, t in signature.outputs.items()} == {
        "logits": "fc2/add:0",
        "probabilities": "probabilities:0",
        "classes": "classes:0",
    }
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(meta)
        assert graph.get_tensor_by_name("fc2/add:0").shape.as_list() == [None, len(CLASSES)]


def test_the_meta_graph_names_no_device_and_is_equal_at_every_step(config: CnnConfig) -> None:
    train_cnn.train(config)
    folder = Path(config.run.ckpt_dir)
    contents = {(folder / f"my-model-{step}.meta").read_bytes() for step in (21, 28, 30)}
    assert len(contents) == 1
    meta = tf.compat.v1.MetaGraphDef()
    meta.ParseFromString(contents.pop())
    assert {node.device for node in meta.graph_def.node} == {""}


def test_the_ramp_is_kept_beside_the_checkpoints(cnn_run: Path) -> None:
    with np.load(cnn_run / "data10_4.npz") as arrays:
        np.testing.assert_array_equal(
            arrays["X"], np.arange(30720, dtype=np.float32).reshape(10, 32, 32, 3) / 255
        )
        np.testing.assert_array_equal(arrays["Y"], [0, 0, 1, 1, 2, 2, 3, 3, 2, 0])


def test_the_default_run_is_saved_as_the_readme_says(cnn_run: Path) -> None:
    steps = sorted(path.name for path in cnn_run.glob("*.manifest"))
    assert steps == [f"my-model-{step}.manifest" for step in (170, 180, 190, 200)]


def test_epochs_are_passes_over_the_training_images(config: CnnConfig) -> None:
    config = _replace(config, train_steps=None, epochs=2.0)
    assert train_cnn.make_task(config).last_step == 15  # ceil(2 * 36 / 5)


def _replace(config: CnnConfig, **changes: Any) -> CnnConfig:
    return dataclasses.replace(config, **changes)


def test_a_share_of_an_npz_is_held_out(config: CnnConfig, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "d.npz", X=images, Y=np.arange(20) % 2)
    task = train_cnn.make_task(
        _replace(config, data=str(tmp_path / "d.npz"), validation_fraction=0.3)
    )
    assert task.test_batches is not None
    assert sum(len(x) for x, _ in task.test_batches()) == 6
    batch, labels = next(task.batches(0, 1))
    assert (batch.dtype, batch.shape, labels.shape) == (np.float32, (5, 32, 32, 3), (5,))
    assert batch.max() <= 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "nowhere"}, "nowhere"),
        ({"batch_size": 37}, "--batch_size=37 is more than the 36"),
    ],
)
def test_bad_data_leaves_no_folder(
    config: CnnConfig, changes: dict[str, str | int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        train_cnn.train(_replace(config, **changes))
    assert not os.path.exists(config.run.ckpt_dir)


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(config: CnnConfig) -> None:
    task = train_cnn.make_task(config)

    def batches(start: int, stop: int) -> Generator[Batch, None, None]:
        for number, (x, y) in enumerate(task.batches(start, stop), start):
            yield (x * np.float32(3e38), y) if number == 15 else (x, y)

    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 16"):
        loop.train(task._replace(batches=batches), config.run)
    assert tf.train.latest_checkpoint(config.run.ckpt_dir).endswith("my-model-14")
    assert train_cnn.train(config).step == 30


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 6}, {"learning_rate": 1e-2}, {"data": "ramp"}],
)
def test_a_run_is_not_continued_as_another(
    config: CnnConfig, changes: dict[str, float | str]
) -> None:
    train_cnn.train(_replace(config, train_steps=7))
    with pytest.raises((TrainingError, CheckpointError), match=r"was .*, is now|fits this model"):
        train_cnn.train(_replace(config, **changes))
