"""What real machines do to a run: nothing of it, and nothing of the user's, is lost."""

import errno
import itertools
import json
import os
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
from tests import runs
from tests.runs import with_run
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
    return runs.train_watched(train_linear.make_task(config), config.run, at_step)


def _train_longer(config: LinearConfig, **changes: Any) -> loop.Outcome:
    return _train(with_run(config, train_steps=100, **changes))


def _content(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def _remove(folder: Path, *patterns: str) -> None:
    for path in itertools.chain.from_iterable(map(folder.glob, patterns)):
        path.unlink()


def _after_20(folder: Path, action: Callable[[], object]) -> Callable[[int], object]:
    """For `_train`: acts before step 25, when all that the save of step 20 does is done."""

    def at_step(step: int) -> None:
        if step != 25:
            return
        state = folder / "checkpoint"
        for _ in range(600):
            if state.exists() and "my-model-20" in state.read_text():
                action()
                return
            time.sleep(0.05)
        pytest.fail("step 20 was not committed")

    return at_step


def test_who_takes_the_path_of_a_moved_folder_keeps_all(config: LinearConfig, folder: Path) -> None:
    """A trains, the folder is moved away, B trains there; A then writes and deletes nothing."""
    theirs: dict[str, bytes] = {}

    def move() -> None:
        folder.rename(folder.with_name("old"))
        _train(config)
        theirs.update(_content(folder))

    with pytest.raises(FolderLostError, match="another file"):
        _train(config, _after_20(folder, move))
    assert _content(folder) == theirs
    assert "my-model-60.manifest" in theirs
    assert (folder.with_name("old") / "my-model-20.manifest").exists()


def test_a_folder_that_is_deleted_is_not_made_anew(config: LinearConfig, folder: Path) -> None:
    with pytest.raises(FolderLostError, match="gone"):
        _train(config, _after_20(folder, lambda: shutil.rmtree(folder)))
    assert not folder.exists()


def test_a_lock_that_is_taken_by_another_ends_the_first(config: LinearConfig, folder: Path) -> None:
    def take() -> None:
        (folder / ".lock").unlink()
        FolderLock(str(folder)).__enter__()

    with pytest.raises(FolderLostError):
        _train(config, _after_20(folder, take))
    assert [*runs.manifests(config.run)] == [10, 20]


def test_the_users_own_files_stay(config: LinearConfig, folder: Path) -> None:
    """Also one that has the very name of a file to be saved: that gets another name."""
    _train(config)
    other = ("20261129.tar.gz", "50.txt", "100.npz", "100.pb", "0150.meta", "70.meta")
    for tail in other:
        (folder / f"my-model-{tail}").write_text("mine")
    (folder / "my-model-100.export").mkdir()
    assert _train_longer(config).exit_code == 0
    for tail in (*other[:-1], "70.meta.set-aside"):
        assert (folder / f"my-model-{tail}").read_text() == "mine"
    assert (folder / "my-model-100.export").is_dir()


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
    _remove(folder, *gone)
    before = _content(folder)
    with pytest.raises(TrainingError, match=line):
        _train(config)
    assert _content(folder) == before
    assert _train(with_run(config, start_anew=True)).step == STEPS


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

    def close_and_delete(writer: CheckpointWriter) -> None:
        close(writer)
        _remove(folder, "my-model-60.*")

    monkeypatch.setattr(CheckpointWriter, "close", close_and_delete)
    with pytest.raises(TrainingError, match="my-model-60 was saved and is not there any more"):
        _train(config)


@pytest.mark.parametrize(
    ("hashed_so", "changes"),
    [(True, {"format": 2}), (False, {"format": 2}), (True, {"format": 1, "compression": "zstd"})],
)
def test_what_a_later_version_saved_is_not_stepped_over(
    config: LinearConfig, folder: Path, hashed_so: bool, changes: dict[str, Any]
) -> None:
    _train(config)
    path = folder / "my-model-60.manifest"
    record = {**json.loads(path.read_bytes()), **changes}
    del record["sha256"]
    record["sha256"] = manifest._hash_of(record) if hashed_so else "other"
    path.write_text(json.dumps(record))
    before = _content(folder)
    with pytest.raises(LaterVersionError, match=r"60.manifest was made by a later version"):
        _train_longer(config)
    assert _content(folder) == before


def test_a_format_that_is_damaged_is_no_later_version(config: LinearConfig, folder: Path) -> None:
    _train(config)
    path = folder / "my-model-60.manifest"
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 3'))
    assert _train(config).step == STEPS
    assert manifest.read(str(folder), 60) is not None


def test_saves_that_never_succeed_end_the_run_which_may_begin_again(
    config: LinearConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has written metrics by then, and never had a checkpoint."""

    def full_disk(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    steps = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(BundleWriter, "write", full_disk)
        with pytest.raises(CheckpointError, match=r"No space left on device; so did the 2 saves"):
            _train(config, lambda _: next(steps))
    assert next(steps) == 40  # The fourth save finds that three have failed.
    assert _train(config).step == STEPS


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
    line = rf"takes no checkpoint, which needs [\d,]+ bytes: .*{os.strerror(number)}"
    with pytest.raises(CheckpointError, match=line):
        _train(with_run(config, train_steps=100), lambda step: pytest.fail(f"trained step {step}"))
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


def test_metrics_that_cannot_be_read_are_one_line(config: LinearConfig, folder: Path) -> None:
    (folder / "logs" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(TrainingError, match=f"^{folder} cannot be read: "):
        _train(config)


def test_a_folder_that_cannot_be_reached_is_not_an_empty_one(
    config: LinearConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a run that may begin anew: what is there would be saved over."""
    _train(config)
    before = _content(folder)

    def refuse(_: str) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", refuse)
        with pytest.raises(CheckpointError, match="cannot be read: Input/output error"):
            _train(with_run(config, start_anew=True))
    assert _content(folder) == before
