"""The training loop, from first step to resume, on the linear model."""

import dataclasses
import itertools
import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

import train_linear
from checkpoints.errors import CheckpointError
from training import loop
from training.errors import TrainingError

STEPS = 40


@pytest.fixture
def config(linear_config, tmp_path):
    """A run of 40 steps into a folder of its own."""
    return linear_config(tmp_path / "run", train_steps=STEPS, log_every_steps=5)


def _with(config, ckpt_dir=None, **changes):
    """The same config with other fields of its own or of its run."""
    run = {k: v for k, v in changes.items() if hasattr(config.run, k)}
    if ckpt_dir:
        run["ckpt_dir"] = str(ckpt_dir)
    own = {k: v for k, v in changes.items() if k not in run}
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **run), **own)


def _train_with(config, at_step):
    """Trains; calls `at_step` with the number of each batch before it is handed out."""
    task = train_linear.make_task(config)

    def batches(start, stop):
        for step in range(start, stop):
            at_step(step)
            yield from task.batches(step, step + 1)

    return loop.train(task._replace(batches=batches), config.run)


def _signal_at(step, number=signal.SIGINT):
    return lambda k: os.kill(os.getpid(), number) if k == step else None


def _variables(folder):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
    return {n: reader.get_tensor(n).tobytes() for n in reader.get_variable_to_shape_map()}


def _metrics(config):
    with open(f"{config.run.ckpt_dir}/logs/metrics.jsonl", "rb") as file:
        return file.read()


def _steps(config):
    names = os.listdir(config.run.ckpt_dir)
    return sorted(int(n.split("-")[2].split(".")[0]) for n in names if n.endswith(".manifest"))


def test_a_whole_run(config):
    outcome = train_linear.train(config)
    assert (outcome.step, outcome.exit_code) == (STEPS, 0)
    assert outcome.prefix == f"{config.run.ckpt_dir}/my-model-40"
    assert _steps(config) == [10, 20, 30, 40]
    lines = [json.loads(line) for line in _metrics(config).splitlines()]
    assert [line["step"] for line in lines] == list(range(5, STEPS + 1, 5))
    reader = tf.train.load_checkpoint(outcome.prefix)
    assert reader.get_tensor("global_step") == STEPS
    assert reader.get_tensor("w") == outcome.variables["w"]


def test_the_numbers_are_those_of_numpy(config):
    """Gradient descent by hand, from the first checkpoint to the last."""
    train_linear.train(config)
    x, y = next(iter(train_linear.make_task(config).batches(0, 1)))
    first, last = (
        tf.train.load_checkpoint(f"{config.run.ckpt_dir}/my-model-{step}") for step in (10, 40)
    )
    w, b = first.get_tensor("w").astype(np.float64), first.get_tensor("b").astype(np.float64)
    for _ in range(30):
        error = w * x + b - y
        w, b = w - 0.5 * np.mean(2 * error * x), b - 0.5 * np.mean(2 * error)
    np.testing.assert_allclose(last.get_tensor("w"), w, rtol=1e-4)
    np.testing.assert_allclose(last.get_tensor("b"), b, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1])
def test_it_finds_the_line_from_any_seed(config, seed):
    found = train_linear.train(_with(config, seed=seed, train_steps=300)).variables
    assert abs(found["w"][0] - 0.1) < 1e-4
    assert abs(found["b"][0] - 0.2) < 1e-4


def test_a_finished_run_does_nothing_and_says_so(config, caplog):
    train_linear.train(config)
    before = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(config.run.ckpt_dir)}
    caplog.set_level("INFO")
    outcome = _train_with(config, at_step=lambda step: pytest.fail(f"trained step {step}"))
    assert (outcome.step, outcome.exit_code) == (STEPS, 0)
    assert "finished" in caplog.text
    after = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(config.run.ckpt_dir)}
    assert after == before


def test_steps_are_absolute(config):
    train_linear.train(_with(config, train_steps=15))
    assert _steps(config) == [10, 15]
    asked_for = []
    _train_with(config, at_step=asked_for.append)
    assert asked_for == list(range(15, STEPS))


