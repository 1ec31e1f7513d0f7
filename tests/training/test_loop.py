"""The training loop, from first step to resume, on the linear model."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import train_linear
from checkpoints.lock import LOCK_FILE, FolderLock
from errors import CheckpointError, TrainingError
from tests import runs
from train_linear import LinearConfig
from training import loop, resume
from training.loop import StopSignals

Array = npt.NDArray[Any]

STEPS = 40


@pytest.fixture
def config(linear_config: Callable[..., LinearConfig], tmp_path: Path) -> LinearConfig:
    """A run of 40 steps into a folder of its own."""
    return linear_config(tmp_path / "run", train_steps=STEPS, log_every_steps=5)


def _with(config: LinearConfig, **changes: Any) -> LinearConfig:
    return runs.with_run(config, **changes)


def _train_with(config: LinearConfig, at_step: Callable[[int], object]) -> loop.Outcome:
    return runs.train_watched(train_linear.make_task(config), config.run, at_step)


def _steps(config: LinearConfig) -> list[int]:
    return [*runs.manifests(config.run)]


def test_a_whole_run(config: LinearConfig) -> None:
    outcome = train_linear.train(config)
    assert (outcome.step, outcome.exit_code) == (STEPS, 0)
    assert outcome.prefix == f"{config.run.ckpt_dir}/my-model-40"
    assert _steps(config) == [10, 20, 30, 40]
    assert [line["step"] for line in runs.lines(config.run)] == list(range(0, STEPS + 1, 5))
    reader = tf.train.load_checkpoint(outcome.prefix)
    assert reader.get_tensor("global_step") == STEPS
    assert reader.get_tensor("w") == outcome.variables["w"]


def test_the_numbers_are_those_of_numpy(config: LinearConfig) -> None:
    """Gradient descent by hand, from the values before the first step to the last checkpoint."""
    train_linear.train(config)
    x, y = next(iter(train_linear.make_task(config).batches(0, 1)))
    logged = {line.pop("step"): line for line in runs.lines(config.run)}
    assert logged[0].keys() == {"w", "b"}
    w, b = np.float64(logged[0]["w"]), np.float64(logged[0]["b"])
    for step in range(1, STEPS + 1):
        error = w * x + b - y
        w, b = w - 0.5 * np.mean(2 * error * x), b - 0.5 * np.mean(2 * error)
        if step in logged:
            assert logged[step]["loss"] == pytest.approx(np.mean(error**2), rel=1e-4)
            assert (logged[step]["w"], logged[step]["b"]) == pytest.approx((w, b), rel=1e-4)
    last = tf.train.load_checkpoint(f"{config.run.ckpt_dir}/my-model-40")
    assert logged[STEPS] == {
        "loss": logged[STEPS]["loss"],
        "w": last.get_tensor("w").item(),
        "b": last.get_tensor("b").item(),
    }


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1])
def test_it_finds_the_line_from_any_seed(config: LinearConfig, seed: int) -> None:
    found = train_linear.train(_with(config, seed=seed, train_steps=300)).variables
    assert abs(found["w"][0] - 0.1) < 1e-4
    assert abs(found["b"][0] - 0.2) < 1e-4


def test_a_finished_run_does_nothing_and_says_so(
    config: LinearConfig, caplog: pytest.LogCaptureFixture
) -> None:
    train_linear.train(config)
    before = _times(config)
    caplog.set_level("INFO")
    outcome = _train_with(config, at_step=lambda step: pytest.fail(f"trained step {step}"))
    assert (outcome.step, outcome.exit_code) == (STEPS, 0)
    assert "finished" in caplog.text
    assert _times(config) == before


def _times(config: LinearConfig) -> dict[str, int]:
    """When each file but the lock was written."""
    entries = os.scandir(config.run.ckpt_dir)
    return {e.name: e.stat().st_mtime_ns for e in entries if e.name != LOCK_FILE}


def test_steps_are_absolute_and_the_last_one_is_saved(config: LinearConfig) -> None:
    train_linear.train(_with(config, train_steps=15))
    assert _steps(config) == [10, 15]
    asked_for: list[int] = []
    _train_with(config, at_step=asked_for.append)
    assert asked_for == list(range(15, STEPS))


def test_an_interrupted_run_ends_with_the_same_bytes(config: LinearConfig, tmp_path: Path) -> None:
    """Stopped at every seventh step and rerun, against never stopped: variables and metrics."""
    unbroken = _with(config, ckpt_dir=str(tmp_path / "unbroken"))
    train_linear.train(unbroken)
    codes = [
        _train_with(config, runs.stop_at(step, signal.SIGINT)).exit_code
        for step in range(3, STEPS - 1, 7)
    ]
    assert codes == [130] * 6
    assert train_linear.train(config).exit_code == 0
    assert runs.same(config.run, unbroken.run)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_present_step(
    config: LinearConfig, number: signal.Signals, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    outcome = _train_with(config, runs.stop_at(12, number))
    assert (outcome.step, outcome.exit_code) == (13, code)  # The batch it came with is finished.
    assert _steps(config) == [10, 13]
    assert "stopped at step 13 of 40" in caplog.text


def test_retention_holds_across_reruns(config: LinearConfig) -> None:
    for last in (10, 20, 30, 40, 50, 60):
        train_linear.train(_with(config, train_steps=last, max_to_keep=2))
    assert _steps(config) == [50, 60]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seed": 1}, "seed was 0, is now 1"), ({"learning_rate": 0.1}, "learning_rate was 0.5")],
)
def test_another_config_is_refused_unless_allowed(
    config: LinearConfig, changes: dict[str, Any], message: str
) -> None:
    train_linear.train(_with(config, train_steps=20))
    with pytest.raises(TrainingError, match=message):
        train_linear.train(_with(config, **changes))
    assert _steps(config) == [10, 20]
    assert train_linear.train(_with(config, **changes, allow_config_change=True)).step == STEPS


def test_another_machine_is_said(
    config: LinearConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bits are promised for as many threads and the same TensorFlow only."""
    train_linear.train(_with(config, train_steps=20))
    assert train_linear.train(_with(config, train_steps=30)).step == 30
    assert "last bits" not in caplog.text
    present = resume.environment()
    monkeypatch.setattr(
        resume, "environment", lambda: present | {"threads": 999, "tensorflow": "3.0"}
    )
    assert train_linear.train(config).step == STEPS
    assert "the last bits of the numbers may differ:" in caplog.text
    assert "tensorflow was '2." in caplog.text
    assert ", is now 999" in caplog.text


