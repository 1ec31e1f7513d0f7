"""A folder of checkpoints: which there are, in what state, which is the newest and which the best.

Keeps the folder as it should be, the oldest checkpoints gone and the state file naming the newest.
"""

import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeAlias, TypeVar

import tensorflow as tf
from absl import logging
from google.protobuf import text_encoding

from checkpoints import file_io, manifest, naming
from checkpoints.naming import Retention, Saved, best_first, steps_to_delete
from errors import CheckpointError, reason

# A folder of checkpoints: which there are, in what state, and the file that names them.
#
# Each step's files tell its state, whatever was interrupted:
#
# - `.manifest`: committed. It is renamed into place last, and away first.
# - `.manifest.tmp` alone: being written or deleted; the rest of its files are leftovers.
# - neither, but an `.index`: written by someone else, such as a stock Saver.
# - neither, and no `.index`: what is left of a checkpoint that someone has deleted or damaged. It
#   is no checkpoint, and nothing of it is deleted.

SET_ASIDE_SUFFIX = ".set-aside"


def names_in(path: str) -> list[str]:
    """The names of a folder's entries, sorted.

    One that is not UTF-8 is left out: it is no checkpoint's, and TensorFlow cannot open it.

    Raises:
      CheckpointError: it cannot be listed.
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
    """The suffixes of the files of each step, by rising step; empty where there is no folder.

    Raises:
      CheckpointError: it cannot be listed.
    """
    suffixes: dict[int, set[str]] = defaultdict(set)
    for name in names_in(folder) if tf.io.gfile.isdir(folder or ".") else ():
        if found := naming.split_name(name):
            suffixes[found[0]].add(found[1])
    return dict(sorted(suffixes.items()))


def is_committed(suffixes: set[str]) -> bool:
    """Whether files with these suffixes are a checkpoint of ours that was written to its end."""
    return naming.MANIFEST_SUFFIX in suffixes


def is_leftover(suffixes: set[str]) -> bool:
    """Whether files with these suffixes were left by a save or a deletion that was cut short."""
    return not is_committed(suffixes) and naming.PENDING_SUFFIX in suffixes


def usable_steps(folder: str) -> list[int]:
    """The steps that have a checkpoint, by rising step: ours and others'."""
    return [
        step
        for step, suffixes in files_by_step(folder).items()
        if is_committed(suffixes)
        or (naming.INDEX_SUFFIX in suffixes and naming.PENDING_SUFFIX not in suffixes)
    ]


def is_whole(folder: str, step: int) -> bool:
    """Whether all files of a checkpoint of ours are there; what is in them is not looked at."""
    return {*naming.CONTENT_SUFFIXES, naming.MANIFEST_SUFFIX} <= files_by_step(folder).get(
        step, set()
    )


def remains(folder: str) -> list[str]:
    """The files of variables whose checkpoint is lost: its `.index` and its manifest are gone."""
    return [
        naming.checkpoint_name(step) + naming.DATA_SUFFIX
        for step, suffixes in files_by_step(folder).items()
        if naming.DATA_SUFFIX in suffixes
        and not is_leftover(suffixes)
        and not suffixes & {naming.INDEX_SUFFIX, naming.MANIFEST_SUFFIX}
    ]


def committed_steps(folder: str) -> list[int]:
    """The steps whose checkpoint is ours and was written to its end, by rising step."""
    return [step for step, suffixes in files_by_step(folder).items() if is_committed(suffixes)]


def delete_checkpoint(folder: str, step: int) -> None:
    """Deletes what there is of a step; see `delete_files`."""
    delete_files(folder, step, files_by_step(folder).get(step, set()))


def delete_files(folder: str, step: int, suffixes: set[str]) -> None:
    """Deletes a step's files, in an order that never leaves a part that looks whole.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    prefix = naming.checkpoint_prefix(folder, step)
    if is_committed(suffixes):
        file_io.rename(prefix + naming.MANIFEST_SUFFIX, prefix + naming.PENDING_SUFFIX)
        file_io.flush(folder)
    for suffix in suffixes - {naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}:
        file_io.remove(prefix + suffix)
    if suffixes & {naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}:
        file_io.remove(prefix + naming.PENDING_SUFFIX)


def make_way(folder: str, step: int) -> list[str]:
    """Frees the names of a step that is about to be saved.

    What is ours was stepped over as damaged, or left by a save that failed, and is deleted. What
    is not, such as a stock Saver's checkpoint that was stepped over, gets another name.

    Returns:
      The new names of what is not ours.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    suffixes = files_by_step(folder).get(step, set())
    if suffixes & {naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}:
        delete_files(folder, step, suffixes)
        return []
    prefix = naming.checkpoint_prefix(folder, step)
    return [file_io.set_aside(prefix + suffix, SET_ASIDE_SUFFIX) for suffix in sorted(suffixes)]


def delete_leftovers(folder: str) -> list[int]:
    """Clears what saves and deletions that were cut short have left; returns their steps."""
    leftover = {step: files for step, files in files_by_step(folder).items() if is_leftover(files)}
    for step, suffixes in leftover.items():
        delete_files(folder, step, suffixes)
    file_io.remove_leftover(os.path.join(folder, naming.STATE_FILE))
    return list(leftover)


def write_state(folder: str, steps: Iterable[int]) -> bool:
    """As `write_state_of`, for checkpoints of ours.

    Args:
      folder: where the checkpoints are.
      steps: of the checkpoints that there are, by rising step; at least one.
    """
    return write_state_of(folder, [naming.checkpoint_name(step) for step in steps])


