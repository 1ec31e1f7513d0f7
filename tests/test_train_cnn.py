"""Training the CNN on each kind of data, up to the resumed run that ends with equal bytes."""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

import train_cnn
from checkpoints import bundle, writer
from checkpoints.folder import best_checkpoint
from cli.fields import parse
from cli.terminal import ONEDNN_VARIABLE, is_off
from errors import DataError, TrainingError, UserError
from finetuning import FinetuneConfig
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests import runs
from tests.conftest import Log, Patch
from tests.runs import send, with_run
from train_cnn import CnnConfig
from train_mlp import MlpConfig
from training import loop
from training.task import Batch, Evaluation, GraphSession

CLASSES = ("cat", "dog", "émeu")
ADDITIONS = {
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "ema_decay": 0.8,
}


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve training and four test images, of any size."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, label, number in itertools.product(("train", "test"), range(3), range(12)):
        if split == "train" or number < 4:
            noise = generator.integers(0, 60, (40, 36, 3))
            pixels = (noise + np.eye(3, dtype=np.int64)[label] * 190).astype(np.uint8)
            path = folder / split / CLASSES[label] / f"{number}.{'png' if number % 2 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def config(cnn_config: Callable[..., CnnConfig], image_folder: Path, tmp_path: Path) -> CnnConfig:
    """Thirty steps of five images, so that batches span epochs."""
    every = {"log_every_steps": 4, "save_every_steps": 7}
    folder, data = tmp_path / "run", str(image_folder)
    return cnn_config(folder, data=data, batch_size=5, train_steps=30, **every)


def _train_and_stop_at(config: CnnConfig, step: int) -> int:
    """The exit code."""
    task = train_cnn.make_task(config)
    return runs.train_watched(task, config.run, runs.stop_at(step)).exit_code


def test_of_few_images_a_batch_has_all(config: CnnConfig, tmp_path: Path) -> None:
    """Unless it is said how many; of more it has 64."""
    for count, expected in ((12, 12), (70, 64)):
        path = str(tmp_path / f"{count}.npz")
        x = np.zeros((count, 32, 32, 3), np.uint8)
        np.savez(path, X=x, Y=np.arange(count) % 4)
        task = train_cnn.make_task(dataclasses.replace(config, data=path, batch_size=None))
        assert (task.batch_size, task.identity["batch_size"]) == (expected, expected)
        with closing(task.batches(0, 1)) as batches:
            assert next(batches)[0].shape == (expected, 32, 32, 3)


@pytest.mark.parametrize("where", ["evaluation", "save"])
def test_signals_lose_no_step(
    config: CnnConfig, tmp_path: Path, where: str, monkeypatch: Patch
) -> None:
    """SIGTERM in the test of step 8, or while step 7 is being written beside the next steps."""
    task = train_cnn.make_task(config)
    evaluations = itertools.count(1)
    write = bundle.write_bundle

    def test_batches() -> Iterable[Batch]:
        if next(evaluations) == 2 and where == "evaluation":
            send()
        assert task.test_batches is not None
        return task.test_batches()

    def signalled_write(prefix: str, values: Any) -> None:
        if where == "save" and prefix.endswith("-7"):
            send()
        write(prefix, values)

    monkeypatch.setattr(writer, "write_bundle", signalled_write)
    stopped = loop.train(task._replace(test_batches=test_batches), config.run)
    monkeypatch.undo()
    assert stopped.exit_code == 143
    assert (stopped.step == 8) if where == "evaluation" else (stopped.step >= 7)
    assert os.path.exists(f"{stopped.prefix}.manifest")
    assert train_cnn.train(config).step == 30
    unbroken = with_run(config, ckpt_dir=str(tmp_path / "unbroken"))
    train_cnn.train(unbroken)
    assert runs.same(config.run, unbroken.run)


