"""Who may change a folder of checkpoints, and how others read it meanwhile: flock on its files.

One process at a time holds the lock of a folder. Who reads a checkpoint shares a lock on its
manifest, which whoever trains respects.
"""

import functools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias, TypeVar

from absl import logging

import file_io
from checkpoints import layout
from errors import CheckpointError, FolderLostError

if sys.platform != "win32":
    import fcntl
LOCK_FILE = ".lock"
_LOOK_SECONDS = 0.05  # Longer than `holder` takes for its look.


def holder(folder: str) -> str | None:
    """Who holds the lock of a folder, such as `process 7 on host`; None where that cannot be told.

    Only the lock itself tells: it is shared for an instant, after which others try again.
    """
    if sys.platform != "win32" and file_io.is_local(folder):
        with suppress(OSError), open(os.path.join(folder, LOCK_FILE), "rb") as file:
            if not _take(file, fcntl.LOCK_SH):
                return _told(file.fileno())
    return None


def check_unused(folder: str, otherwise: str) -> None:
    """CheckpointError where someone holds the lock; it says what to do `otherwise` than wait."""
    if user := holder(folder):
        raise CheckpointError(f"{folder} is in use by {user}: wait for it to end, or {otherwise}")


def _told(descriptor: int) -> str:
    return os.pread(descriptor, 1024, 0).decode(errors="replace").strip() or "another process"


@dataclass(eq=False)
class FolderLock:
    """The system's lock on `<folder>/.lock`, which ends with the process, however that ends.

    Where there is none, as on `gs://`, on Windows and on some network mounts, that is logged and
    nothing is locked.
    """

    folder: str
    otherwise: str = "train into another folder with --ckpt_dir"  # What to do but wait for it.
    keeps_file: bool = field(default=True, kw_only=True)  # False in a stranger's folder.
    _descriptor: int | None = field(default=None, init=False)

    @property
    def _path(self) -> str:
        return os.path.join(self.folder, LOCK_FILE)

    def __enter__(self) -> "FolderLock":
        """Takes the lock, and writes into the file who has it.

        CheckpointError where another process holds it, OSError where the file cannot be written, or
        is a link, which could name any file.
        """
        if sys.platform != "win32" and file_io.is_local(self.folder):
            self._descriptor = self._locked()
        if self._descriptor is None:
            logging.info("%s cannot be locked: see that no one else writes into it", self.folder)
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
                "Move it back, or name its new place with --ckpt_dir, and the run goes on"
            )

    def _locked(self) -> int | None:
        """Opens the file and takes its lock; None where the file system has no such locks."""
        while True:  # Anew where the last holder has removed the file in between.
            with ExitStack() as stack:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                stack.callback(os.close, descriptor)
                try:
                    is_ours = _take(descriptor, fcntl.LOCK_EX)
                    if not is_ours:
                        time.sleep(_LOOK_SECONDS)
                        is_ours = _take(descriptor, fcntl.LOCK_EX)
                except OSError as error:
                    if error.errno not in file_io.NOT_SUPPORTED:
                        raise
                    if not self.keeps_file:
                        os.remove(self._path)
                    return None
                if not is_ours:
                    user = _told(descriptor)
                    raise CheckpointError(
                        f"{self.folder} is in use by {user}: wait for it, or {self.otherwise}"
                    )
                if os.fstat(descriptor).st_nlink > 0:
                    stack.pop_all()
                    return descriptor

    def __exit__(self, *error: object) -> None:
        """Gives the lock back; where the file goes, it does so while it is held."""
        if self._descriptor is not None:
            if not self.keeps_file:
                with suppress(OSError):  # The folder may have been removed, or made read-only.
                    os.remove(self._path)
            os.close(self._descriptor)
            self._descriptor = None


def _take(file: int | BinaryIO, kind: int) -> bool:
    """Whether a file could be locked, until it is closed; False where another's lock is there."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Reading while another process trains into the folder.

_Result = TypeVar("_Result")
Hold: TypeAlias = Callable[[str], None]
_TRIES = 20
_LISTED = (layout.INDEX_SUFFIX, layout.META_SUFFIX, layout.MANIFEST_SUFFIX)


def read_newest(folders: Iterable[str | None], work: Callable[[Hold], _Result]) -> _Result:
    """Does some work on what is in folders, and anew where that is deleted meanwhile.

    `work` chooses checkpoints, calls what it is given with the prefix of each, and reads them. From
    that call on, a training of this project does not delete the checkpoint; one without a manifest,
    or on no local disk, may go all the same. What is no folder is left out. Raises CheckpointError
    where checkpoints are deleted faster than they are read.
    """
    paths = [path for path in folders if path and file_io.is_folder(path)]
    for _ in range(_TRIES):
        before = _listed(paths)
        held: list[str] = []
        with ExitStack() as locks:
            try:
                return work(functools.partial(_hold, locks, held))
            except CheckpointError as error:
                if _listed(paths) == before or (held and not any(map(_is_gone, held))):
                    raise
                logging.warning("%s; reading what is the newest by now", error)
    raise CheckpointError(
        f"{' and '.join(paths)}: checkpoints are deleted faster than they can be read: train with "
        "a larger --max_to_keep, or copy a checkpoint elsewhere and name that"
    )


def _listed(paths: Iterable[str]) -> list[list[str]]:
    """What tells whether a checkpoint has come or gone."""
    return [[name for name in file_io.names_in(path) if name.endswith(_LISTED)] for path in paths]


def _is_gone(prefix: str) -> bool:
    """Whether a checkpoint is deleted, or is just being deleted."""
    is_there = file_io.exists(prefix + layout.INDEX_SUFFIX)
    return not is_there or file_io.exists(prefix + layout.PENDING_SUFFIX)


def _hold(locks: ExitStack, held: list[str], prefix: str) -> None:
    """Holds a checkpoint as long as `locks`: where it has a manifest, on a local disk."""
    held.append(prefix)
    if sys.platform != "win32":
        with suppress(OSError):
            _take(locks.enter_context(_opened_manifest(prefix)), fcntl.LOCK_SH)


def is_held(prefix: str) -> bool:
    """Whether somebody reads the checkpoint and asks that it stays; see `read_newest`."""
    if sys.platform != "win32":
        with suppress(OSError), _opened_manifest(prefix) as file:
            return not _take(file, fcntl.LOCK_EX)
    return False


def _opened_manifest(prefix: str) -> BinaryIO:
    """Opens a manifest, or a stranger's pipe of its name, without waiting."""
    return open(
        prefix + layout.MANIFEST_SUFFIX,
        "rb",
        opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK),
    )
