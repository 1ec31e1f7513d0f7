"""One writer a folder."""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from checkpoints.lock import FolderLock, holder
from errors import CheckpointError
from tests.conftest import Log, Patch

ME = f"process {os.getpid()} on {socket.gethostname()}"


def test_who_holds_it_is_told_until_it_is_given_back(tmp_path: Path) -> None:
    assert holder(str(tmp_path)) is None
    assert [*tmp_path.iterdir()] == []
    with FolderLock(str(tmp_path)):
        assert holder(str(tmp_path)) == ME
        with pytest.raises(CheckpointError, match=r"wait for it, or come back later$"):
            FolderLock(str(tmp_path), "come back later").__enter__()
    assert holder(str(tmp_path)) is None
    with FolderLock(str(tmp_path)):
        pass


def test_a_look_keeps_nobody_from_the_lock(tmp_path: Path, monkeypatch: Patch) -> None:
    look = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(look, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(look))
    with FolderLock(str(tmp_path)):
        assert holder(str(tmp_path)) is not None


def test_a_file_that_does_not_stay_takes_no_one_in(tmp_path: Path, monkeypatch: Patch) -> None:
    """Whoever opened it before it went would else hold a lock that nobody else sees."""
    first = FolderLock(str(tmp_path), keeps_file=False)
    first.__enter__()
    monkeypatch.setattr(time, "sleep", lambda _: first.__exit__())
    with FolderLock(str(tmp_path), keeps_file=False):
        assert holder(str(tmp_path)) is not None
    assert [*tmp_path.iterdir()] == []


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=r"symbolic links.*\.lock"):
        FolderLock(str(tmp_path)).__enter__()
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("number", [None, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("stays", [True, False])
def test_without_locks(
    tmp_path: Path, monkeypatch: Patch, caplog: Log, number: int | None, stays: bool
) -> None:
    """That is said, such as on a bucket, or on some network mounts."""
    error = OSError(number, os.strerror(number or 0))
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=error))
    caplog.set_level("INFO")
    path = str(tmp_path) if number else "gs://bucket/run"
    with FolderLock(path, keeps_file=stays) as lock:
        lock.check()
    assert "cannot be locked" in caplog.text
    assert (tmp_path / ".lock").exists() == (stays and number is not None)
    assert holder("gs://bucket/run") is None