def test_it_learns_the_classes_and_says_so_in_the_log_and_the_meta_graph(config: CnnConfig) -> None:
    outcome = train_cnn.train(config)
    lines = runs.lines(config.run)
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert {*lines[0]} == {"step", "loss", "accuracy", "test_accuracy"}
    assert lines[-1]["test_accuracy"] == 1.0

    assert len({path.read_bytes() for path in Path(config.run.ckpt_dir).glob("*.meta")}) == 1
    outputs = {"logits": "fc2/add:0", "probabilities": "probabilities:0", "classes": "classes:0"}
    meta = runs.check_description(outcome.prefix, CLASSES, {"x": "x:0"}, outputs)
    assert "trained_on" not in meta.collection_def
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(meta)
        assert graph.get_tensor_by_name("fc2/add:0").shape.as_list() == [None, len(CLASSES)]


@pytest.fixture
def tuned(config: CnnConfig) -> CnnConfig:
    """The same run with all additions, augmentation, a cosine, and the best kept beside two."""
    kept = with_run(config, keep_best=True, max_to_keep=2, save_every_steps=3, **ADDITIONS)
    return with_run(kept, augment=True, schedule="cosine", warmup_steps=5, learning_rate=3e-3)


def _recorded(config: CnnConfig) -> dict[int, float | None]:
    """Step -> the test accuracy that the manifest says."""
    return {k: found.get("test_accuracy") for k, found in runs.manifests(config.run).items()}


def test_with_all_options_it_resumes_to_the_same_bytes(tuned: CnnConfig, tmp_path: Path) -> None:
    """Stopped between and on saves, and never; measuring at each save changes nothing.

    Off the cadence, where it was stopped is no candidate for the best, also at step 8, whose log
    line has a test accuracy.
    """
    for step in (3, 8, 10, 18, 26):
        assert _train_and_stop_at(tuned, step - 1) == 143
        recorded = _recorded(tuned)
        assert step in recorded
        assert all((found is None) == (at % 3 != 0) for at, found in recorded.items())
    assert train_cnn.train(tuned).step == 30
    for name, keep_best in (("unbroken", True), ("plain", False)):
        other = with_run(tuned, ckpt_dir=str(tmp_path / name), keep_best=keep_best)
        train_cnn.train(other)
        assert runs.same(tuned.run, other.run)
    rates = {line["step"]: line["learning_rate"] for line in runs.lines(tuned.run)}
    assert rates[4] == pytest.approx(3e-3 * 4 / 5)  # Of the update that made it step 4.
    assert rates[8] == pytest.approx(3e-3 * (1 + np.cos(np.pi * 2 / 25)) / 2)
    assert rates[30] == pytest.approx(3e-3 * (1 + np.cos(np.pi * 24 / 25)) / 2)


def test_bfloat16_resumes_to_the_same_bytes(config: CnnConfig, tmp_path: Path) -> None:
    """Its numbers are near those of float32 and not the same; its graph is the same.

    Where the processor has no instructions for it, TensorFlow computes it all the same; without
    oneDNN it does not.
    """
    rounded, plain = (
        with_run(config, ckpt_dir=str(tmp_path / name), precision=name, **ADDITIONS)
        for name in ("bf16", "float32")
    )
    for one in (rounded, plain):
        assert train_cnn.train(one).step == 30
    stopped = with_run(rounded, ckpt_dir=str(tmp_path / "stopped"))
    assert _train_and_stop_at(stopped, 16) == 143
    assert train_cnn.train(stopped).step == 30
    assert runs.same(stopped.run, rounded.run)
    losses, expected = ([line["loss"] for line in runs.lines(c.run)] for c in (rounded, plain))
    assert (losses == expected) == is_off(os.environ[ONEDNN_VARIABLE])
    assert losses[0] == pytest.approx(expected[0], rel=0.02)
    graphs = {Path(c.run.ckpt_dir, "my-model-30.meta").read_bytes() for c in (rounded, plain)}
    assert len(graphs) == 1
    with pytest.raises(TrainingError, match="precision was 'bf16', is now not given"):
        train_cnn.train(with_run(rounded, precision="float32", train_steps=31))


