"""What real machines do to a run: nothing of it, and nothing of the user's, is lost."""

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from absl import logging

import file_io
import train_linear
from checkpoints import layout, writer
from checkpoints.lock import FolderLock
from checkpoints.writer import CheckpointWriter
from errors import CheckpointError, FolderLostError, LaterVersionError, TrainingError
from tests import runs
from tests.conftest import Log, Make, Patch
from tests.runs import with_run
from train_linear import LinearConfig
from training import loop

STEPS = 60
Changes = dict[str, Any]


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


def test_a_lost_newest_is_done_again(config: LinearConfig, folder: Path, caplog: Log) -> None:
    _train(config)
    before = _content(folder)
    _remove(folder, "my-model-60.*")
    assert _train(config).step == STEPS
    assert "checkpoint names my-model-60, which is not there" in caplog.text
    after = _content(folder)
    assert {n for n in before if before[n] != after[n]} <= {"my-model-60.manifest"}


def test_deleted_files_are_an_error(config: LinearConfig, folder: Path, monkeypatch: Patch) -> None:
    close = CheckpointWriter.close

    def close_and_delete(writer: CheckpointWriter) -> None:
        close(writer)
        _remove(folder, "my-model-60.*")

    monkeypatch.setattr(CheckpointWriter, "close", close_and_delete)
    with pytest.raises(TrainingError, match="my-model-60 was saved and is not there any more"):
        _train(config)


@pytest.mark.parametrize(
    ("hashed", "changes"),
    [(True, {"format": 2}), (False, {"format": 2}), (True, {"format": 1, "compression": "zstd"})],
)
def test_later_versions(config: LinearConfig, folder: Path, hashed: bool, changes: Changes) -> None:
    _train(config)
    path = folder / "my-model-60.manifest"
    record = {**json.loads(path.read_bytes()), **changes}
    del record["sha256"]
    record["sha256"] = layout._hash_of(record) if hashed else "other"
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
    assert layout.read_manifest(str(folder), 60) is not None


def test_saves_that_never_succeed_end_the_run(config: LinearConfig, monkeypatch: Patch) -> None:
    """It has written metrics by then, and never had a checkpoint."""

    full = OSError(errno.ENOSPC, "No space left on device")
    steps = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(writer, "write_bundle", Mock(side_effect=full))
        with pytest.raises(
            CheckpointError, match=r"No space left on device; the 2 saves before it failed"
        ):
            _train(config, lambda _: next(steps))
    assert next(steps) == 40  # The fourth save finds that three have failed.
    assert _train(config).step == STEPS


def test_old_checkpoints_that_stay_end_no_run(
    config: LinearConfig, folder: Path, monkeypatch: Patch, caplog: Log
) -> None:
    """The saves have succeeded; what should have gone goes with the next one that can."""
    refused = OSError(errno.EACCES, "Permission denied")
    with monkeypatch.context() as patched:
        patched.setattr(writer, "after_save", Mock(side_effect=refused))
        assert _train(config).step == STEPS
    assert caplog.text.count(" is saved, but ") > writer.MOST_FAILURES
    assert len([*folder.glob("*.manifest")]) > config.run.max_to_keep
    _train_longer(config)
    assert len([*folder.glob("*.manifest")]) == config.run.max_to_keep


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_no_room(config: LinearConfig, folder: Path, monkeypatch: Patch, number: int) -> None:
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


def test_folders_without_a_flush(config: LinearConfig, folder: Path, monkeypatch: Patch) -> None:
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


def test_an_unreachable_folder(config: LinearConfig, folder: Path, monkeypatch: Patch) -> None:
    """Not even for a run that may begin anew: what is there would be saved over."""
    _train(config)
    before = _content(folder)

    error = OSError(errno.EIO, os.strerror(errno.EIO))
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", Mock(side_effect=error))
        with pytest.raises(CheckpointError, match="cannot be read: Input/output error"):
            _train(with_run(config, start_anew=True))
    assert _content(folder) == before


# What machines do to a run and has never harmed it: it is to stay so.


@contextmanager
def _processes(folder: Path, count: int) -> Iterator[tuple[list[int], list[bytes]]]:
    """Starts processes that all try to lock a folder and stay; their numbers, and who has it."""
    told, tells = os.pipe()
    children = []
    for _ in range(count):
        children.append(os.fork())
        if children[-1] == 0:
            has_it = b"0"
            with suppress(CheckpointError):
                FolderLock(str(folder)).__enter__()
                has_it = b"1"
            os.write(tells, has_it)
            signal.pause()
    try:
        yield children, [os.read(told, 1) for _ in children]
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_of_twenty_that_start_at_once_one_has_the_folder(tmp_path: Path) -> None:
    with _processes(tmp_path, 20) as (_, got):
        assert sorted(got) == [b"0"] * 19 + [b"1"]


def test_a_holder_that_is_stopped_still_holds(tmp_path: Path) -> None:
    with _processes(tmp_path, 1) as ((child,), _):
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(CheckpointError, match=f"in use by process {child}"):
            FolderLock(str(tmp_path)).__enter__()


def test_a_copy_of_a_folder_in_use_is_free(linear_config: Make, tmp_path: Path) -> None:
    """Its .lock names a process that does not hold it."""
    config = linear_config(tmp_path / "run", train_steps=20)
    train_linear.train(config)
    with FolderLock(str(tmp_path / "run")):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
    longer = linear_config(tmp_path / "copy", train_steps=30)
    assert train_linear.train(longer).step == 30


def test_a_path_as_long_as_the_system_allows(linear_config: Make, tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 3600:
        folder /= "x" * 200
    os.makedirs(folder)
    assert train_linear.train(linear_config(folder, train_steps=20)).step == 20
    with pytest.raises(TrainingError, match=r"File name too long$"):
        train_linear.train(linear_config(folder / ("y" * 255) / ("z" * 255), train_steps=20))


def test_few_file_descriptors_and_a_strict_umask(linear_config: Make, tmp_path: Path) -> None:
    train_linear.train(linear_config(tmp_path / "first", train_steps=10))  # What stays open, is.
    used = max(map(int, os.listdir("/proc/self/fd")))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, limits[1]))
    umask = os.umask(0o077)
    try:
        for last in (20, 50):
            config = linear_config(tmp_path / "run", train_steps=last)
            assert train_linear.train(config).step == last
    finally:
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "run").glob("my-model-*"))
