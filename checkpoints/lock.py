"""One trainer a folder: a lock that ends with the process that holds it."""

import os
import socket
import sys
from types import TracebackType

from absl import logging

from checkpoints import durable
from checkpoints.errors import CheckpointError

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".lock"


class FolderLock:
    """Held from `__enter__` to `__exit__`, or to the end of the process, however it ends.

    It is the system's lock on `<folder>/.lock` (flock), not the file's being there: what a dead
    process leaves behind blocks nobody. The file tells who holds it. Where there is no such lock,
    as on `gs://` and on Windows, that is logged and nothing is locked.
    """

    def __init__(self, folder: str) -> None:
        """Locks nothing yet; the folder must exist by `__enter__`."""
        self._folder = folder
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
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 1024, 0).decode(errors="replace").strip()
            raise CheckpointError(
                f"{self._folder} is being trained by {holder or 'another process'}: wait for it, "
                "or train into another folder with --ckpt_dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives the lock back; the file stays, since removing it would race with the next one."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