def test_the_best_of_all_saves_stays(tuned: CnnConfig, tmp_path: Path) -> None:
    """Beside the two newest, in a folder that was interrupted; every save was measured."""
    everything = with_run(tuned, ckpt_dir=str(tmp_path / "all"), max_to_keep=0)
    train_cnn.train(everything)
    recorded = _recorded(everything)
    assert sorted(recorded) == list(range(3, 31, 3))
    logged = {line["step"]: line["test_accuracy"] for line in runs.lines(everything.run)}
    assert all(recorded[step] == logged[step] for step in recorded.keys() & logged.keys())
    best = min(recorded, key=lambda step: (-(recorded[step] or 0), step))
    for last in (12, 21, 30):  # Each a process; the schedule's end stays.
        task = train_cnn.make_task(tuned)._replace(last_step=last)
        loop.train(task, tuned.run)
    assert sorted(_recorded(tuned)) == sorted({best, 27, 30})
    assert best_checkpoint(tuned.run.ckpt_dir).endswith(f"my-model-{best}")


def test_the_test_accuracy_is_that_of_the_moving_averages(config: CnnConfig) -> None:
    """As predict.py and a stock client have it; the weights themselves have another."""
    changes = {"ema_decay": 0.97, "keep_best": True, "train_steps": 5, "learning_rate": 0.01}
    outcome = train_cnn.train(with_run(config, **changes))
    logged = runs.lines(config.run)[-1]["test_accuracy"]
    assert _recorded(config)[5] == logged
    test = [f"{config.data}/test"]
    found = {}
    for weights in ("own", "ema"):
        asked = PredictConfig(outcome.prefix, input=test, format="json", weights=weights)
        found[weights] = json.loads(predict(asked))
    assert found["ema"]["accuracy"] == pytest.approx(logged)
    assert found["own"]["accuracy"] > logged
    test_batches = train_cnn.make_task(config).test_batches
    assert test_batches is not None
    images = np.concatenate([x for x, _ in test_batches()])
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(outcome.prefix + ".meta")
        saver.restore(session, outcome.prefix)
        averaged = graph.get_collection("moving_average_variables")
        assert averaged == graph.get_collection("trainable_variables")
        keys = {f"{variable.op.name}/ExponentialMovingAverage": variable for variable in averaged}
        tf.compat.v1.train.Saver(keys).restore(session, outcome.prefix)
        logits = session.run(graph.get_tensor_by_name("fc2/add:0"), {"x:0": images})
    predicted = found["ema"]["outputs"]["fc2/add:0"]
    np.testing.assert_allclose(logits, predicted, rtol=1e-4, atol=1e-5)


def test_averages_do_not_begin_in_the_middle_of_a_run(config: CnnConfig) -> None:
    """Other additions may, with --allow_config_change, and are named like all that has changed."""
    train_cnn.train(with_run(config, train_steps=3))
    with pytest.raises(TrainingError, match=r"weight_decay was not given, is now 0\.5; .*allow_co"):
        train_cnn.train(with_run(config, weight_decay=0.5, train_steps=4))
    allowed = with_run(config, weight_decay=0.5, train_steps=4, allow_config_change=True)
    assert train_cnn.train(allowed).step == 4
    with pytest.raises(
        TrainingError, match=r"ema_decay was not given, is now 0\.9; .* --ckpt_dir$"
    ):
        train_cnn.train(with_run(allowed, ema_decay=0.9, train_steps=5))


def test_averages_begin_with_what_the_run_begins_with(config: CnnConfig, tmp_path: Path) -> None:
    """With --init_from, they are those of the values that are taken."""
    first = train_cnn.train(with_run(config, train_steps=3, ema_decay=0.9))
    begun = with_run(config, ckpt_dir=str(tmp_path / "begun"), ema_decay=0.9, train_steps=1)
    given = ["train_cnn.py", f"--ckpt_dir={tmp_path}", f"--init_from={first.prefix}"]
    init_from = parse(CnnConfig, given).run.init_from
    ours = train_cnn.train(with_run(begun, init_from=init_from)).variables
    for name in ("conv1/w", "fc2/b"):
        expected = 0.1 * first.variables[name] + 0.9 * ours[name]
        average = ours[f"{name}/ExponentialMovingAverage"]
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)


