"""The newest checkpoint of a folder, for those who read while another process trains into it."""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import TypeAlias, TypeVar

import tensorflow as tf
from absl import logging

from checkpoints import folder, naming
from checkpoints.errors import CheckpointError

if sys.platform != "win32":
    import fcntl

_Result = TypeVar("_Result")
Hold: TypeAlias = Callable[[str], None]

_TRIES = 20
_LISTED = (naming.INDEX_SUFFIX, naming.META_SUFFIX, naming.MANIFEST_SUFFIX)


def read_newest(folders: Iterable[str | None], work: Callable[[Hold], _Result]) -> _Result:
    """Does some work on what is in folders, and anew where that is deleted meanwhile.

    Args:
      folders: what may stand for a checkpoint in it; what is no folder is left out.
      work: chooses checkpoints, calls what it is given with the prefix of each, and reads them.
        From that call on, a training of this project does not delete the checkpoint.

    Raises:
      CheckpointError: checkpoints are deleted faster than they are read; what `work` raises.
    """
    paths = [path for path in folders if path and tf.io.gfile.isdir(path)]
    for _ in range(_TRIES):
        before = [_listed(path) for path in paths]
        with _Holds() as holds:
            try:
                return work(holds.hold)
            except CheckpointError as error:
                is_same = [_listed(path) for path in paths] == before
                if is_same or (holds.prefixes and not any(map(_is_gone, holds.prefixes))):
                    raise
                logging.warning("%s; reading what is the newest by now", error)
    raise CheckpointError(
        f"{' and '.join(paths)}: checkpoints are deleted faster than they can be read: train with "
        "a larger --max_to_keep, or copy a checkpoint elsewhere and name that"
    )


class _Holds(ExitStack):
    """Holds checkpoints by shared locks on their manifests, which end with the process.

    What has none, as a stranger's, or is on no local disk, may go meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: list[str] = []

    def hold(self, prefix: str) -> None:
        """Holds the checkpoint at a prefix until the context ends."""
        self.prefixes.append(prefix)
        if sys.platform != "win32":
            with suppress(OSError):
                self.callback(os.close, descriptor := _manifest(prefix))
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def is_held(prefix: str) -> bool:
    """Whether somebody reads the checkpoint and asks that it stays; see `read_newest`."""
    if sys.platform != "win32":
        with suppress(OSError), ExitStack() as stack:
            stack.callback(os.close, descriptor := _manifest(prefix))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def _manifest(prefix: str) -> int:
    """Opens a manifest, or a stranger's pipe of its name, without waiting."""
    return os.open(prefix + naming.MANIFEST_SUFFIX, os.O_RDONLY | os.O_NONBLOCK)


def _listed(path: str) -> list[str]:
    """What tells whether a checkpoint has come or gone."""
    return [name for name in folder.names_in(path) if name.endswith(_LISTED)]


def _is_gone(prefix: str) -> bool:
    path, name = os.path.split(prefix)
    if named := naming.split_name(name + naming.INDEX_SUFFIX):
        return named[0] not in folder.usable_steps(path)
    return not tf.io.gfile.exists(prefix + naming.INDEX_SUFFIX)


def newest_meta_graph(path: str) -> str:
    """The `.meta` file of the newest checkpoint in a folder; it is never one that is half written.

    Raises:
      CheckpointError: the folder has no checkpoint.
    """
    steps = folder.usable_steps(path)
    if not steps:
        raise CheckpointError(f"{path} has no checkpoint {naming.checkpoint_name(0)[:-1]}<step>")
    return naming.checkpoint_prefix(path, steps[-1]) + naming.META_SUFFIX


def say_if_gone(error: CheckpointError, file: str, flag: str = "--meta") -> CheckpointError:
    """The same error, or where the checkpoint is no longer there, one that names the newest.

    Args:
      error: what reading the checkpoint ended with.
      file: its `.meta` file, or its prefix.
      flag: that named it.
    """
    path, name = os.path.split(file)
    named = naming.split_name(name) or naming.split_name(name + naming.META_SUFFIX)
    steps = folder.usable_steps(path) if named and tf.io.gfile.isdir(path or ".") else []
    if not named or not steps or named[0] in steps:
        return error
    newest = os.path.basename(newest_meta_graph(path))
    return CheckpointError(
        f"{file} is not there, or was deleted while it was read, as those that train do with older "
        f"checkpoints; the newest is {newest} ({flag}={path or '.'} always reads the newest)"
    )
