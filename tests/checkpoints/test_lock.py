"""One trainer a folder."""

import os
import signal
import socket
from pathlib import Path

import pytest

from checkpoints.errors import CheckpointError
from checkpoints.lock import FolderLock


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
    message = f"is being trained by process {child} on {socket.gethostname()}"
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
        holder = (tmp_path / ".lock").read_text()
    assert holder == f"process {os.getpid()} on {socket.gethostname()}\n"


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