def write_state_of(folder: str, names: Sequence[str]) -> bool:
    """Writes the state file, by which `tf.train.latest_checkpoint` finds the newest, if it differs.

    Format: the text of `tensorflow/python/training/checkpoint_state.proto`. The paths are
    relative, so that the folder can be moved.

    Args:
      folder: where the checkpoints are.
      names: of the checkpoints that there are, the newest last; at least one.

    Returns:
      Whether it was another before, or not there.
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


# The newest checkpoint of a folder, for those who read while another process trains into it.

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
    return [name for name in names_in(path) if name.endswith(_LISTED)]


def _is_gone(prefix: str) -> bool:
    path, name = os.path.split(prefix)
    if named := naming.split_name(name + naming.INDEX_SUFFIX):
        return named[0] not in usable_steps(path)
    return not tf.io.gfile.exists(prefix + naming.INDEX_SUFFIX)


def newest_meta_graph(path: str) -> str:
    """The `.meta` file of the newest checkpoint in a folder; it is never one that is half written.

    Raises:
      CheckpointError: the folder has no checkpoint.
    """
    steps = usable_steps(path)
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
    steps = usable_steps(path) if named and tf.io.gfile.isdir(path or ".") else []
    if not named or not steps or named[0] in steps:
        return error
    newest = os.path.basename(newest_meta_graph(path))
    return CheckpointError(
        f"{file} is not there, or was deleted while it was read, as those that train do with older "
        f"checkpoints; the newest is {newest} ({flag}={path or '.'} always reads the newest)"
    )


# Keeps a folder as it should be: the oldest checkpoints gone, the state file naming the newest.


def at_start(path: str, newest: int | None, retention: Retention) -> Retention:
    """Puts right what a run that was cut short, or damage, has left.

    Args:
      path: the folder.
      newest: the step that was restored; None where there was no checkpoint.
      retention: what stays.

    Returns:
      What stays from here on: a best that is damaged is not kept as such.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    for step in delete_leftovers(path):
        logging.info("cleared what was left of an interrupted save of step %d", step)
    if newest is None:
        return retention
    if retention.keep_best:
        retention = retention._replace(damaged=_damaged_bests(path, newest))
    if after_save(path, newest, retention):
        logging.info("rewrote the state file of %s, which did not name what is there", path)
    return retention


def _damaged_bests(path: str, newest: int) -> frozenset[int]:
    """The steps up to `newest` that would be the best if they were whole; says which."""
    damaged = set[int]()
    steps = (step for step in committed_steps(path) if step <= newest)
    for best in best_first(saved(path, step) for step in steps):
        try:
            manifest.verify_checkpoint(naming.checkpoint_prefix(path, best.step))
        except CheckpointError as error:
            logging.warning("not kept as the best: %s", error)
            damaged.add(best.step)
        else:
            break
    return frozenset(damaged)


def after_save(path: str, newest: int, retention: Retention) -> bool:
    """Writes the state file, then lets the oldest checkpoints go.

    A checkpoint of a later step than `newest` has been stepped over as damaged. It counts for
    nothing here: it neither takes the place of a good one nor goes before it is written again. One
    that another process is reading goes with a later save.

    Args:
      path: the folder.
      newest: the step that was saved or restored last.
      retention: what stays.

    Returns:
      Whether the state file was another before.

    Raises:
      tf.errors.OpError, OSError: the file system refused.
    """
    found = files_by_step(path)
    steps = [step for step in found if step <= newest and is_committed(found[step])]
    # Where the order alone decides, no manifest has to be read.
    of_step = saved if retention.every_n_hours or retention.keep_best else _of_step
    doomed = steps_to_delete([of_step(path, step) for step in steps], retention)
    kept = [step for step in steps if step not in doomed]
    rewritten = bool(kept) and write_state(path, kept)
    for step in doomed:
        if not is_held(naming.checkpoint_prefix(path, step)):
            delete_files(path, step, found[step])
    return rewritten


def saved(path: str, step: int) -> Saved:
    """What the manifest of a checkpoint says; what it cannot say where it is missing or damaged.

    Restoring says that it is damaged. Such a checkpoint counts as the oldest, and never as the
    best.
    """
    try:
        found = manifest.read(path, step)
    except CheckpointError:
        found = None
    return Saved(step, found.saved_at, found.test_accuracy) if found else _of_step(path, step)


def _of_step(path: str, step: int) -> Saved:
    del path
    return Saved(step, saved_at=-math.inf)


# Which checkpoint of a folder has the best test accuracy, as its manifests tell.


def best_checkpoint(path: str) -> str:
    """The prefix of the checkpoint with the best test accuracy, the earliest of equals.

    What is damaged is stepped over, with a line each.

    Args:
      path: the folder.

    Raises:
      CheckpointError: no checkpoint of the folder says its test accuracy, or all that do are
        damaged.
    """
    measured = best_first(saved(path, step) for step in committed_steps(path))
    for found in measured:
        prefix = naming.checkpoint_prefix(path, found.step)
        try:
            manifest.verify_checkpoint(prefix)
        except CheckpointError as error:
            logging.warning("stepping over the best: %s", error)
        else:
            return prefix
    if measured:
        raise CheckpointError(
            f"{path}: each of the {len(measured)} checkpoints that say their test accuracy is "
            "damaged"
        )
    raise CheckpointError(
        f"{path} has no checkpoint that says its test accuracy, as those of a training with "
        "--keep_best do"
    )
