"""The training loop, from first step to resume; its cadences, signals and session."""

import dataclasses
import itertools
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import train_linear
from checkpoints.lock import LOCK_FILE, FolderLock
from cli import signals
from cli.fields import parse
from cli.signals import StopSignals
from cli.terminal import INTRA_OP_THREADS_VARIABLE
from errors import CheckpointError, TrainingError
from models import cnn
from models.blocks import ModelGraph
from tests import runs
from tests.conftest import Capture, Log, Patch
from tests.runs import with_run
from train_linear import LinearConfig
from training import loop, resume
from training.config import RunConfig, last_step, log_interval
from training.loop import due
from training.task import GraphSession

STEPS = 40


@pytest.fixture
def config(linear_config: Callable[..., LinearConfig], tmp_path: Path) -> LinearConfig:
    """A run of 40 steps into a folder of its own."""
    return linear_config(tmp_path / "run", train_steps=STEPS, log_every_steps=5)


def _train_with(config: LinearConfig, at_step: Callable[[int], object]) -> loop.Outcome:
    return runs.train_watched(train_linear.make_task(config), config.run, at_step)


def _steps(config: LinearConfig) -> list[int]:
    return [*runs.manifests(config.run)]


def test_a_whole_run_and_a_rerun_that_does_nothing(config: LinearConfig, caplog: Log) -> None:
    outcome = train_linear.train(config)
    assert (outcome.step, outcome.exit_code) == (STEPS, 0)
    assert outcome.prefix == f"{config.run.ckpt_dir}/my-model-40"
    assert _steps(config) == [10, 20, 30, 40]
    assert [line["step"] for line in runs.lines(config.run)] == list(range(0, STEPS + 1, 5))
    reader = tf.train.load_checkpoint(outcome.prefix)
    assert reader.get_tensor("global_step") == STEPS
    assert reader.get_tensor("w") == outcome.variables["w"]

    before = _times(config)
    caplog.set_level("INFO")
    again = _train_with(config, at_step=lambda step: pytest.fail(f"trained step {step}"))
    assert (again.step, again.exit_code) == (STEPS, 0)
    assert "finished" in caplog.text
    assert _times(config) == before


def _times(config: LinearConfig) -> dict[str, int]:
    """When each file but the lock was written."""
    entries = os.scandir(config.run.ckpt_dir)
    return {e.name: e.stat().st_mtime_ns for e in entries if e.name != LOCK_FILE}


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
    assert {n: last.get_tensor(n).item() for n in "wb"} == {n: logged[STEPS][n] for n in "wb"}


@pytest.mark.parametrize("seed", [1, 2**32 - 1])
def test_it_finds_the_line_from_any_seed(config: LinearConfig, seed: int) -> None:
    found = train_linear.train(with_run(config, seed=seed, train_steps=300)).variables
    np.testing.assert_allclose([found["w"][0], found["b"][0]], [0.1, 0.2], atol=1e-4)
    first = runs.lines(config.run)[0]
    assert -20 <= first["w"] < 20
    assert -10 <= first["b"] < 10


def test_steps_are_absolute_and_what_only_extends_a_run_may_change(config: LinearConfig) -> None:
    train_linear.train(with_run(config, train_steps=15))
    assert _steps(config) == [10, 15]  # The last one is saved.
    asked_for: list[int] = []
    changed = with_run(config, save_every_steps=7, max_to_keep=9, log_every_steps=3)
    _train_with(changed, at_step=asked_for.append)
    assert asked_for == list(range(15, STEPS))
    assert _steps(config) == [10, 15, 21, 28, 35, 40]


