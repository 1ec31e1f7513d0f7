"""The lock of a folder: one process at a time changes what is in it."""

import errno
import os
import socket
import sys
import time
from contextlib import suppress

from absl import logging

from checkpoints import file_io
from errors import CheckpointError, FolderLostError

if sys.platform != "win32":
    import fcntl
LOCK_FILE = ".lock"
_TRAIN_ELSEWHERE = "train into another folder with --ckpt_dir"
_LOOK_SECONDS = 0.05  # Longer than `holder` takes for its look.


def holder(folder: str) -> str | None:
    """Who holds the lock of a folder, such as `process 7 on host`; None where that cannot be told.

    Nothing but the lock itself tells, so it is shared for an instant: whoever wants it in that
    instant tries again.
    """
    if sys.platform == "win32" or not file_io.is_local(folder):
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

    It is the system's lock on `<folder>/.lock` (flock): the file that a dead process leaves behind
    blocks nobody. Where there is no such lock, as on `gs://`, on Windows and on some network
    mounts, that is logged and nothing is locked.
    """

    def __init__(
        self, folder: str, otherwise: str = _TRAIN_ELSEWHERE, *, keeps_file: bool = True
    ) -> None:
        """Locks nothing yet; the folder must exist by `__enter__`.

        An error says what a user can do `otherwise` than wait for the holder. A stranger's folder
        is left without the lock's file: `keeps_file` is False.
        """
        self._folder = folder
        self._path = os.path.join(folder, LOCK_FILE)
        self._otherwise = otherwise
        self._keeps_file = keeps_file
        self._descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        """Takes the lock, and writes into the file who has it.

        Raises:
          CheckpointError: another process holds it, or the lock's file is a link.
          OSError: the file cannot be opened or written.
        """
        if sys.platform != "win32" and file_io.is_local(self._folder):
            self._descriptor = self._locked()
        if self._descriptor is None:
            logging.info("%s cannot be locked: see that no one else writes into it", self._folder)
            return self
        try:
            os.ftruncate(self._descriptor, 0)
            told = f"process {os.getpid()} on {socket.gethostname()}\n"
            os.pwrite(self._descriptor, told.encode(), 0)
        except OSError:
            self.__exit__()
            raise
        return self

    def check(self) -> None:
        """FolderLostError unless the folder at this path is still the one that was locked.

        The lock holds for a file, and files are written by path: who moves the folder away, or
        removes the lock's file, leaves the path to another process. Call it before each change.
        """
        if self._descriptor is None:
            return
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            found = None
        if found is None or not os.path.samestat(found, os.fstat(self._descriptor)):
            raise FolderLostError(
                f"{self._path} is {'gone' if found is None else 'another file'}: the folder was "
                "moved or deleted, or someone else has taken it; nothing more is written there. "
                "The same command goes on from the newest checkpoint that is there"
            )

    def _locked(self) -> int | None:
        """Opens the file and takes its lock; None where the file system has no such locks.

        It does so anew where the last holder has removed the file in between.
        """
        while True:
            descriptor = self._open()
            is_ours = False
            try:
                _take(descriptor)
                is_ours = os.fstat(descriptor).st_nlink > 0
            except BlockingIOError as error:
                raise CheckpointError(
                    f"{self._folder} is in use by {_told(descriptor)}: wait for it, "
                    f"or {self._otherwise}"
                ) from error
            except OSError as error:
                if error.errno not in file_io.NOT_SUPPORTED:
                    raise
                if not self._keeps_file:
                    os.remove(self._path)
                return None
            finally:
                if not is_ours:
                    os.close(descriptor)
            if is_ours:
                return descriptor

    def _open(self) -> int:
        """Opens the lock's own file: a link would have another file written over."""
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise CheckpointError(
                f"{self._path} is a link, which could name any file: remove it"
            ) from error

    def __exit__(self, *error: object) -> None:
        """Gives the lock back; where the file goes, it does so while it is held."""
        if self._descriptor is not None:
            if not self._keeps_file:
                with suppress(OSError):  # The folder may have been removed, or made read-only.
                    os.remove(self._path)
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
