"""One writer a folder."""

import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints.writer import FolderLock, holder
from errors import CheckpointError, FolderLostError


def _locked_by_a_child(folder: Path) -> int:
    """Starts a process that takes the lock and keeps it; returns the process's number."""
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        FolderLock(str(folder)).__enter__()
        os.write(done, b"x")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(done)
    return child


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    child = _locked_by_a_child(tmp_path)
    before = sorted(os.listdir(tmp_path))
    message = f"is in use by process {child} on {socket.gethostname()}"
    try:
        with pytest.raises(CheckpointError, match=message):
            FolderLock(str(tmp_path)).__enter__()
        assert sorted(os.listdir(tmp_path)) == before
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_dead_process_blocks_nobody(tmp_path: Path) -> None:
    child = _locked_by_a_child(tmp_path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with FolderLock(str(tmp_path)):
        told = (tmp_path / ".lock").read_text()
    assert told == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_it_is_given_back(tmp_path: Path) -> None:
    with (
        FolderLock(str(tmp_path)),
        pytest.raises(CheckpointError, match=str(os.getpid())),
    ):
        FolderLock(str(tmp_path)).__enter__()
    with FolderLock(str(tmp_path)):
        pass


def test_what_cannot_be_locked_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with FolderLock("gs://bucket/run"):
        assert "cannot be locked" in caplog.text


def test_who_holds_it_is_told_without_taking_it(tmp_path: Path) -> None:
    assert holder(str(tmp_path)) is None
    assert [*tmp_path.iterdir()] == []
    with FolderLock(str(tmp_path)):
        assert holder(str(tmp_path)) == f"process {os.getpid()} on {socket.gethostname()}"
    assert holder(str(tmp_path)) is None
    assert holder("gs://bucket/run") is None


def test_a_look_keeps_nobody_from_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(look, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(look))
    with FolderLock(str(tmp_path)):
        assert holder(str(tmp_path)) is not None


def test_what_else_can_be_done_is_the_callers_to_say(tmp_path: Path) -> None:
    with (
        FolderLock(str(tmp_path)),
        pytest.raises(CheckpointError, match=r"wait for it, or come back later$"),
    ):
        FolderLock(str(tmp_path), "come back later").__enter__()


def test_a_file_that_does_not_stay_is_gone_and_takes_no_one_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opened it before it went would else hold a lock that nobody else sees."""
    first = FolderLock(str(tmp_path), keeps_file=False)
    first.__enter__()
    monkeypatch.setattr(time, "sleep", lambda _: first.__exit__())
    with FolderLock(str(tmp_path), keeps_file=False):
        assert holder(str(tmp_path)) is not None
    assert [*tmp_path.iterdir()] == []


def _moved(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def _moved_and_made_anew(folder: Path) -> None:
    _moved(folder)
    folder.mkdir()
    FolderLock(str(folder)).__enter__()


def _without_its_file(folder: Path) -> None:
    (folder / ".lock").unlink()


@pytest.mark.parametrize("change", [_moved, _moved_and_made_anew, _without_its_file])
def test_a_folder_that_is_no_longer_the_locked_one_is_noticed(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with FolderLock(str(folder)) as lock:
        lock.check()
        change(folder)
        with pytest.raises(FolderLostError, match=f"{folder}/.lock is (gone|another file)"):
            lock.check()


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(CheckpointError, match=r"\.lock is a link"):
        FolderLock(str(tmp_path)).__enter__()
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("keeps_file", [True, False])
def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    keeps_file: bool,
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    caplog.set_level("INFO")
    with FolderLock(str(tmp_path), keeps_file=keeps_file) as lock:
        lock.check()
    assert "cannot be locked" in caplog.text
    assert (tmp_path / ".lock").exists() == keeps_file
