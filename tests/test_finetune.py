"""Fine-tuning from start to end: what is restored, what stays, what a rerun and predict.py make."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import finetune
from data.named import RAMP_FILE
from errors import CheckpointError, TrainingError
from finetuning import FinetuneConfig
from finetuning.fitting import make_task
from tests import runs
from tests.checkpoints.test_stored_tensors import save
from tests.finetuning import bases
from tests.finetuning.bases import values_of
from tests.metagraph.made import refused
from tests.prediction import conftest as predict_tests
from tests.prediction import stock
from tests.test_train_cnn import ADDITIONS
from training import loop

Config = Callable[..., FinetuneConfig]
LAST_LAYER = "fc2/add:0"
BASE = ("conv1/w", "conv1/b", "conv2/w", "conv2/b", "fc1/w", "fc1/b", "fc2/w", "fc2/b")


@pytest.mark.parametrize(
    ("scopes", "unfrozen"), [((), set()), (("fc1", "conv2/b"), {"fc1/w", "fc1/b", "conv2/b"})]
)
def test_only_the_scopes_that_are_unfrozen_change(
    cnn_run: Path, finetune_config: Config, scopes: tuple[str, ...], unfrozen: set[str]
) -> None:
    """All else stays byte for byte as it is in the checkpoint."""
    theirs = values_of(str(cnn_run / "my-model-200"))
    ours = values_of(
        finetune.train(finetune_config(cnn_run, LAST_LAYER, train_scopes=scopes)).prefix
    )
    assert {n for n in BASE if ours[n].tobytes() != theirs[n].tobytes()} == unfrozen
    assert ours["head/w"].shape == (4, 3)
    assert ours["global_step"] == 12
    if not scopes:
        slots = {f"head/{name}{slot}" for name in "wb" for slot in ("", "/Adam", "/Adam_1")}
        assert {*ours} == {"global_step", "beta1_power", "beta2_power", *BASE, *slots}


def test_excluded_variables_begin_as_the_graph_says_and_not_as_restored(
    cnn_run: Path, finetune_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a model of ours the initial value follows from the seed: the same as in its own run."""
    caplog.set_level("INFO", "absl")
    config = finetune_config(cnn_run, LAST_LAYER, exclude="fc1/.*", train_steps=1)
    ours = values_of(finetune.train(config).prefix)
    assert f"conv1/w: restored from {cnn_run}/my-model-200" in caplog.messages
    assert {"fc1/w: new", "head/w: new", "global_step: new"} <= {*caplog.messages}
    theirs = values_of(str(cnn_run / "my-model-200"))
    assert not np.array_equal(ours["fc1/w"], theirs["fc1/w"])
    np.testing.assert_array_equal(ours["fc1/b"], np.full(128, 0.1, np.float32))
    np.testing.assert_allclose(ours["fc1/w"].std(), 0.088, atol=0.003)
    assert ours["conv1/w"].tobytes() == theirs["conv1/w"].tobytes()
    # Initializers of the result run in a stock client, as many a script does before it restores.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(f"{config.run.ckpt_dir}/my-model-1.meta")
        session.run(tf.compat.v1.global_variables_initializer())
        saver.restore(session, f"{config.run.ckpt_dir}/my-model-1")
        np.testing.assert_array_equal(session.run("conv1/w:0"), ours["conv1/w"])


def _check_same_bytes(config: FinetuneConfig, stops: Sequence[int], folder: Path) -> None:
    """Of a run that is stopped at these steps, and of one that never is."""
    for step in stops:
        outcome = runs.train_watched(make_task(config), config.run, runs.stop_at(step))
        assert outcome.exit_code == 143
    assert finetune.train(config).step == 12
    unbroken = runs.with_run(config, ckpt_dir=str(folder))
    finetune.train(unbroken)
    assert runs.variables(config.run) == runs.variables(unbroken.run)


@pytest.mark.parametrize(("scopes", "additions"), [((), {}), (("fc1",), {}), (("fc1",), ADDITIONS)])
def test_an_interrupted_run_ends_with_the_same_bytes(
    cnn_run: Path,
    finetune_config: Config,
    tmp_path: Path,
    scopes: tuple[str, ...],
    additions: dict[str, Any],
) -> None:
    """With the base's own dropout on."""
    config = finetune_config(cnn_run, LAST_LAYER, train_scopes=scopes, **additions)
    _check_same_bytes(config, [1, 4, 9], tmp_path / "unbroken")
    identity = runs.manifests(config.run)[12]["config"]
    assert {name: identity.get(name) for name in ADDITIONS} == dict.fromkeys(ADDITIONS) | additions


def test_what_is_unfrozen_decays_and_is_averaged_with_the_head(
    cnn_run: Path, finetune_config: Config
) -> None:
    """One step, by NumPy from that of a plain run."""
    rates = {"learning_rate": 0.01, "finetune_learning_rate": 0.001, "train_scopes": ("fc1",)}
    config = finetune_config(cnn_run, LAST_LAYER, train_steps=1, **rates)
    plain = finetune.train(config).variables
    more = runs.with_run(config, ckpt_dir=f"{config.run.ckpt_dir}2", weight_decay=0.5)
    ours = finetune.train(runs.with_run(more, ema_decay=0.999)).variables
    theirs = values_of(f"{cnn_run}/my-model-200")
    assert {n for n in ours if n.endswith("/ExponentialMovingAverage")} == {
        f"{name}/ExponentialMovingAverage" for name in ("head/w", "head/b", "fc1/w", "fc1/b")
    }
    np.testing.assert_allclose(ours["fc1/w"], plain["fc1/w"] - 0.0005 * theirs["fc1/w"], atol=1e-7)
    np.testing.assert_array_equal(ours["fc1/b"], plain["fc1/b"])
    average = 0.1 * theirs["fc1/w"] + 0.9 * ours["fc1/w"]
    np.testing.assert_allclose(ours["fc1/w/ExponentialMovingAverage"], average, atol=1e-7)