# At saves; those of other steps, which are measured for the log, do not count.
ACCURACIES = {3: 0.5, 6: 0.7, 9: 0.6, 12: 0.7, 15: 0.8, 18: 0.2, 21: 0.8, 24: 0.3, 27: 0.9}


def test_it_stops_after_so_many_saves_without_a_better_one(
    config: CnnConfig, tmp_path: Path, monkeypatch: Patch, caplog: Log
) -> None:
    """At step 24: what is equal is not better. Wherever it is interrupted, it ends there."""

    def evaluate(session: GraphSession, batches: Iterable[Batch]) -> Evaluation:
        del batches
        return Evaluation(ACCURACIES.get(int(session.variables()["global_step"]), 0.99))

    caplog.set_level("INFO", "absl")
    monkeypatch.setattr(GraphSession, "evaluate", evaluate)
    kept = with_run(config, keep_best=True, max_to_keep=1, save_every_steps=3, stop_after=3)
    assert train_cnn.train(kept)[:3:2] == (24, 0)
    line = "--stop_after=3: no save since step 15 has a better test accuracy than its 0.8000"
    assert caplog.messages.count(line) == 1
    assert sorted(_recorded(kept)) == [15, 24]
    before = _listing(kept)
    assert train_cnn.train(kept)[:3:2] == (24, 0)  # It is over, and stays so.
    assert _listing(kept) == before
    stopped = with_run(kept, ckpt_dir=str(tmp_path / "stopped"))
    for step in (1, 6, 13, 15, 16, 20, 22):
        assert _train_and_stop_at(stopped, step - 1) == 143
    assert train_cnn.train(stopped)[:3:2] == (24, 0)
    assert runs.same(kept.run, stopped.run)
    assert train_cnn.train(with_run(stopped, stop_after=4)).step == 30
    assert sorted(_recorded(stopped)) == [30]
    whole = with_run(kept, ckpt_dir=str(tmp_path / "whole"), stop_after=None)
    train_cnn.train(whole)
    assert runs.same(whole.run, stopped.run)


def _listing(config: CnnConfig) -> set[str]:
    return {str(path) for path in Path(config.run.ckpt_dir).rglob("*")}


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--weight_decay=-1", "must be a number from 0 and below 1000"),
        ("--weight_decay=nan", "must be a number from 0 and below 1000"),
        ("--clip_norm=0", "must be a finite number above 0"),
        ("--clip_norm=inf", "must be a finite number above 0"),
        ("--label_smoothing=1", "must be a number from 0 and below 1"),
        ("--ema_decay=1", "must be a number from 0 and below 1"),
        ("--ema_decay=-0.5", "must be a number from 0 and below 1"),
        ("--class_weights=equal", "value should be one of <balanced>"),
        ("--stop_after=3", "--stop_after needs --keep_best"),
        ("--stop_after=0", "0 is not a positive integer"),
    ],
)
@pytest.mark.parametrize("request_kind", [CnnConfig, MlpConfig, FinetuneConfig])
def test_values_that_make_no_sense(request_kind: type[Any], flag: str, line: str) -> None:
    with pytest.raises(flags.Error) as told:
        parse(request_kind, ["script", "--ckpt_dir=new", flag])
    assert line in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_training_images_are_augmented_and_test_images_are_not(config: CnnConfig) -> None:
    plain, augmented = (train_cnn.make_task(with_run(config, augment=a)) for a in (False, True))
    for (x, y), (z, labels) in zip(plain.batches(0, 3), augmented.batches(0, 3), strict=True):
        assert not np.array_equal(x, z)
        np.testing.assert_array_equal(y, labels)
    assert plain.test_batches is not None
    assert augmented.test_batches is not None
    for (x, _), (z, _) in zip(plain.test_batches(), augmented.test_batches(), strict=True):
        assert x.tobytes() == z.tobytes()


