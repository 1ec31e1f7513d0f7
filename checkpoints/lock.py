"""One trainer a folder: a lock that ends with the process that holds it."""

import os
import socket
import sys
import time

from absl import logging

from checkpoints import durable
from checkpoints.errors import CheckpointError

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".lock"
_TRAIN_ELSEWHERE = "train into another folder with --ckpt_dir"
_LOOK_SECONDS = 0.05  # Longer than `holder` takes for its look.


def holder(folder: str) -> str | None:
    """Who holds the lock of a folder, such as `process 7 on host`; None where nobody does.

    Nothing but the lock itself tells, so it is shared for an instant: whoever wants it in that
    instant tries again. Where there is no such lock, or the file cannot be read, it is None.
    """
    if sys.platform == "win32" or not durable.is_local(folder):
        return None
    try:
        descriptor = os.open(os.path.join(folder, LOCK_FILE), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _told(descriptor)
    except OSError:  # A file system without locks.
        return None
    finally:
        os.close(descriptor)
    return None


def _told(descriptor: int) -> str:
    """What the file says of its holder."""
    return os.pread(descriptor, 1024, 0).decode(errors="replace").strip() or "another process"


class FolderLock:
    """Held from `__enter__` to `__exit__`, or to the end of the process, however it ends.

    It is the system's lock on `<folder>/.lock` (flock), not the file's being there: what a dead
    process leaves behind blocks nobody. The file tells who holds it. Where there is no such lock,
    as on `gs://` and on Windows, that is logged and nothing is locked.
    """

    def __init__(self, folder: str, otherwise: str = _TRAIN_ELSEWHERE) -> None:
        """Locks nothing yet; the folder must exist by `__enter__`.

        Args:
          folder: to lock.
          otherwise: what a user can do who will not wait for the holder.
        """
        self._folder = folder
        self._otherwise = otherwise
        self._descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        """Takes the lock.

        Raises:
          CheckpointError: another process holds it; which one on which host is said.
          OSError: the file cannot be opened or written.
        """
        if sys.platform == "win32" or not durable.is_local(self._folder):
            logging.info("%s cannot be locked: see that no one else trains into it", self._folder)
            return self
        descriptor = os.open(os.path.join(self._folder, LOCK_FILE), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def _lock(self, descriptor: int) -> None:
        try:
            _take(descriptor)
        except BlockingIOError as error:
            raise CheckpointError(
                f"{self._folder} is being trained by {_told(descriptor)}: wait for it, "
                f"or {self._otherwise}"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def __exit__(self, *error: object) -> None:
        """Gives the lock back; the file stays, since removing it would race with the next one."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _take(descriptor: int) -> None:
    """Takes the lock; BlockingIOError where it is held for longer than a look of `holder` takes."""
    wanted = fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.flock(descriptor, wanted)
    except BlockingIOError:
        time.sleep(_LOOK_SECONDS)
        fcntl.flock(descriptor, wanted)
