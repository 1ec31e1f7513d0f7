"""What was cut short has left in a folder: saves of ours, edits, and those of a stock Saver."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import tensorflow as tf

from checkpoints import durable, folder, lock, naming
from checkpoints.errors import CheckpointError
from checkpoints.folder import names_in
from tools.common.folder_entries import EDITED_SUFFIX

# TensorFlow writes a file under such a name and renames it; the parts of a checkpoint in shards,
# into such a folder.
_FILE_OF_A_SAVER = re.compile(r".*(\.tempstate\d+|\.tmp[0-9a-f]{32})")
_FOLDER_OF_A_SAVER = re.compile(r".*_temp_[0-9a-f]{32}")
_FOLDER_OF_AN_EDIT = re.compile(rf"\..+{re.escape(EDITED_SUFFIX)}")
# A Saver takes no lock: while it writes, such a file is younger.
_QUIET_SECONDS = 600.0


class Leftover(NamedTuple):
    """What one save, or one deletion, has left.

    Attributes:
      names: of the files, or of a folder.
      step: of a checkpoint of ours; None for what an edit, a stock Saver or a write of the state
        file left.
      is_recent: whether a Saver or an edit may be at it still.
    """

    names: tuple[str, ...]
    step: int | None = None
    is_recent: bool = False


def find_leftovers(path: str) -> list[Leftover]:
    """What is left in a folder.

    Raises:
      CheckpointError: it cannot be read.
    """
    names = set(names_in(path))
    steps = folder.files_by_step(path)
    found = [
        Leftover(tuple(sorted(naming.checkpoint_name(step) + suffix for suffix in suffixes)), step)
        for step, suffixes in steps.items()
        if folder.is_leftover(suffixes)
    ]
    ours = {name for leftover in found for name in leftover.names}
    state = naming.STATE_FILE + durable.TEMPORARY_SUFFIX
    return found + [
        Leftover((name,), is_recent=name != state and _may_be_at_work(os.path.join(path, name)))
        for name in sorted(names - ours)
        if name == state or _is_of_an_edit(path, name) or _is_of_a_saver(path, name)
    ]


def clear(path: str, leftover: Leftover) -> None:
    """Deletes a leftover that is not recent.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    if leftover.step is not None:
        folder.delete_checkpoint(path, leftover.step)
        return
    for name in leftover.names:
        place = os.path.join(path, name)
        if tf.io.gfile.isdir(place):
            tf.io.gfile.rmtree(place)
        else:
            durable.remove(place)


def _is_of_an_edit(path: str, name: str) -> bool:
    is_named_so = _FOLDER_OF_AN_EDIT.fullmatch(name) is not None
    return is_named_so and bool(tf.io.gfile.isdir(os.path.join(path, name)))


def _is_of_a_saver(path: str, name: str) -> bool:
    is_folder = _FOLDER_OF_A_SAVER.fullmatch(name) is not None
    if not is_folder and not _FILE_OF_A_SAVER.fullmatch(name):
        return False
    return bool(tf.io.gfile.isdir(os.path.join(path, name))) == is_folder


def _may_be_at_work(path: str) -> bool:
    """Whether someone may be writing it: of an edit its lock tells, of a Saver only the time."""
    if tf.io.gfile.exists(os.path.join(path, lock.LOCK_FILE)):
        return lock.holder(path) is not None
    return any(time.time() - changed < _QUIET_SECONDS for changed in _changed(path))


def _changed(path: str) -> Iterator[float]:
    """When a file was changed last, or a folder and each file in it; in seconds since 1970."""
    for place in all_in(path):
        with suppress(tf.errors.OpError):  # It may have gone since.
            yield tf.io.gfile.stat(place).mtime_nsec / 1e9


def all_in(path: str) -> Iterator[str]:
    """The path itself and, of a folder, whatever is below it."""
    yield path
    if tf.io.gfile.isdir(path):
        with suppress(CheckpointError):
            for name in names_in(path):
                yield from all_in(os.path.join(path, name))