def test_an_interrupted_run_ends_with_the_same_bytes(config, tmp_path):
    """Stopped at every seventh step and rerun, against never stopped: all files that last."""
    unbroken = _with(config, ckpt_dir=tmp_path / "unbroken")
    train_linear.train(unbroken)
    codes = [_train_with(config, _signal_at(step)).exit_code for step in range(3, STEPS - 1, 7)]
    assert codes == [130] * 6
    assert train_linear.train(config).exit_code == 0
    assert _variables(config.run.ckpt_dir) == _variables(unbroken.run.ckpt_dir)
    assert _metrics(config) == _metrics(unbroken)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_present_step(config, number, code, caplog):
    caplog.set_level("INFO")
    outcome = _train_with(config, _signal_at(12, number))
    assert (outcome.step, outcome.exit_code) == (13, code)  # The batch it came with is finished.
    assert _steps(config) == [10, 13]
    assert "stopped at step 13 of 40" in caplog.text


def test_retention_holds_across_reruns(config):
    for last in (10, 20, 30, 40, 50, 60):
        train_linear.train(_with(config, train_steps=last, max_to_keep=2))
    assert _steps(config) == [50, 60]


def test_the_last_step_is_saved(config):
    train_linear.train(_with(config, train_steps=23))
    assert _steps(config) == [10, 20, 23]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seed": 1}, "seed was 0, is now 1"), ({"learning_rate": 0.1}, "learning_rate was 0.5")],
)
def test_another_config_is_refused_unless_allowed(config, changes, message):
    train_linear.train(_with(config, train_steps=20))
    with pytest.raises(TrainingError, match=message):
        train_linear.train(_with(config, **changes))
    assert _steps(config) == [10, 20]
    assert train_linear.train(_with(config, **changes, allow_config_change=True)).step == STEPS


def test_what_only_extends_a_run_may_change(config):
    train_linear.train(_with(config, train_steps=20))
    changed = _with(config, save_every_steps=7, max_to_keep=9, log_every_steps=3)
    assert train_linear.train(changed).step == STEPS
    assert _steps(config) == [10, 20, 21, 28, 35, 40]


def test_a_loss_that_is_no_number_stops_the_run(config):
    """A learning rate far too large; what was saved before stays, and stays good."""
    wild = _with(config, learning_rate=1e6)
    with pytest.raises(TrainingError, match=r"(loss is (nan|inf) at|not finite after) step \d+"):
        train_linear.train(wild)
    steps = _steps(config)
    assert all(np.isfinite(_read(config, step, "w")) for step in steps)


def test_weights_that_are_no_numbers_are_not_saved(config):
    """The loss of step 10 is finite, its gradient is not: the checkpoint of step 10 would be."""
    task = train_linear.make_task(config)

    def batches(start, stop):
        for step, (x, y) in zip(itertools.count(start), task.batches(start, stop), strict=False):
            yield (x, y) if step != 9 else (x * 1e30, y * 0 + 1e18)

    with pytest.raises(TrainingError, match=r"at step 10|after step 10"):
        loop.train(task._replace(batches=batches), config.run)
    assert _steps(config) == []


def _read(config, step, name):
    return tf.train.load_checkpoint(f"{config.run.ckpt_dir}/my-model-{step}").get_tensor(name)


def test_a_checkpoint_of_another_model_is_refused(config):
    """What lies in the folder has other variables; it is named and not touched."""
    os.makedirs(config.run.ckpt_dir)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("other", [2], use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver()
        saver.save(session, f"{config.run.ckpt_dir}/my-model", global_step=10)
    before = sorted(os.listdir(config.run.ckpt_dir))
    with pytest.raises(CheckpointError, match="global_step is missing"):
        train_linear.train(config)
    assert sorted(os.listdir(config.run.ckpt_dir)) == before


def test_a_folder_that_cannot_be_made_is_an_error(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"--ckpt_dir=.* cannot be written"):
        train_linear.train(_with(config, ckpt_dir=tmp_path / "file" / "run"))
