"""What real machines do to a run: nothing of it, and nothing of the user's, is lost."""

import dataclasses
import errno
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from absl import logging

import train_linear
from checkpoints import file_io, manifest
from checkpoints.bundle import BundleWriter
from checkpoints.lock import FolderLock
from checkpoints.writer import CheckpointWriter
from errors import CheckpointError, FolderLostError, LaterVersionError, TrainingError
from train_linear import LinearConfig
from training import loop

STEPS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def config(linear_config: Callable[..., LinearConfig], folder: Path) -> LinearConfig:
    """A run of 60 steps with a checkpoint and a line every ten."""
    return linear_config(folder, train_steps=STEPS)


def _train(config: LinearConfig, at_step: Callable[[int], object] = lambda _: None) -> loop.Outcome:
    """Trains; calls `at_step` with each step before it is done."""
    task = train_linear.make_task(config)

    def batches(start: int, stop: int) -> Any:
        for step in range(start, stop):
            at_step(step)
            yield from task.batches(step, step + 1)

    return loop.train(task._replace(batches=batches), config.run)


def _at(step: int, action: Callable[[], object]) -> Callable[[int], object]:
    return lambda now: action() if now == step else None


def _content(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def _until_committed(folder: Path, step: int) -> None:
    for _ in range(600):
        state = folder / "checkpoint"
        if state.exists() and f"my-model-{step}" in state.read_text():
            return  # All that a save does is done, for nothing is to be deleted yet.
        time.sleep(0.05)
    pytest.fail(f"step {step} was not committed")


def test_who_takes_the_path_of_a_moved_folder_keeps_all(config: LinearConfig, folder: Path) -> None:
    """A trains, the folder is moved away, B trains there; A then writes and deletes nothing."""
    theirs: dict[str, bytes] = {}

    def move() -> None:
        _until_committed(folder, 20)
        folder.rename(folder.with_name("old"))
        _train(config)
        theirs.update(_content(folder))

    with pytest.raises(FolderLostError, match="another file"):
        _train(config, _at(25, move))
    assert _content(folder) == theirs
    assert "my-model-60.manifest" in theirs
    assert (folder.with_name("old") / "my-model-20.manifest").exists()


def test_a_folder_that_is_deleted_is_not_made_anew(config: LinearConfig, folder: Path) -> None:
    def delete() -> None:
        _until_committed(folder, 20)
        shutil.rmtree(folder)

    with pytest.raises(FolderLostError, match="gone"):
        _train(config, _at(25, delete))
    assert not folder.exists()


def test_a_lock_that_is_taken_by_another_ends_the_first(config: LinearConfig, folder: Path) -> None:
    def take() -> None:
        _until_committed(folder, 20)
        (folder / ".lock").unlink()
        FolderLock(str(folder)).__enter__()

    with pytest.raises(FolderLostError):
        _train(config, _at(25, take))
    assert sorted(p.name for p in folder.glob("*.manifest*")) == [
        "my-model-10.manifest",
        "my-model-20.manifest",
    ]


def test_the_users_own_files_stay(config: LinearConfig, folder: Path) -> None:
    """Also one that has the very name of a file to be saved: that gets another name."""
    _train(config)
    own = [
        "my-model-20261129.tar.gz",
        "my-model-50.txt",
        "my-model-70.meta",
        "my-model-100.npz",
        "my-model-100.pb",
        "my-model-0150.meta",
    ]
    for name in own:
        (folder / name).write_text("mine")
    (folder / "my-model-100.export").mkdir()
    longer = dataclasses.replace(config, train_steps=100)
    assert _train(longer).exit_code == 0
    kept = ["my-model-70.meta.set-aside" if "70" in name else name for name in own]
    assert [(folder / name).read_text() for name in kept] == ["mine"] * len(own)
    assert (folder / "my-model-100.export").is_dir()


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


@pytest.mark.parametrize(
    ("gone", "line"),
    [
        (["my-model-*"], r"checkpoint names my-model-60, but .* has no checkpoint: .*--start_anew"),
        (["my-model-*", "checkpoint"], "metrics.jsonl has steps up to 60"),
        (["*.index", "*.manifest", "checkpoint"], r"my-model-60\.data-00000-of-00001 without its"),
    ],
)
def test_a_run_whose_checkpoints_are_gone_does_not_begin_in_silence(
    config: LinearConfig, folder: Path, gone: list[str], line: str
) -> None:
    _train(config)
    for pattern in gone:
        _remove(folder, pattern)
    before = _content(folder)
    with pytest.raises(TrainingError, match=line):
        _train(config)
    assert _content(folder) == before
    anew = dataclasses.replace(config, run=dataclasses.replace(config.run, start_anew=True))
    assert _train(anew).step == STEPS


def test_a_run_that_lost_its_newest_says_so_and_does_it_again(
    config: LinearConfig, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _train(config)
    before = _content(folder)
    _remove(folder, "my-model-60.*")
    assert _train(config).step == STEPS
    assert "checkpoint names my-model-60, which is not there" in caplog.text
    after = _content(folder)
    assert {n for n in before if before[n] != after[n]} <= {"my-model-60.manifest"}


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    config: LinearConfig, folder: Path
) -> None:
    """It may have written lines of metrics, and has nothing else to lose."""
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n')
    assert _train(config).exit_code == 0


def test_a_run_whose_files_were_deleted_does_not_end_well(
    config: LinearConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = CheckpointWriter.close

    def close_and_delete(writer: Any) -> None:
        close(writer)
        _remove(folder, "my-model-60.*")

    monkeypatch.setattr(CheckpointWriter, "close", close_and_delete)
    with pytest.raises(TrainingError, match="my-model-60 was saved and is not there any more"):
        _train(config)


def _as_of_later(path: Path, hashed_so: bool, **changes: Any) -> None:
    record = {**json.loads(path.read_bytes()), **changes}
    del record["sha256"]
    path.write_text(
        json.dumps({**record, "sha256": manifest._hash_of(record) if hashed_so else "other"})
    )


@pytest.mark.parametrize(
    ("hashed_so", "changes"),
    [(True, {"format": 2}), (False, {"format": 2}), (True, {"format": 1, "compression": "zstd"})],
)
def test_what_a_later_version_saved_is_not_stepped_over(
    config: LinearConfig, folder: Path, hashed_so: bool, changes: dict[str, Any]
) -> None:
    _train(config)
    _as_of_later(folder / "my-model-60.manifest", hashed_so, **changes)
    before = _content(folder)
    longer = dataclasses.replace(config, train_steps=100)
    with pytest.raises(
        LaterVersionError, match=r"my-model-60.manifest was made by a later version"
    ):
        _train(longer)
    assert _content(folder) == before


def test_a_format_that_is_damaged_is_no_later_version(config: LinearConfig, folder: Path) -> None:
    _train(config)
    path = folder / "my-model-60.manifest"
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 3'))
    assert _train(config).step == STEPS
    assert manifest.read(str(folder), 60) is not None


def _full_disk(*_: object) -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")


def test_saves_that_never_succeed_end_the_run(
    config: LinearConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BundleWriter, "write", _full_disk)
    steps = itertools.count()
    with pytest.raises(CheckpointError, match=r"No space left on device; so did the 2 saves"):
        _train(config, lambda _: next(steps))
    assert next(steps) == 40  # The fourth save finds that three have failed.


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_where_no_checkpoint_fits_no_step_is_trained(
    config: LinearConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _train(config)
    before = _content(folder)
    write = file_io.write_file

    def refuse(path: str, content: bytes) -> None:
        if number == errno.ENOSPC:
            write(path, content[:100])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(file_io, "write_file", refuse)
    longer = dataclasses.replace(config, train_steps=100)
    line = rf"takes no checkpoint, which needs [\d,]+ bytes: .*{os.strerror(number)}"
    with pytest.raises(CheckpointError, match=line):
        _train(longer, lambda step: pytest.fail(f"trained step {step}"))
    after = _content(folder)
    assert {name: after[name] for name in before} == before
    assert not (folder / "checkpoint.tmp").exists()


def test_folders_that_cannot_be_flushed_are_said_once_and_used(
    config: LinearConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    said: list[object] = []
    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(logging, "log_first_n", lambda *args: said.append(args[2:4]))
    assert _train(config).step == STEPS
    assert (folder / "my-model-60.manifest").exists()
    assert (1, str(folder)) in said


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda path: path.unlink(), "metrics.jsonl is missing or empty: of the steps .* to 60"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "ends at step 0: of the steps"),
        (
            lambda path: path.write_bytes(
                path.read_bytes().replace(b'"step": 30', b'"st\xffp": 30')
            ),
            "metrics.jsonl: 1 lines are damaged and left out",
        ),
    ],
)
def test_a_gap_in_the_metrics_is_said(
    config: LinearConfig,
    folder: Path,
    damage: Callable[[Path], object],
    line: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _train(config)
    damage(folder / "logs" / "metrics.jsonl")
    longer = dataclasses.replace(config, train_steps=100)
    assert _train(longer).step == 100
    assert re.search(line, caplog.text)


def test_missing_events_are_said(
    config: LinearConfig, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _train(config)
    _remove(folder, "logs/events*")
    _train(dataclasses.replace(config, train_steps=100))
    assert "has no events of the steps up to 60" in caplog.text


def test_tensorboard_keeps_a_rerun_whose_clock_is_behind(
    config: LinearConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 3600 * 10**9)
    _train(config)
    monkeypatch.setattr(time, "time_ns", lambda: now)
    _train(dataclasses.replace(config, train_steps=100))
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("loss")] == [*range(10, 101, 10)]


def test_a_run_whose_saves_all_failed_may_begin_again(
    config: LinearConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has written metrics, and never had a checkpoint."""

    with monkeypatch.context() as patched:
        patched.setattr(BundleWriter, "write", _full_disk)
        with pytest.raises(CheckpointError, match="so did the 2 saves"):
            _train(config)
    assert _train(config).step == STEPS


def test_metrics_that_cannot_be_read_are_one_line(config: LinearConfig, folder: Path) -> None:
    (folder / "logs" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(TrainingError, match=f"^{folder} cannot be read: "):
        _train(config)


def test_a_name_in_the_logs_that_is_not_utf_8_is_passed_over(
    config: LinearConfig, folder: Path
) -> None:
    (folder / "logs").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder / "logs") + b"/caf\xe9.txt")).touch()
    assert _train(config).step == STEPS


def test_a_folder_that_cannot_be_reached_is_not_an_empty_one(
    config: LinearConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a run that may begin anew: what is there would be saved over."""
    _train(config)
    before = _content(folder)
    anew = dataclasses.replace(config, run=dataclasses.replace(config.run, start_anew=True))

    def refuse(_: str) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", refuse)
        with pytest.raises(CheckpointError, match="cannot be read: Input/output error"):
            _train(anew)
    assert _content(folder) == before
