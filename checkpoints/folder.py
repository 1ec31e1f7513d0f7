"""A folder of checkpoints: which there are, in what state, and the file that names them.

Each step's files tell its state, whatever was interrupted:

- `.manifest`: committed. It is renamed into place last, and away first.
- `.manifest.tmp` alone: being written or deleted; the rest of its files are leftovers.
- neither, but an `.index`: written by someone else, such as a stock Saver.
- neither, and no `.index`: what is left of a checkpoint that someone has deleted or damaged. It is
  no checkpoint, and nothing of it is deleted.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence

import tensorflow as tf
from google.protobuf import text_encoding

from checkpoints import durable, naming
from checkpoints.errors import CheckpointError, reason

SET_ASIDE_SUFFIX = ".set-aside"


def names_in(path: str) -> list[str]:
    """The names of a folder's entries, sorted.

    One that is not UTF-8 is left out: it is no checkpoint's, and TensorFlow cannot open it.

    Raises:
      CheckpointError: it cannot be listed.
    """
    try:
        if durable.is_local(path):
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
        durable.rename(prefix + naming.MANIFEST_SUFFIX, prefix + naming.PENDING_SUFFIX)
        durable.flush(folder)
    for suffix in suffixes - {naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}:
        durable.remove(prefix + suffix)
    if suffixes & {naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX}:
        durable.remove(prefix + naming.PENDING_SUFFIX)


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
    return [durable.set_aside(prefix + suffix, SET_ASIDE_SUFFIX) for suffix in sorted(suffixes)]


def delete_leftovers(folder: str) -> list[int]:
    """Clears what saves and deletions that were cut short have left; returns their steps."""
    leftover = {step: files for step, files in files_by_step(folder).items() if is_leftover(files)}
    for step, suffixes in leftover.items():
        delete_files(folder, step, suffixes)
    durable.remove_leftover(os.path.join(folder, naming.STATE_FILE))
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
    if durable.content_of(path) == content:
        return False
    durable.replace_file(path, content)
    return True
