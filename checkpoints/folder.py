"""A folder of checkpoints: which there are, how one is deleted, how one is read beside a training.

The file `checkpoint` names them, by which `tf.train.latest_checkpoint` finds the newest.
"""

import ntpath
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeAlias, TypeVar

import tensorflow as tf
from absl import logging
from google.protobuf import text_encoding

from checkpoints import file_io, naming
from errors import CheckpointError, reason

if sys.platform != "win32":
    import fcntl
SET_ASIDE_SUFFIX = ".set-aside"


def names_in(path: str) -> list[str]:
    """The names of a folder's entries, sorted; CheckpointError where it cannot be listed.

    One that is not UTF-8 is left out: it is no checkpoint's, and TensorFlow cannot open it.
    """
    try:
        if file_io.is_local(path):
            names = os.listdir(path or ".")
            return sorted(name for name in names if name == name.encode(errors="ignore").decode())
        return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path))
    except (OSError, tf.errors.OpError) as error:
        why = error.strerror if isinstance(error, OSError) else reason(error)
        raise CheckpointError(f"{path} cannot be read: {why}") from error


def files_by_step(folder: str) -> dict[int, set[str]]:
    """The suffixes of the files of each step, by rising step; empty where there is no folder."""
    place = folder or "."
    # Not `isdir`, to which a folder that cannot be reached for a moment is none.
    if not tf.io.gfile.exists(place) or (file_io.is_local(place) and os.path.isfile(place)):
        return {}
    suffixes: dict[int, set[str]] = defaultdict(set)
    for name in names_in(place):
        if found := naming.split_name(name):
            suffixes[found[0]].add(found[1])
    return dict(sorted(suffixes.items()))


def usable_steps(folder: str) -> list[int]:
    """The steps that have a checkpoint, by rising step: ours and others'."""
    return [step for step, found in files_by_step(folder).items() if naming.is_usable(found)]


def committed_steps(folder: str) -> list[int]:
    """The steps whose checkpoint is ours and was written to its end, by rising step."""
    return [step for step, found in files_by_step(folder).items() if naming.is_committed(found)]


def is_whole(folder: str, step: int) -> bool:
    """Whether all files of a checkpoint of ours are there; what is in them is not looked at."""
    expected = {*naming.CONTENT_SUFFIXES, naming.MANIFEST_SUFFIX}
    return expected <= files_by_step(folder).get(step, set())


def remains(folder: str) -> list[str]:
    """The files of variables whose checkpoint is lost: its `.index` and its manifest are gone."""
    return [
        naming.checkpoint_name(step) + naming.DATA_SUFFIX
        for step, found in files_by_step(folder).items()
        if naming.DATA_SUFFIX in found
        and not found & {naming.INDEX_SUFFIX, naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}
    ]


# Deleting; whatever the file system refuses is raised as tf.errors.OpError or OSError.


def delete_checkpoint(folder: str, step: int) -> None:
    """Deletes what there is of a step; see `delete_files`."""
    delete_files(folder, step, files_by_step(folder).get(step, set()))


def delete_files(folder: str, step: int, suffixes: set[str]) -> None:
    """Deletes a step's files, in an order that never leaves a part that looks whole.

    The manifest first becomes `.manifest.tmp`, which makes leftovers of the rest, and goes last.
    """
    prefix = naming.checkpoint_prefix(folder, step)
    if naming.is_committed(suffixes):
        file_io.rename(prefix + naming.MANIFEST_SUFFIX, prefix + naming.PENDING_SUFFIX)
        file_io.flush(folder)
    for suffix in suffixes - {naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}:
        file_io.remove(prefix + suffix)
    if suffixes & {naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}:
        file_io.remove(prefix + naming.PENDING_SUFFIX)


def make_way(folder: str, step: int) -> list[str]:
    """Frees the names of a step that is about to be saved; returns the new names of what stays.

    What is ours was stepped over as damaged, or left by a save that failed, and is deleted. What
    is not, such as a stock Saver's checkpoint that was stepped over, gets another name.
    """
    suffixes = files_by_step(folder).get(step, set())
    if suffixes & {naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}:
        delete_files(folder, step, suffixes)
        return []
    prefix = naming.checkpoint_prefix(folder, step)
    return [file_io.set_aside(prefix + suffix, SET_ASIDE_SUFFIX) for suffix in sorted(suffixes)]