def test_dropout_of_tensorflow_1_resumes_exactly(finetune_config: Config, tmp_path: Path) -> None:
    config = finetune_config(bases.save(tmp_path, bases.dropout), "features")
    _check_same_bytes(config, [3, 7], tmp_path / "unbroken")
    without = runs.with_run(config, ckpt_dir=f"{tmp_path}/no", train_feed=("share=0.0",))
    finetune.train(without)
    assert runs.variables(config.run) != runs.variables(without.run)


def test_predict_needs_nothing_but_the_checkpoint_and_so_does_another_run(
    cnn_run: Path, finetune_config: Config, three_classes: str, tmp_path: Path
) -> None:
    """Its results are those of a stock client, and the new head has learnt the classes."""
    changes = {"head": "conv", "train_steps": 150, "learning_rate": 0.05}
    prefix = finetune.train(finetune_config(cnn_run, "conv2/MaxPool2d", **changes)).prefix
    document = predict_tests.document(f"{prefix}.meta", input=[three_classes])
    assert document["accuracy"] == 1.0
    with np.load(three_classes) as arrays:
        images = arrays["X"] * np.float32(1 / 255)
    (logits,) = stock.run(f"{prefix}.meta", ["head/add:0"], {"x:0": images})
    np.testing.assert_allclose(document["outputs"]["head/add:0"], logits, rtol=1e-5, atol=1e-6)
    scopes = {"train_scopes": ("head",), "ckpt_dir": tmp_path / "again"}
    again = values_of(finetune.train(finetune_config(prefix, "head/add", **scopes)).prefix)
    before = values_of(prefix)
    assert again["conv2/w"].tobytes() == before["conv2/w"].tobytes()
    assert again["head/w"].tobytes() != before["head/w"].tobytes()
    assert again["head_1/w"].shape == (3, 3)


def test_what_the_checkpoint_lacks(cnn_run: Path, finetune_config: Config, tmp_path: Path) -> None:
    values = {k: v for k, v in values_of(f"{cnn_run}/my-model-200").items() if k != "fc1/b"}
    values["conv1/b"] = values["conv1/b"][:5]
    save(tmp_path / "cut", values)
    shutil.copy(cnn_run / "my-model-200.meta", tmp_path / "cut.meta")
    config = finetune_config(tmp_path / "cut.meta", LAST_LAYER, train_steps=1)
    with refused("lacks 1 of the 8 .*fc1/b.*--exclude", CheckpointError):
        finetune.train(config)
    config = dataclasses.replace(config, exclude="fc1/b")
    with refused(r"conv1/b is float32 \[5\].*--exclude", CheckpointError):
        finetune.train(config)
    finetune.train(dataclasses.replace(config, exclude="fc1/b|conv1/b"))


def test_another_base_is_another_run(cnn_run: Path, finetune_config: Config) -> None:
    finetune.train(finetune_config(cnn_run / "my-model-200", LAST_LAYER))
    with refused("tensor was 'fc2/add:0', is now 'fc1/add:0'", TrainingError):
        finetune.train(finetune_config(cnn_run / "my-model-200", "fc1/add:0"))
    with refused("initial_values was", TrainingError):
        finetune.train(finetune_config(cnn_run / "my-model-190", LAST_LAYER))
    plain = finetune_config(cnn_run, LAST_LAYER)
    held_out = (dataclasses.replace(plain, validation_fraction=share) for share in (0.25, 0.5))
    identities = [make_task(config).identity for config in (plain, *held_out)]
    assert len({identity.get("test_data") for identity in identities}) == 3
    assert "test_data" not in identities[0]
    faster = dataclasses.replace(plain, train_scopes=("fc1",), finetune_learning_rate=0.1)
    assert make_task(faster).identity["finetune_learning_rate"] == 0.1


def test_opening_the_model_has_limits_of_time_and_size(
    cnn_run: Path, finetune_config: Config
) -> None:
    calls: list[tuple[float, str]] = []
    config = finetune_config(
        cnn_run, LAST_LAYER, time_limit=7, end_after=lambda *call: calls.append(call)
    )
    make_task(config)
    assert [seconds for seconds, _ in calls] == [12, 0] * 5
    assert "reading the graph took longer than --time_limit=7 seconds" in calls[0][1]
    assert {line.partition(" took")[0] for _, line in calls[6::2]} == {"importing the model"}
    with refused("--max_meta_mb", CheckpointError):
        make_task(dataclasses.replace(config, max_meta_bytes=1000))


def test_the_ramp_is_written_under_the_lock(cnn_run: Path, finetune_config: Config) -> None:
    config = finetune_config(cnn_run, LAST_LAYER, data="ramp", train_steps=1)
    task = make_task(config)
    assert not os.path.exists(config.run.ckpt_dir)
    loop.train(task, config.run)
    assert os.path.exists(f"{config.run.ckpt_dir}/{RAMP_FILE}")
