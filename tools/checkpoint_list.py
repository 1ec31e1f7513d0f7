"""The checkpoints of a folder, this project's and others', and what its state file says of them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from checkpoints import manifest, naming
from checkpoints.folder import Hold, named_checkpoint, names_in
from checkpoints.reader import CheckpointReader, stored_tensors
from checkpoints.retention import Saved, best_first
from errors import CheckpointError
from metagraph.opening import prefix_of
from tools.folder_entries import (
    EMPTY_NAME,
    Entry,
    all_in,
    find_leftovers,
    in_order,
    list_folder,
    newest_of,
    stem_and_step,
)

COMMITTED, FOREIGN, LEFTOVER, DAMAGED = "committed", "no manifest", "leftover", "damaged"

_NANOSECONDS = 10**9
_MAX_HELD = 8  # Of those, a few may be damaged; a process may open only so many files.


def list_checkpoints(path: str, hold: Hold) -> dict[str, Any]:
    """Looks into a folder.

    Of each checkpoint the index and the manifest are read, and the sizes of its files. What is
    deleted meanwhile is left out.

    Args:
      path: of the folder.
      hold: called with the prefixes of the newest checkpoints.

    Returns:
      JSON values: `folder`; `checkpoints`, in the order of their runs and steps; `newest`, the name
      of the newest that is whole, and `best`, of the one with the best test accuracy, the earliest
      of equals, both null where there is none; `state_file`, null where there is none: `names` (or
      null) and `right`, whether that is the newest. Each checkpoint has:

      - `name`: what its files begin with.
      - `state`: `committed`, whole and of this project; `no manifest`, of a trainer that is not
        this project's; `leftover` of a save, a deletion or an edit that was cut short, or is under
        way; `damaged`.
      - `step`: as its name says; null where it says none.
      - `saved_at`: in seconds since 1970; of a stranger's, when its files were last changed; null
        where there is no file of values.
      - `bytes`: of all its files.
      - `state_name`: what a state file would call it.
      - `has_graph`: whether there is a `.meta` with it.
      - `test_accuracy`: in [0, 1], of these very weights; null where it was not measured.
      - `problem`: what is wrong with it, where that is seen without reading its values; or null.

    Raises:
      CheckpointError: the folder cannot be read, or holds none.
    """
    found = list_folder(path).entries
    for entry in in_order(found)[: -_MAX_HELD - 1 : -1]:
        hold(entry.prefix)
    files = _files_by_prefix(path)
    entries = {entry: _listed(path, entry, files) for entry in found}
    there = {entry.name for entry in list_folder(path).entries}
    entries = {e: r for e, r in entries.items() if r["state"] != DAMAGED or e.name in there}
    listed = [*entries.values(), *_leftovers(path)]
    if not listed:
        raise CheckpointError(f"--ckpt={path}: it holds no checkpoint")
    state_file = os.path.join(path, naming.STATE_FILE)
    is_file = tf.io.gfile.exists(state_file) and not tf.io.gfile.isdir(state_file)
    named = named_checkpoint(state_file) if is_file else None
    newest = newest_of((e for e, record in entries.items() if record["state"] != DAMAGED), named)
    right = None if newest is None or named is None else newest.state_name
    return {
        "folder": path,
        "checkpoints": listed,
        "newest": newest.name if newest else None,
        "best": _best(listed),
        "state_file": {"names": named, "right": right == (named or EMPTY_NAME)}
        if is_file
        else None,
    }


def _files_by_prefix(path: str) -> dict[str, list[str]]:
    """Prefix -> the files that a checkpoint of that prefix would have."""
    found: dict[str, list[str]] = {}
    for name in names_in(path):
        of_ours = naming.split_name(name)
        base = naming.checkpoint_name(of_ours[0]) if of_ours else prefix_of(name)
        found.setdefault(os.path.join(path, base), []).append(os.path.join(path, name))
    return found


def _listed(path: str, entry: Entry, files: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What is seen of a checkpoint without reading its values."""
    size, changed = _size_and_time(files.get(entry.prefix, ()))
    state, said, problem = (COMMITTED if entry.committed else FOREIGN), None, None
    try:
        said = manifest.read(path, entry.step) if entry.step is not None else None
        _check_sizes(path, said)
        stored_tensors(CheckpointReader(entry.prefix))
    except CheckpointError as error:
        state, problem = DAMAGED, str(error)
    return {
        "name": entry.name,
        "state": state,
        "step": stem_and_step(entry.name)[1],
        "saved_at": said.saved_at if said else changed,
        "bytes": size,
        "state_name": entry.state_name,
        "has_graph": entry.graph is not None,
        "test_accuracy": said.test_accuracy if said else None,
        "problem": problem,
    }


def _check_sizes(path: str, said: manifest.Manifest | None) -> None:
    """Raises CheckpointError where a file is missing, or has another size than the manifest says.

    Whether its content is another, `tools.verify` tells, which reads it.
    """
    for name, digest in said.files.items() if said else ():
        size, _ = _size_and_time([os.path.join(path, os.path.basename(name))])
        if size != digest.size:
            raise CheckpointError(f"{name} has {size} bytes, the manifest says {digest.size}")


def _leftovers(path: str) -> Iterator[dict[str, Any]]:
    """What was cut short, as `tools.verify` tells it."""
    for leftover in find_leftovers(path):
        name = leftover.names[0]
        if leftover.step is not None:
            name = naming.checkpoint_name(leftover.step)
        places = [place for n in leftover.names for place in all_in(os.path.join(path, n))]
        size, changed = _size_and_time(places)
        yield {
            "name": name,
            "state": LEFTOVER,
            "step": leftover.step,
            "saved_at": changed,
            "bytes": size,
            "state_name": name,
            "has_graph": False,
            "test_accuracy": None,
            "problem": None,
        }


def _size_and_time(paths: Iterable[str]) -> tuple[int, float | None]:
    """The bytes of all files that there are, and when the last was changed.

    Those that train delete older checkpoints at any time: what has gone is left out.
    """
    size, changed = 0, None
    for path in paths:
        try:
            found = tf.io.gfile.stat(path)
        except tf.errors.NotFoundError:
            continue
        size += 0 if found.is_directory else int(found.length)
        changed = max(changed or 0.0, found.mtime_nsec / _NANOSECONDS)
    return size, changed


def _best(listed: Sequence[Mapping[str, Any]]) -> str | None:
    ranked = best_first(
        [
            Saved(entry["step"], entry["saved_at"] or 0.0, entry["test_accuracy"])
            for entry in listed
            if entry["state"] == COMMITTED and entry["step"] is not None
        ]
    )
    return naming.checkpoint_name(ranked[0].step) if ranked else None
