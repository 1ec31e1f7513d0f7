"""What saves that were cut short have left in a folder: ours, and those of a stock Saver."""

import os
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from checkpoints import durable, folder, naming
from checkpoints.errors import CheckpointError
from checkpoints.loading.nearby import names_in

# TensorFlow writes a file under such a name and renames it; the parts of a checkpoint in shards,
# into such a folder.
_FILE_OF_A_SAVER = re.compile(r".*(\.tempstate\d+|\.tmp[0-9a-f]{32})")
_FOLDER_OF_A_SAVER = re.compile(r".*_temp_[0-9a-f]{32}")
# A Saver takes no lock: while it writes, such a file is younger.
_QUIET_SECONDS = 600.0


class Leftover(NamedTuple):
    """What one save, or one deletion, has left.

    Attributes:
      names: of the files, or of a folder.
      step: of a checkpoint of ours; None for what a stock Saver or a write of the state file left.
      is_recent: whether a Saver may be at it still.
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
        if folder.is_interrupted(suffixes)
    ]
    ours = {name for leftover in found for name in leftover.names}
    state = naming.STATE_FILE + durable.TEMPORARY_SUFFIX
    return found + [
        Leftover((name,), is_recent=name != state and _is_recent(os.path.join(path, name)))
        for name in sorted(names - ours)
        if name == state or _is_of_a_saver(path, name)
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


def _is_of_a_saver(path: str, name: str) -> bool:
    is_folder = _FOLDER_OF_A_SAVER.fullmatch(name) is not None
    if not is_folder and not _FILE_OF_A_SAVER.fullmatch(name):
        return False
    return bool(tf.io.gfile.isdir(os.path.join(path, name))) == is_folder


def _is_recent(path: str) -> bool:
    return any(time.time() - changed < _QUIET_SECONDS for changed in _changed(path))


def _changed(path: str) -> Iterator[float]:
    """When a file was changed last, or a folder and each file in it; in seconds since 1970."""
    try:
        yield tf.io.gfile.stat(path).mtime_nsec / 1e9
        if tf.io.gfile.isdir(path):
            for name in names_in(path):
                yield from _changed(os.path.join(path, name))
    except (tf.errors.OpError, CheckpointError):
        return  # It has gone since.
