"""`--replay`: what is equal, what was changed and how it is named, what cannot be replayed."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl import flags as absl_flags

import finetune
import train_cnn
import train_linear
import train_mlp
from checkpoints import layout
from checkpoints.bundle import write_bundle
from checkpoints.lock import FolderLock
from checkpoints.reader import CheckpointReader
from cli.fields import parse
from errors import CheckpointError, TrainingError
from tests import runs
from tests.conftest import Capture, Log, Make, Patch
from tests.data.idx_files import write_mnist
from tests.runs import with_run
from train_linear import LinearConfig
from training import resume
from training.config import ALL_STEPS
from training.replay import _difference
from training.workers import take_place


@pytest.fixture
def config(linear_config: Callable[..., LinearConfig], tmp_path: Path) -> LinearConfig:
    """Of a run of 40 steps, with checkpoints 10 to 40."""
    return linear_config(tmp_path / "run", train_steps=40, log_every_steps=5)


@pytest.fixture
def folder(config: LinearConfig) -> Path:
    """The folder of that run, which is finished."""
    train_linear.train(config)
    return Path(config.run.ckpt_dir)


def _verdict(config: Any, first: int, last: int, script: Any = train_linear) -> str:
    outcome = script.train(with_run(config, replay=(first, last)))
    verdict: str = outcome.verdict
    assert outcome.exit_code == (not verdict.startswith("equal: "))
    return verdict


def _rewrite(folder: Path, step: int, **changes: Any) -> None:
    """Changes what a manifest says, with a hash that fits, and so all manifests after it."""
    said = layout.read_manifest(str(folder), step)
    assert said is not None
    files = {name: layout.digest_file(str(folder / name)) for name in said.files}
    (folder / f"my-model-{step}.manifest").write_bytes(
        layout.encode_manifest(said._replace(files=files, **changes))
    )
    steps = sorted(int(path.stem[9:]) for path in folder.glob("my-model-*.manifest"))
    for later in [other for other in steps if other > step][:1]:
        _rewrite(folder, later, previous=layout.previous_manifest(str(folder), step))


def _forge(folder: Path, step: int, name: str, index: Any, value: float) -> Any:
    """Changes one number of a checkpoint; all checksums and manifests are made anew."""
    reader = CheckpointReader(f"{folder}/my-model-{step}")
    values = {key: np.array(reader.read(key)) for key in reader.specs}
    before = values[name][index]
    values[name][index] = value
    write_bundle(reader.prefix, values)
    _rewrite(folder, step)
    return before


# What is equal.


@pytest.mark.parametrize(
    ("steps", "checkpoints", "lines"),
    [((10, 20), 1, 2), ((10, 40), 3, 6), ((0, 10), 1, 3), ((0, 40), 4, 9), (ALL_STEPS, 3, 6)],
)
def test_what_was_not_changed_is_equal_and_nothing_is_written(
    config: LinearConfig, folder: Path, steps: tuple[int, int], checkpoints: int, lines: int
) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = state()
    folder.chmod(0o555)
    try:
        verdict = _verdict(config, *steps)
    finally:
        folder.chmod(0o755)
    counts = f"checkpoints {checkpoints}, variables in each 3, lines of metrics {lines}, test accur"
    assert verdict.startswith("equal: ")
    assert counts in verdict
    assert state() == before


def test_a_run_that_was_interrupted_and_went_on_otherwise_is_equal(config: LinearConfig) -> None:
    """Stopped, extended, saved and logged more often: what is there says what is compared."""
    keeps = with_run(config, max_to_keep=0)
    stopped = with_run(keeps, train_steps=25)
    runs.train_watched(train_linear.make_task(stopped), stopped.run, runs.stop_at(16))
    train_linear.train(stopped)
    later = with_run(keeps, log_every_steps=10)
    train_linear.train(with_run(later, save_every_steps=7))
    assert [*runs.manifests(config.run)] == [10, 17, 20, 25, 28, 35, 40]
    assert "checkpoints 6, " in _verdict(later, *ALL_STEPS)
    assert "checkpoints 2, variables in each 3, lines of metrics 2," in _verdict(later, 10, 20)
    # A line that the flags ask for, and the run did not write, is told of.
    assert _verdict(config, 28, 40).endswith("metrics.jsonl has no line of step 35")
    # Those of a shorter run ask for none at its end.
    assert "checkpoints 7, " in _verdict(with_run(later, train_steps=3), 0, 40)


def test_a_run_in_shards_is_replayed(config: LinearConfig) -> None:
    sharded = with_run(config, shards=4)
    train_linear.train(sharded)
    assert _verdict(sharded, 0, 40).startswith("equal: ")
    with pytest.raises(TrainingError, match="shards was 4, is now not given; give --replay the"):
        _verdict(config, 0, 40)


def test_what_a_run_began_with_is_part_of_it(
    linear_run: Path, tmp_path: Path, linear_config: Make, capsys: Capture
) -> None:
    path = tmp_path / "begun"
    given = [f"--ckpt_dir={path}", f"--init_from={linear_run}", "--train_steps=20"]
    train_linear.train(parse(LinearConfig, ["s", *given]))
    for steps in ("0:10", "all", "0:20"):
        assert train_linear.main(parse(LinearConfig, ["s", *given, f"--replay={steps}"])) == 0
        assert capsys.readouterr().out.startswith(f"equal: {path} has the bytes that training ")
    for first in (0, 10):
        with pytest.raises(TrainingError, match=r"of another run: initial_values was '\w+', is no"):
            _verdict(linear_config(path, train_steps=20), first, 20)


# What was changed.


def test_a_forged_weight_is_found(config: LinearConfig, folder: Path, capsys: Capture) -> None:
    """All that is stored agrees: checksums, manifests, and the chain of these."""
    before = _forge(folder, 20, "w", 0, 0.5)
    found = (
        f"different: {folder}/my-model-20: w[0] is 0.5, and training gives {before!s}; of its 1 "
        "numbers 1 differ"
    )
    for steps in ((10, 20), (10, 40), (0, 30), ALL_STEPS):
        assert _verdict(config, *steps) == found
    # What comes of it is another, too; what was before it, and after it, is not.
    assert "/metrics.jsonl has {" in _verdict(config, 20, 30)
    assert _verdict(config, 0, 10).startswith("equal: ")
    assert _verdict(config, 30, 40).startswith("equal: ")
    given = [f"--ckpt_dir={folder}", "--train_steps=40", "--log_every_steps=5", "--replay=10:20"]
    assert train_linear.main(parse(LinearConfig, ["s", *given])) == 1
    assert capsys.readouterr().out == found + "\n"


def test_values_are_compared_by_their_bytes() -> None:
    zeros = np.zeros((2, 2), np.float32)
    other = np.array([[0, 0], [-0.0, 1]], np.float32)
    assert _difference(zeros, other) == (
        "[1, 0] is 0.0, and training gives -0.0; of its 4 numbers 2 differ"
    )
    assert _difference(np.array(3), np.array(4)).startswith(" is 3, and training gives 4; of its 1")
    for equal in (np.array(np.nan), np.zeros((2, 0, 3)), zeros):
        assert _difference(equal, equal.copy()) == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda line: {**line, "loss": line["loss"] * 2}, r'has {"step": 15, .*, and training giv'),
        (lambda _: None, "has no line of step 15"),
    ],
)
def test_a_changed_line_of_the_metrics_is_found(
    config: LinearConfig, folder: Path, caplog: Log, change: Callable[[Any], Any], told: str
) -> None:
    lines, log = runs.lines(config.run), folder / "logs" / "metrics.jsonl"
    lines[3] = change(lines[3])
    log.write_text("".join(json.dumps(line) + "\n" for line in lines if line))
    assert re.match(f"different: {log} {told}", _verdict(config, 10, 40))
    assert _verdict(config, 20, 40).startswith("equal: ")
    log.unlink()
    assert "lines of metrics 0," in _verdict(config, *ALL_STEPS)
    assert f"{log} has no lines: none is compared" in caplog.text


def test_another_seed_in_the_manifest_is_found(config: LinearConfig, folder: Path) -> None:
    said = layout.read_manifest(str(folder), 30)
    assert said is not None
    other = {**said.config, "seed": 7}
    _rewrite(folder, 30, config=other)
    told = r"my-model-30 is of another run: seed was 7, is now 0; .*--flagfile=.*/run/run\.flags$"
    with pytest.raises(TrainingError, match=told):
        _verdict(config, 20, 40)
    for step in (10, 20, 40):  # A forger who has all of them say so is found by the bytes.
        _rewrite(folder, step, config=other)
    with pytest.raises(TrainingError, match="my-model-10 is of another run: seed was 7, is now 0"):
        _verdict(config, *ALL_STEPS)
    assert _verdict(with_run(config, seed=7), 0, 40).startswith("different: ")


# Every trainer, on what only it has: slots, a test split, images, a graph of its own.


@pytest.fixture
def images(three_classes: str, tmp_path: Path, cnn_config: Make) -> Any:
    """Of a finished run of the CNN with moving averages and a test split, on a file of its own."""
    with np.load(three_classes) as held:
        np.savez(tmp_path / "images.npz", X=held["X"], Y=held["Y"])
    config = cnn_config(
        tmp_path / "cnn",
        data=str(tmp_path / "images.npz"),
        validation_fraction=0.25,
        train_steps=6,
        save_every_steps=2,
        log_every_steps=3,
        batch_size=6,
        ema_decay=0.9,
    )
    train_cnn.train(config)
    return config


def test_forged_slots_graphs_and_accuracies_are_found(images: Any, tmp_path: Path) -> None:
    path = tmp_path / "cnn"
    equal = _verdict(images, 0, 6, train_cnn)
    assert equal.endswith("variables in each 35, lines of metrics 2, test accuracies 1")
    assert _verdict(images, 2, 4, train_cnn).startswith("equal: ")
    before = _forge(path, 4, "fc1/w/Adam", (5, 7), 1.0)
    _rewrite(path, 6, test_accuracy=0.125)
    assert _verdict(images, 2, 6, train_cnn) == (  # The first difference is what is told of.
        f"different: {path}/my-model-4: fc1/w/Adam[5, 7] is 1.0, and training gives {before!s}; of "
        "its 131072 numbers 1 differ"
    )
    _forge(path, 4, "fc1/w/Adam", (5, 7), before)
    told = _verdict(images, 2, 6, train_cnn)
    assert "my-model-6.manifest says a test accuracy of 0.125, and training gives " in told
    # An empty MetaInfoDef more, which protos merge with the first: other bytes alone.
    meta = path / "my-model-6.meta"
    meta.write_bytes(meta.read_bytes() + b"\x0a\x00")
    _rewrite(path, 6)
    assert (
        _verdict(images, 2, 6, train_cnn) == f"different: {meta} is not the graph that is trained"
    )


def test_a_changed_image_is_found(images: Any, tmp_path: Path) -> None:
    with np.load(tmp_path / "images.npz") as held:
        x, y = held["X"], held["Y"]
    x[5, 0, 0, 0] ^= 1
    np.savez(tmp_path / "images.npz", X=x, Y=y)
    told = r"my-model-2 is of another run: (data|test_data) was '\w+', is now '\w+'"
    with pytest.raises(TrainingError, match=told):
        _verdict(images, 2, 6, train_cnn)
    for step in (2, 4, 6):  # A forger who has the manifests tell of it is found by the bytes.
        _rewrite(tmp_path / "cnn", step, config=train_cnn.make_task(images).identity)
    assert _verdict(images, 0, 6, train_cnn).startswith("different: ")


def test_the_perceptron_over_epochs_and_interruptions(mlp_config: Make, tmp_path: Path) -> None:
    data = write_mnist(tmp_path / "digits", 40, 10)
    config = mlp_config(tmp_path / "mlp", data_dir=str(data), batch_size=16, epochs=3.0)
    runs.train_watched(train_mlp.make_task(config), config.run, runs.stop_at(3))
    train_mlp.train(config)
    assert [*runs.manifests(config.run)] == [3, 4, 5, 8]
    told = _verdict(config, 0, 8, train_mlp)
    assert re.search("checkpoints 4, .*lines of metrics 3, test accuracies 3$", told)
    assert "checkpoints 3, " in _verdict(config, *ALL_STEPS, train_mlp)
    _forge(tmp_path / "mlp", 8, "w_h2/RMSProp", (1, 2), 0.0)
    assert "my-model-8: w_h2/RMSProp[1, 2] is 0.0, " in _verdict(config, 0, 8, train_mlp)


def test_a_fine_tuning(cnn_run: Path, finetune_config: Make, tmp_path: Path) -> None:
    config = finetune_config(cnn_run, "fc2/add:0", train_scopes=("fc1",))
    finetune.train(config)
    for steps in ((0, 4), ALL_STEPS):
        assert _verdict(config, *steps, finetune).startswith("equal: ")
    _forge(tmp_path / "finetuned", 8, "conv1/w", (0, 0, 0, 3), 0.0)  # Which is not trained.
    assert "my-model-8: conv1/w[0, 0, 0, 3] is 0.0, " in _verdict(config, 4, 12, finetune)


# What is said before, and what cannot be replayed.


def test_another_machine_is_said_before_anything_is_compared(
    config: LinearConfig, monkeypatch: Patch, caplog: Log
) -> None:
    train_linear.train(config)
    told = "equal bytes are not to be expected: onednn was '.', is now '9', processor was '.*', is "
    said: list[bool] = []
    other = resume.environment() | {"processor": "avx9", "onednn": "9"}
    monkeypatch.setattr(resume, "environment", lambda: other)
    runs.train_watched(
        train_linear.make_task(config),
        with_run(config, replay=(10, 40)).run,
        lambda _: said.append(bool(re.search(told, caplog.text))),
    )
    assert said == [True] * 30
    assert len(re.findall(told, caplog.text)) == 1


def test_what_is_not_there_is_named(config: LinearConfig, folder: Path) -> None:
    for steps in ((5, 20), (10, 25)):
        told = f"{folder} has no checkpoint of step [25]5?, but of 10, 20, 30, 40$"
        with pytest.raises(TrainingError, match=told):
            _verdict(config, *steps)
    for name, told in (("logs", "holds no checkpoint"), ("none", "is not there")):
        path = folder / name
        with pytest.raises(TrainingError, match=f"{path} {told}: name the folder of the run with"):
            _verdict(with_run(config, ckpt_dir=str(path)), 0, 10)
    assert not (folder / "none").exists()
    for step in (10, 20, 30):
        for file in folder.glob(f"my-model-{step}.*"):
            file.unlink()
    with pytest.raises(TrainingError, match="one checkpoint alone: --replay=0:40 begins with the"):
        _verdict(config, *ALL_STEPS)


def test_a_damaged_checkpoint_is_no_difference(config: LinearConfig, folder: Path) -> None:
    runs.flip_a_bit(folder / "my-model-20.data-00000-of-00001")
    for steps in ((10, 20), (20, 30)):
        with pytest.raises(CheckpointError, match=r"my-model-20 cannot be compared: .* is damaged"):
            _verdict(config, *steps)
    runs.flip_a_bit(folder / "my-model-40.manifest")
    with pytest.raises(CheckpointError, match=r"my-model-40\.manifest is damaged"):
        _verdict(config, 30, 40)


def test_another_model_is_named_before_its_variables(cnn_run: Path, linear_config: Make) -> None:
    for steps in ((0, 200), (190, 200)):
        with pytest.raises(
            TrainingError, match=r"my-model-\d+ is of .*: model was 'cnn', is now 'l"
        ):
            _verdict(linear_config(cnn_run), *steps)


@pytest.mark.usefixtures("folder")
def test_a_signal_ends_an_audit_at_once(config: LinearConfig) -> None:
    """It has nothing to save. The signal comes to a copy of the process, which has its handlers."""

    def stop(step: int) -> None:
        if step == 15:
            child = os.fork()
            if child == 0:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
                os.kill(os.getpid(), signal.SIGTERM)
                os._exit(0)
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    ended: list[int] = []
    task, run = train_linear.make_task(config), with_run(config, replay=(10, 20)).run
    assert runs.train_watched(task, run, stop).exit_code == 0
    assert ended == [128 + signal.SIGTERM]


def test_a_folder_that_is_trained_into_is_left_alone(config: LinearConfig, folder: Path) -> None:
    told = f"{folder} is in use by process {os.getpid()} on .*, or replay a copy of it"
    with FolderLock(str(folder)), pytest.raises(CheckpointError, match=told):
        _verdict(config, 10, 20)

    def interfere(step: int) -> None:
        """A training begins meanwhile, and lets a checkpoint go."""
        if step == 15:
            lock.__enter__()
            (folder / "my-model-20.index").unlink()

    lock = FolderLock(str(folder))
    task, run = train_linear.make_task(config), with_run(config, replay=(10, 20)).run
    try:
        with pytest.raises(CheckpointError, match=told):
            runs.train_watched(task, run, interfere)
    finally:
        lock.__exit__()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        *((f"--replay={n}", "must be two steps") for n in ("20:10", "1:1", "10", "-1:10", "", ":")),
        ("--replay=1:2 --shards=2 --workers=2", "--replay computes in one process"),
        ("--replay=all --start_anew", "--replay computes in one process"),
        ("--replay=all --allow_config_change", "--replay computes in one process"),
        ("--replay=all --profile_steps=10:20", "--replay computes in one process"),
    ],
)
def test_flags_that_make_no_sense(given: str, told: str) -> None:
    with pytest.raises(absl_flags.Error, match=told):
        parse(LinearConfig, ["s", *given.split()])


def test_one_of_several_workers_cannot_replay(config: LinearConfig, monkeypatch: Patch) -> None:
    told = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(told))
    with pytest.raises(TrainingError, match="--replay computes all shards in one process: unset"):
        take_place(with_run(config, replay=(10, 20), shards=2).run)