def delete_leftovers(folder: str) -> list[int]:
    """Clears what saves and deletions that were cut short have left; returns their steps."""
    found = files_by_step(folder)
    leftover = [step for step, suffixes in found.items() if naming.is_leftover(suffixes)]
    for step in leftover:
        delete_files(folder, step, found[step])
    file_io.remove_leftover(os.path.join(folder, naming.STATE_FILE))
    return leftover


# The state file. Format: the text of `tensorflow/python/training/checkpoint_state.proto`.

_MAX_STATE_BYTES = 1 << 16
_NEWEST = re.compile(r'^\s*model_checkpoint_path:\s*"((?:[^"\\]|\\.)*)"', re.MULTILINE)


def write_state(folder: str, steps: Iterable[int]) -> bool:
    """As `write_state_of`, for checkpoints of ours, by rising step."""
    return write_state_of(folder, [naming.checkpoint_name(step) for step in steps])


def write_state_of(folder: str, names: Sequence[str]) -> bool:
    """Writes the state file if it differs, of names of which the newest is the last; returns so.

    The paths are relative, so that the folder can be moved.
    """
    escaped = [text_encoding.CEscape(name.encode(), as_utf8=True) for name in names]
    lines = [f'model_checkpoint_path: "{escaped[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in escaped]
    content = ("\n".join(lines) + "\n").encode()
    path = os.path.join(folder, naming.STATE_FILE)
    if file_io.content_of(path) == content:
        return False
    file_io.replace_file(path, content)
    return True


def named_checkpoint(path: str) -> str | None:
    """The base name of the newest checkpoint that a state file names; None where it names none.

    A stranger's file often has paths of another machine: their folder is left out, be it of
    Windows or not. It does not matter what `path` is.
    """
    text = file_io.read_head(path, _MAX_STATE_BYTES).decode("utf-8", errors="replace")
    found = _NEWEST.search(text)
    if found is None:
        return None
    try:
        name = text_encoding.CUnescape(found[1]).decode("utf-8", errors="replace")
    except ValueError:
        return None
    return ntpath.basename(name)


# Reading while another process trains into the folder.

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
                self.callback(os.close, descriptor := _open_manifest(prefix))
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def is_held(prefix: str) -> bool:
    """Whether somebody reads the checkpoint and asks that it stays; see `read_newest`."""
    if sys.platform != "win32":
        with suppress(OSError), ExitStack() as stack:
            stack.callback(os.close, descriptor := _open_manifest(prefix))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def _open_manifest(prefix: str) -> int:
    """Opens a manifest, or a stranger's pipe of its name, without waiting."""
    return os.open(prefix + naming.MANIFEST_SUFFIX, os.O_RDONLY | os.O_NONBLOCK)


def _listed(path: str) -> list[str]:
    """What tells whether a checkpoint has come or gone."""
    return [name for name in names_in(path) if name.endswith(_LISTED)]


def _is_gone(prefix: str) -> bool:
    path, name = os.path.split(prefix)
    if named := naming.split_name(name + naming.INDEX_SUFFIX):
        return named[0] not in usable_steps(path)
    return not tf.io.gfile.exists(prefix + naming.INDEX_SUFFIX)


def newest_meta_graph(path: str) -> str:
    """The `.meta` file of the newest checkpoint in a folder; CheckpointError where it has none."""
    steps = usable_steps(path)
    if not steps:
        raise CheckpointError(f"{path} has no checkpoint {naming.BASENAME}-<step>")
    return naming.checkpoint_prefix(path, steps[-1]) + naming.META_SUFFIX


def say_if_gone(error: CheckpointError, file: str, flag: str = "--meta") -> CheckpointError:
    """The same error, or where the checkpoint is no longer there, one that names the newest.

    Reading `file`, its `.meta` file or its prefix, which `flag` named, ended with `error`.
    """
    path, name = os.path.split(file)
    named = naming.split_name(name) or naming.split_name(name + naming.META_SUFFIX)
    steps = usable_steps(path) if named and tf.io.gfile.isdir(path or ".") else []
    if not named or not steps or named[0] in steps:
        return error
    newest = os.path.basename(newest_meta_graph(path))
    return CheckpointError(
        f"{file} is not there, or was deleted while it was read, as those that train do with older "
        f"checkpoints; the newest is {newest} ({flag}={path or '.'} always reads the newest)"
    )