def test_an_interrupted_run_is_the_same(config: LinearConfig, tmp_path: Path, caplog: Log) -> None:
    """Stopped at every seventh step and rerun, against never stopped: variables and metrics."""
    caplog.set_level("INFO")
    unbroken = with_run(config, ckpt_dir=str(tmp_path / "unbroken"))
    train_linear.train(unbroken)
    stops = itertools.cycle([(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    for step, (number, code) in zip(range(3, STEPS - 1, 7), stops, strict=False):
        outcome = _train_with(config, runs.stop_at(step, number))
        # The batch that the signal came with is finished, and saved beside what is due.
        assert (outcome.step, outcome.exit_code) == (step + 1, code)
        assert _steps(config)[-1] == step + 1
        assert f"stopped at step {step + 1} of 40" in caplog.text
    assert train_linear.train(config).exit_code == 0
    assert runs.same(config.run, unbroken.run)


def test_the_thread_that_takes_signals_only_waits(config: LinearConfig) -> None:
    """A handler that is called upon a product of matrices breaks the memory of TensorFlow."""
    threads = set[threading.Thread]()
    _train_with(config, lambda _: threads.add(threading.current_thread()))
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_a_signal_that_another_thread_is_handed_is_heeded(config: LinearConfig) -> None:
    """It does not wake the main thread, which waits for the one that trains."""
    over = threading.Event()
    idle = threading.Thread(target=over.wait)
    idle.start()
    try:
        outcome = _train_with(config, lambda k: runs.send(to=idle.ident) if k == 5 else None)
    finally:
        over.set()
        idle.join()
    assert (outcome.step, outcome.exit_code) == (6, 143)


def test_no_thread_that_computes_takes_signals(config: LinearConfig) -> None:
    masks = list[set[int]]()
    _train_with(config, lambda _: masks.append({*signal.pthread_sigmask(signal.SIG_BLOCK, [])}))
    assert {*signals.stop_signals()} <= masks[0]
    assert not {*signals.stop_signals()} & {*signal.pthread_sigmask(signal.SIG_BLOCK, [])}


def test_another_machine_is_said(config: LinearConfig, monkeypatch: Patch, caplog: Log) -> None:
    """Bits are promised for as many threads and the same TensorFlow only."""
    train_linear.train(with_run(config, train_steps=20))
    assert train_linear.train(with_run(config, train_steps=30)).step == 30
    assert "last bits" not in caplog.text
    other = resume.environment() | {"threads": 999, "tensorflow": "3.0"}
    monkeypatch.setattr(resume, "environment", lambda: other)
    assert train_linear.train(config).step == STEPS
    line = r"the last bits of the numbers may differ: tensorflow was '2\..*, is now 999"
    assert re.search(line, caplog.text)


def test_a_loss_that_is_no_number_stops_the_run(config: LinearConfig) -> None:
    """A learning rate too large by a little; what was saved before the overflow stays."""
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+"):
        train_linear.train(with_run(config, learning_rate=1.0, train_steps=1000))
    steps = _steps(config)
    assert len(steps) == config.run.max_to_keep
    for step in steps:
        assert np.isfinite(tf.train.load_variable(f"{config.run.ckpt_dir}/my-model-{step}", "w"))


def test_a_second_trainer_is_refused(config: LinearConfig) -> None:
    train_linear.train(with_run(config, train_steps=10))
    with FolderLock(config.run.ckpt_dir):
        before = sorted(os.listdir(config.run.ckpt_dir))
        with pytest.raises(CheckpointError, match=f"process {os.getpid()} on "):
            train_linear.train(config)
        assert sorted(os.listdir(config.run.ckpt_dir)) == before


@pytest.mark.parametrize("name", ["run[1]", "run*", "r\\un?"])
def test_a_folder_that_is_a_pattern(config: LinearConfig, tmp_path: Path, name: str) -> None:
    resumed = with_run(config, ckpt_dir=str(tmp_path / name))
    train_linear.train(with_run(resumed, train_steps=20))
    assert _train_with(resumed, lambda step: step >= 20 or pytest.fail("from the start")).step == 40
    train_linear.train(config)
    assert runs.metrics(resumed.run) == runs.metrics(config.run)


# The flags of a run.


def test_its_flags_repeat_a_run(tmp_path: Path, caplog: Log) -> None:
    """In a file that is written once, that later flags are added to, and that sets others aside."""
    run = tmp_path / "run"
    file = run / "run.flags"
    given = [f"--ckpt_dir={run}", "--train_steps=20", "--seed=3", "--learning_rate=0.25"]
    config = parse(LinearConfig, ["s", *given, "--start_anew", "--profile_steps=5:7"])
    run.mkdir()
    file.write_text("--seed=9\n")
    train_linear.train(config)
    assert f"{file} is not ours: it is now {file}.set-aside" in caplog.text
    assert Path(f"{file}.set-aside").read_text() == "--seed=9\n"
    lines = file.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert {"--seed=3", "--learning_rate=0.25", "--shards=1", "--max_to_keep=4"} <= {*lines}
    once = (
        "replay",
        "workers",
        "start",
        "worker_timeout",
        "allow",
        "profile",
        "nostart",
        "noallow",
    )
    assert [line for line in lines if line.startswith(tuple(f"--{name}" for name in once))] == []
    again = parse(LinearConfig, ["s", f"--flagfile={file}", f"--ckpt_dir={tmp_path / 'again'}"])
    train_linear.train(again)
    assert runs.same(again.run, config.run)
    # A finished run changes nothing; one that goes on has its flags of then.
    before = file.stat().st_mtime_ns
    train_linear.train(parse(LinearConfig, ["s", *given, "--max_to_keep=2"]))
    assert file.stat().st_mtime_ns == before
    longer = parse(LinearConfig, ["s", f"--flagfile={file}", "--train_steps=30"])
    train_linear.train(longer)
    assert "--train_steps=30" in file.read_text().splitlines()
    assert [path.name for path in run.glob("run.flags*")] == ["run.flags", "run.flags.set-aside"]


def test_a_config_without_flags_writes_none(config: LinearConfig) -> None:
    train_linear.train(dataclasses.replace(config, run=RunConfig(config.run.ckpt_dir)))
    assert not Path(config.run.ckpt_dir, "run.flags").exists()


# Signals.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted(number: signal.Signals, capfd: Capture) -> None:
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
    assert capfd.readouterr().err == (
        "\nstopping after the present step (Ctrl-C again stops at once)\n"
    )


def test_the_second_sigint_ends_the_process_at_once(monkeypatch: Patch) -> None:
    monkeypatch.setattr(signals, "ECHO_SECONDS", -1.0)
    child = os.fork()
    if child == 0:
        with StopSignals():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130


def test_nobody_who_hears_it_is_needed(monkeypatch: Patch) -> None:
    """`python train_linear.py 2>&1 | tee log`: Ctrl-C ends tee first."""

    monkeypatch.setattr(os, "write", Mock(side_effect=BrokenPipeError))
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


# Flags, lengths and cadences, and what the last bits of a run depend on.


def _all_due(every: int | Fraction, last: int) -> list[int]:
    return [step for step in range(1, last + 1) if due(step, every, last)]


def test_what_is_due_and_an_epoch_at_the_step_that_completes_it() -> None:
    assert [_all_due(10, 30), _all_due(10, 25)] == [[10, 20, 30], [10, 20, 25]]
    assert [_all_due(1, 3), _all_due(7, 3)] == [[1, 2, 3], [3]]
    for num_examples, batch_size in ((60_000, 128), (10, 10), (7, 7), (36, 5), (11, 10)):
        ends = [math.ceil(epoch * num_examples / batch_size) for epoch in range(1, 51)]
        assert _all_due(Fraction(num_examples, batch_size), ends[-1]) == ends


@pytest.mark.parametrize(
    ("epochs", "size", "last"),
    [
        *((None, 128, 200), (20, 128, 3125), (1, 128, 157), (0.001, 128, 1)),
        # In floats, 0.07 * 100 is a little above 7.
        *((0.07, 200, 7), (0.29, 200, 29), (0.071, 200, 8)),
    ],
)
def test_last_step(epochs: float | None, size: int, last: int) -> None:
    assert last_step(None, epochs, 200, 20_000, size) == last
    assert last_step(7, None, 200, 20_000, size) == 7


def test_log_interval() -> None:
    assert [log_interval(None, 10, 10), log_interval(None, 20_000, 128)] == [10, 156]
    assert log_interval(3, 20_000, 128) == 3


@pytest.mark.parametrize(
    ("flags", "variable", "threads"),  # Of small steps, and of large ones.
    [([], None, (1, None)), ([], "4", (None, None)), (["--intra_op_threads=3"], "4", (3, 3))],
)
def test_threads_by_flag_then_environment_then_size(
    monkeypatch: Patch, flags: list[str], variable: str | None, threads: tuple[int | None, ...]
) -> None:
    monkeypatch.delenv(INTRA_OP_THREADS_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(INTRA_OP_THREADS_VARIABLE, variable)
    run = parse(LinearConfig, ["s", *flags]).run
    assert (run.threads(small_steps=True), run.threads(small_steps=False)) == threads


@pytest.mark.parametrize("given", ["", "0", "1", "12"])
def test_the_environment_that_is_told(monkeypatch: Patch, given: str) -> None:
    """Threads are the processors where none are asked for, as TensorFlow has it."""
    monkeypatch.delenv(INTRA_OP_THREADS_VARIABLE, raising=False)
    processors = resume.environment()["threads"]
    assert processors >= 1
    monkeypatch.setenv(INTRA_OP_THREADS_VARIABLE, given)
    told = resume.environment()
    assert told["threads"] == (int(given) if given in ("1", "12") else processors)
    assert told["tensorflow"] == tf.__version__


@pytest.mark.parametrize(
    ("precision", "onednn", "processor", "lines"),
    [
        ("float32", "1", "", []),
        ("float32", "0", "", ["TF_ENABLE_ONEDNN_OPTS=0 leaves out TensorFlow's faster kernels"]),
        ("bf16", "1", "avx2 avx512_bf16", []),
        ("bf16", "1", "avx2 avx512f", ["--precision=bf16 is no faster here: this processor"]),
    ],
)
def test_what_makes_a_run_slow_is_said(
    config: LinearConfig,
    monkeypatch: Patch,
    caplog: Log,
    precision: str,
    onednn: str,
    processor: str,
    lines: list[str],
) -> None:
    told = resume.environment() | {"onednn": onednn, "processor": processor}
    monkeypatch.setattr(resume, "environment", lambda: told)
    outcome = train_linear.train(with_run(config, train_steps=5, precision=precision))
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == len(lines)
    assert all(map(str.startswith, said, lines))
    (manifest,) = runs.manifests(config.run).values()
    assert manifest["environment"] == told
    assert manifest["config"].get("precision") == (None if precision == "float32" else precision)
    assert outcome.step == 5


# The session that trains, against `Session.run`.

Array = npt.NDArray[Any]

IMAGES = np.random.default_rng(0).random((6, 32, 32, 3)).astype(np.float32)
BATCH = (IMAGES, np.array([0, 1, 2, 3, 0, 1]))


@pytest.fixture
def model() -> ModelGraph:
    return cnn.build(num_classes=4, learning_rate=1e-3, seed=0)


@pytest.fixture
def session(model: ModelGraph) -> Iterator[GraphSession]:
    with GraphSession(model) as session:
        session.initialize({})
        yield session


def test_a_step_is_the_step_of_session_run(session: GraphSession, model: ModelGraph) -> None:
    """Five steps, with dropout on, in both ways: equal losses, accuracies and bytes."""
    feeds = {**dict(zip(model.inputs, BATCH, strict=True)), **model.training_feeds}
    with tf.compat.v1.Session(graph=model.graph) as plain:
        variables = model.graph.get_collection("variables")
        plain.run([v.initializer for v in variables])
        for _ in range(5):
            *expected, _ = plain.run([model.loss, model.accuracy, model.train_op], feeds)
            assert [*session.train_step(BATCH).values()] == [*map(float, expected)]
        found = session.variables()
        for variable in variables:
            assert found[variable.op.name].tobytes() == plain.run(variable.name).tobytes()


def test_the_accuracy_is_that_of_all_examples(session: GraphSession, model: ModelGraph) -> None:
    """With dropout off, and to the last bit, though in float32 no batch's accuracy is exact."""
    x, y = np.tile(BATCH[0], (5, 1, 1, 1)), np.tile(BATCH[1], 5)
    y[:7] = _classes(session, model, x)[:7]
    predicted = _classes(session, model, x)
    expected = int(np.sum(predicted == y)) / 30
    for ends in ([0, 30], [0, 7, 30], range(31)):
        split = [(x[start:stop], y[start:stop]) for start, stop in itertools.pairwise(ends)]
        found = session.evaluate(split)
        assert found.accuracy == expected
        confusion = [[((y == i) & (predicted == j)).sum() for j in range(4)] for i in range(4)]
        np.testing.assert_array_equal(found.confusion, confusion)
    with pytest.raises(ValueError, match="no example"):
        session.evaluate([])
    for bad in (x.astype(np.float64), x > 0):
        with pytest.raises(tf.errors.InvalidArgumentError):
            session.train_step((bad, y))


def _classes(session: GraphSession, model: ModelGraph, x: Array) -> Array:
    values = session.variables()
    with tf.compat.v1.Session(graph=model.graph) as plain:
        assigns = {v.initializer: v for v in model.graph.get_collection("variables")}
        plain.run(list(assigns), {op.inputs[1]: values[v.op.name] for op, v in assigns.items()})
        classes: Array = plain.run("classes:0", {"x:0": x})
        return classes


@pytest.mark.usefixtures("session")
def test_the_graph_is_final(model: ModelGraph) -> None:
    with pytest.raises(RuntimeError, match="finalized"), model.graph.as_default():
        tf.constant(1)