def test_what_only_extends_a_run_may_change(config: LinearConfig) -> None:
    train_linear.train(_with(config, train_steps=20))
    changed = _with(config, save_every_steps=7, max_to_keep=9, log_every_steps=3)
    assert train_linear.train(changed).step == STEPS
    assert _steps(config) == [10, 20, 21, 28, 35, 40]


def test_a_loss_that_is_no_number_stops_the_run(config: LinearConfig) -> None:
    """A learning rate too large by a little; what was saved before the overflow stays."""
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+"):
        train_linear.train(_with(config, learning_rate=1.0, train_steps=1000))
    steps = _steps(config)
    assert len(steps) == config.run.max_to_keep
    assert all(np.isfinite(_read(config, step, "w")) for step in steps)


def _read(config: LinearConfig, step: int, name: str) -> Array:
    reader = tf.train.load_checkpoint(f"{config.run.ckpt_dir}/my-model-{step}")
    value: Array = reader.get_tensor(name)
    return value


def test_a_checkpoint_of_another_model_is_refused(config: LinearConfig) -> None:
    """What lies in the folder has other variables: the difference is said, no file is touched."""
    folder = Path(config.run.ckpt_dir)
    folder.mkdir()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("other", [2], use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(folder / "my-model"), global_step=10)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match="the newest: global_step is missing"):
        train_linear.train(config)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.keys() - before.keys() == {".lock"}
    assert {name: after[name] for name in before} == before


def test_a_second_trainer_is_refused(config: LinearConfig) -> None:
    train_linear.train(_with(config, train_steps=10))
    with FolderLock(config.run.ckpt_dir):
        before = sorted(os.listdir(config.run.ckpt_dir))
        with pytest.raises(CheckpointError, match=f"process {os.getpid()} on "):
            train_linear.train(config)
        assert sorted(os.listdir(config.run.ckpt_dir)) == before


def test_a_folder_that_cannot_be_made_is_an_error(config: LinearConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"--ckpt_dir=.* cannot be made"):
        train_linear.train(_with(config, ckpt_dir=str(tmp_path / "file" / "run")))


@pytest.mark.parametrize("name", ["run[1]", "run*", "r\\un?"])
def test_a_folder_that_tensorflow_takes_for_a_pattern_is_refused_before_a_step(
    config: LinearConfig, tmp_path: Path, name: str
) -> None:
    with pytest.raises(CheckpointError, match="for a pattern; give it a path without them"):
        _train_with(_with(config, ckpt_dir=str(tmp_path / name)), lambda _: pytest.fail("a step"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    """An echo is no second one: Ctrl-C reaches a process that its parent passes it on to, too."""
    given = signal.signal(number, signal.SIG_DFL)  # Who runs the tests may ignore SIGHUP.
    try:
        with StopSignals() as stop:
            assert stop.received is None
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.received == number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, given)
    assert capfd.readouterr().err.count("stopping") == 1


def test_the_second_sigint_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ECHO_SECONDS", -1.0)
    child = os.fork()
    if child == 0:
        with StopSignals():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130


def test_nobody_who_hears_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python train_linear.py 2>&1 | tee log`: Ctrl-C ends tee first."""

    def broken(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", broken)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.received == signal.SIGINT


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
