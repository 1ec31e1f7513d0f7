"""Version folders as TensorFlow Serving watches them: `<model>/1`, `<model>/2`, and so on.

A server loads a folder with the name of a number as soon as it is there, so it is written under
another name and renamed.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import tensorflow as tf

from checkpoints import durable
from checkpoints.errors import reason
from checkpoints.folder import names_in
from checkpoints.lock import FolderLock
from tools.common.errors import ToolError

_NUMBER = re.compile(r"[0-9]{1,18}")
_BEING_WRITTEN = ".being-written"


def choose_version(folder: str, asked: int | None) -> int:
    """The version to write.

    Args:
      folder: of the model, which need not exist.
      asked: a version, None for the one above the highest that is there.

    Raises:
      ToolError: the folder is a file, or the version that is asked for exists.
    """
    if tf.io.gfile.exists(folder) and not tf.io.gfile.isdir(folder):
        raise ToolError(f"--output={folder} is a file; a SavedModel is a folder of versions")
    there = _versions(folder)
    if asked is None:
        return max(there, default=0) + 1
    if asked in there:
        raise ToolError(
            f"{os.path.join(folder, str(asked))} exists already: a server may be using it; leave "
            f"out --version for the next one, {max(there) + 1}"
        )
    return asked


def _versions(folder: str) -> list[int]:
    names = names_in(folder) if tf.io.gfile.isdir(folder) else []
    return [int(name) for name in names if _NUMBER.fullmatch(name)]


@contextmanager
def new_version(folder: str, version: int) -> Iterator[str]:
    """A folder to write a version into, which is in its place where no error comes, or gone.

    Args:
      folder: of the model.
      version: one that `choose_version` has chosen.

    Raises:
      CheckpointError: another process is exporting into the folder.
      ToolError: the version has been written by someone else in the meantime.
    """
    final = os.path.join(folder, str(version))
    temporary = final + _BEING_WRITTEN
    with _locked(folder):
        _remove(temporary)  # What an export that was killed has left.
        tf.io.gfile.makedirs(temporary)
        try:
            yield temporary
            _flush_all(temporary)
            _put_in_place(temporary, final)
        finally:
            _remove(temporary)
        durable.flush(folder)


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keeps other exports from a folder, which is made where it is missing, and then not empty."""
    is_new = not tf.io.gfile.isdir(folder)
    tf.io.gfile.makedirs(folder)
    try:
        with FolderLock(folder, "take another --output", keeps_file=False):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # There is something in it.
                os.rmdir(folder)


def _put_in_place(temporary: str, final: str) -> None:
    if tf.io.gfile.exists(final):
        raise ToolError(f"{final} has been written by someone else: run the command again")
    try:
        tf.io.gfile.rename(temporary, final)
    except tf.errors.OpError as error:
        raise ToolError(f"{final} cannot be written: {reason(error)}") from error


def _flush_all(folder: str) -> None:
    for path, _, files in tf.io.gfile.walk(folder):
        for name in files:
            durable.flush(os.path.join(path, name))
        durable.flush(path)


def _remove(folder: str) -> None:
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