def test_images_on_disk_end_with_the_same_bytes(config: CnnConfig, tmp_path: Path) -> None:
    """Stopped in the middle of an epoch, gone on with from memory and from disk: equal bytes."""
    on_disk = with_run(config, data_memory_mb=0, ckpt_dir=str(tmp_path / "disk"))
    train_cnn.train(config)
    assert _train_and_stop_at(on_disk, 9) == 143
    assert _train_and_stop_at(with_run(on_disk, data_memory_mb=512), 16) == 143
    assert train_cnn.train(on_disk).step == 30
    assert runs.same(on_disk.run, config.run)


@pytest.mark.parametrize(
    ("name", "path"),
    [("data", "https://b/images"), ("data", "s3://b/x.npz"), ("ckpt_dir", "s3://b")],
)
def test_a_path_of_a_file_system_that_is_not_there(config: CnnConfig, name: str, path: str) -> None:
    with pytest.raises(UserError, match=f"^{path}.*: TensorFlow has no file system .* here; copy"):
        train_cnn.train(with_run(config, **{name: path}))


def test_a_file_that_turns_bad_stops_the_run_or_is_skipped(
    config: CnnConfig, tmp_path: Path, caplog: Log
) -> None:
    """It is cut short once the run has been opened."""
    folder, cut = str(shutil.copytree(config.data, tmp_path / "bad")), ("dog/3.png", "cat/2.jpg")
    stopping = with_run(config, data=folder, data_memory_mb=0)
    skipping = with_run(stopping, ckpt_dir=str(tmp_path / "skips"), on_bad_image="skip")
    stops, skips = (train_cnn.make_task(each) for each in (stopping, skipping))
    assert "on_bad_image" not in str(skips.identity)
    for split, name in zip(("train", "test"), cut, strict=True):
        os.truncate(f"{folder}/{split}/{name}", 100)
    with pytest.raises(DataError, match=rf"/({'|'.join(cut)}): .*; --on_bad_image=skip goes on"):
        loop.train(stops, stopping.run)
    assert {x.shape for x, _ in skips.batches(0, 30)} == {(5, 32, 32, 3)}
    outcome = loop.train(skips, skipping.run)
    assert (outcome.step, outcome.exit_code) == (30, 0)
    skipped = [message for message in caplog.messages if message.startswith("skipped: ")]
    assert [sum(name in message for message in skipped) for name in cut] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "schedule"),  # The learning rate, the steps of warm-up, the last of the cosine.
    [
        ((), (1e-3, 0, None)),
        (("--warmup_steps=7",), (1e-3, 7, None)),
        (("--schedule=cosine", "--train_steps=2000"), (4e-3, 500, 2000)),
        (("--schedule=cosine", "--train_steps=30"), (4e-3, 15, 30)),
        (("--schedule=cosine", "--train_steps=1"), (4e-3, 0, 1)),
        (("--schedule=cosine", "--warmup_steps=0", "--learning_rate=0.1"), (0.1, 0, 200)),
    ],
)
def test_the_defaults_of_a_schedule(tmp_path: Path, arguments: Any, schedule: Any) -> None:
    given = ["train_cnn.py", f"--ckpt_dir={tmp_path}", "--data=ramp", "--batch_size=10", *arguments]
    identity = train_cnn.make_task(parse(CnnConfig, given)).identity
    found = (identity.get("warmup_steps", 0), identity.get("cosine schedule's last step"))
    assert (identity["learning_rate"], *found) == schedule


def test_a_model_for_images_of_another_size(config: CnnConfig) -> None:
    """48 x 48 pixels; the rest of the graph follows, and files are resized to it."""
    large = with_run(config, image_size=48)
    assert train_cnn.make_task(large).identity["image_size"] == 48
    outcome = train_cnn.train(large)
    assert outcome.variables["fc1/w"].shape == (6 * 6 * 64, 128)
    photo = [f"{config.data}/test/dog/1.png"]
    asked = PredictConfig(outcome.prefix, input=photo, fetch=["classes"], format="json")
    assert json.loads(predict(asked))["outputs"] == {"classes:0": [1]}
