"""Saves checkpoints beside the training: copied values in, a committed checkpoint on disk out.

A folder has one writer: its lock ends with the process that holds it.
"""

import errno
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from checkpoints import file_io, folder, manifest, naming
from checkpoints.bundle import BundleWriter, VariableSpec
from checkpoints.naming import Retention
from errors import CheckpointError, FolderLostError, NotFiniteError, reason

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

    It is the system's lock on `<folder>/.lock` (flock), not the file's being there: what a dead
    process leaves behind blocks nobody. The file tells who holds it. Where there is no such lock,
    as on `gs://`, on Windows and on some network mounts, that is logged and nothing is locked.
    """

    def __init__(
        self, folder: str, otherwise: str = _TRAIN_ELSEWHERE, *, keeps_file: bool = True
    ) -> None:
        """Locks nothing yet; the folder must exist by `__enter__`.

        Args:
          folder: to lock.
          otherwise: what a user can do who will not wait for the holder.
          keeps_file: whether the file stays; a stranger's folder is left without it.
        """
        self._folder = folder
        self._otherwise = otherwise
        self._keeps_file = keeps_file
        self._descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        """Takes the lock.

        Raises:
          CheckpointError: another process holds it; which one on which host is said. Or the lock's
            file is a link.
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
        """Makes sure that the folder at this path is still the one that was locked.

        The lock holds for a file, and files are written by path: who moves the folder away, or
        removes the lock's file, leaves the path to another process. Call it before each change.

        Raises:
          FolderLostError: the lock's file is another by now, or gone.
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

    @property
    def _path(self) -> str:
        return os.path.join(self._folder, LOCK_FILE)

    def _locked(self) -> int | None:
        """Opens the file and takes its lock; anew where its last holder has removed it since.

        Returns:
          None where the file system has no such locks.
        """
        while True:
            descriptor = self._open()
            is_ours = False
            try:
                _take(descriptor)
                is_ours = os.fstat(descriptor).st_nlink > 0
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise CheckpointError(
                        f"{self._folder} is in use by {_told(descriptor)}: wait for it, "
                        f"or {self._otherwise}"
                    ) from error
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


# Saves checkpoints beside the training: copied values in, a committed checkpoint on disk out.

Values = Mapping[str, np.ndarray[Any, Any]]
_MOST_FAILURES = (
    3  # Saves in a row: a disk that is full for a while is told from one that stays so.
)
_MOST_TRIED_BYTES = 64 << 20


class RunRecord(NamedTuple):
    """What every checkpoint of a run has in common.

    Attributes:
      meta_graph: the serialized MetaGraphDef, the same for every step.
      config: what the run was asked for; JSON values, kept in each manifest.
      environment: the TensorFlow version and the machine; kept in each manifest.
      side_files: files of the run that must be on the disk before a checkpoint that goes with
        them is committed, such as its metrics.
    """

    meta_graph: bytes
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    side_files: Sequence[str] = ()


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread of its own.

    A save that fails, such as on a full disk, is logged and leaves the checkpoints before it as
    they were; the next save tries again, and the third failure in a row is raised. `close` raises
    if the last one failed. Values that are not finite are not saved, and nothing is written into a
    folder that is no longer ours: the next call raises.
    """

    def __init__(
        self,
        path: str,
        specs: Mapping[str, VariableSpec],
        record: RunRecord,
        retention: Retention,
        lock: FolderLock | None = None,
    ) -> None:
        """Prepares to save into the existing folder `path`, whose lock is `lock`."""
        self._folder = path
        self._lock = lock
        self._failures = 0
        self._record = record
        self._retention = retention
        self._bundle = BundleWriter(specs)
        self._meta_digest = manifest.digest(record.meta_graph)
        # Kept from save to save: fresh memory for each would cost more than the copying.
        self._values = {n: np.empty(spec.shape, spec.dtype) for n, spec in specs.items()}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def check_space(self) -> None:
        """Writes as much as a checkpoint takes, and deletes it: no step is to be trained in vain.

        Raises:
          CheckpointError: it cannot be written, such as to a full disk.
        """
        size = len(self._record.meta_graph) + sum(v.nbytes for v in self._values.values())
        path = os.path.join(self._folder, naming.STATE_FILE) + file_io.TEMPORARY_SUFFIX
        try:
            try:
                file_io.write_file(path, bytes(min(size, _MOST_TRIED_BYTES)))
            finally:
                file_io.remove(path)
        except (tf.errors.OpError, OSError) as error:
            raise CheckpointError(
                f"{self._folder} takes no checkpoint, which needs {size:,} bytes: {reason(error)}"
            ) from error

    def save(self, step: int, values: Values, test_accuracy: float | None = None) -> None:
        """Copies the values of all variables and returns while they are being written.

        A save that is still under way is waited for.

        Args:
          step: updates done.
          values: of all variables, by name; free to change afterwards.
          test_accuracy: of these values, in [0, 1], where it was measured; kept in the manifest.

        Raises:
          NotFiniteError, FolderLostError: of the save before this one.
          CheckpointError: it was the third in a row that failed.
        """
        try:
            self._finish_pending()
            self._failures = 0
        except (NotFiniteError, FolderLostError):
            raise
        except CheckpointError as error:
            self._failures += 1
            if self._failures == _MOST_FAILURES:
                raise CheckpointError(
                    f"{error}; so did the {_MOST_FAILURES - 1} saves before it: the newest "
                    "checkpoint before them is whole, and the same command goes on from it"
                ) from error
            logging.warning("%s; training goes on", error)
        for name, copy in self._values.items():
            np.copyto(copy, values[name])
        self._pending = self._thread.submit(self._commit, step, test_accuracy)

    def _finish_pending(self) -> None:
        """Waits for the save under way; CheckpointError where it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Finishes the save under way and ends the thread.

        Raises:
          CheckpointError: the last save failed; the checkpoint before it is whole.
          NotFiniteError: it had nothing worth saving.
        """
        try:
            self._finish_pending()
        finally:
            self._thread.shutdown()
            self._bundle.close()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Closes; an error that is already on its way is not replaced by one of the last save."""
        try:
            self.close()
        except CheckpointError:
            if kind is None:
                raise

    def _commit(self, step: int, test_accuracy: float | None) -> None:
        """Writes, flushes and commits one checkpoint, then lets the oldest go."""
        self._check_finite(step)
        prefix = naming.checkpoint_prefix(self._folder, step)
        self._check_lock()
        try:
            self._write(step, test_accuracy)
        except (tf.errors.OpError, OSError) as error:
            self._check_lock()
            self._discard(step)
            raise CheckpointError(f"could not save {prefix}: {reason(error)}") from error
        self._check_lock()
        try:
            folder.after_save(self._folder, step, self._retention)
        except (tf.errors.OpError, OSError) as error:
            raise CheckpointError(
                f"{prefix} is saved, but older ones could not be deleted: {reason(error)}"
            ) from error

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _check_finite(self, step: int) -> None:
        for name, value in self._values.items():
            if not np.isfinite(value).all():
                raise NotFiniteError(
                    f"{name} is not finite after step {step}: the checkpoints before it are kept; "
                    "try a lower --learning_rate"
                )

    def _discard(self, step: int) -> None:
        """Frees the space of a save that failed, as far as the file system lets us."""
        try:
            suffixes = folder.files_by_step(self._folder).get(step, set())
            if folder.is_leftover(suffixes):
                folder.delete_files(self._folder, step, suffixes)
        except (tf.errors.OpError, OSError, CheckpointError) as error:
            logging.warning(
                "leftovers of step %d stay until the next start: %s", step, reason(error)
            )

    def _write(self, step: int, test_accuracy: float | None) -> None:
        """Puts a step's files on the disk; its manifest, which commits them, last."""
        prefix = naming.checkpoint_prefix(self._folder, step)
        pending = prefix + naming.PENDING_SUFFIX
        for path in folder.make_way(self._folder, step):
            logging.warning("%s was in the way of a save, and is not ours: it stays", path)
        file_io.create_empty(pending)  # Whatever is written from here on is a leftover,
        file_io.flush(self._folder)  # until the manifest is complete and renamed.
        self._bundle.write(prefix, self._values)
        file_io.write_file(prefix + naming.META_SUFFIX, self._record.meta_graph)
        name = naming.checkpoint_name(step)
        digests = {name + naming.META_SUFFIX: self._meta_digest}
        for suffix in (naming.DATA_SUFFIX, naming.INDEX_SUFFIX):
            file_io.flush(prefix + suffix)  # TensorFlow has closed them, and flushed nothing.
            digests[name + suffix] = manifest.digest_file(prefix + suffix)
        for path in self._record.side_files:
            file_io.flush(path)
        content = manifest.Manifest(
            step=step,
            saved_at=time.time(),
            environment=self._record.environment,
            config=self._record.config,
            files=digests,
            test_accuracy=test_accuracy,
        )
        file_io.write_file(pending, manifest.encode(content))
        file_io.flush(self._folder)
        self._check_lock()
        file_io.rename(pending, prefix + naming.MANIFEST_SUFFIX)
        file_io.flush(self._folder)
