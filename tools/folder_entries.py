"""Which checkpoints there are in a folder, ours and strangers', told by the names of its files.

tools.inspect_checkpoint begins here; what one checkpoint holds is in `checkpoint_contents.py`.
"""

import functools
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from absl import logging

import file_io
from checkpoints import naming
from checkpoints.folder import (
    Saved,
    best_first,
    find_variables,
    graph_path,
    named_checkpoint,
    newest_of,
    own_names,
    runs_by_age,
)
from checkpoints.lock import Hold, read_newest
from checkpoints.naming import (
    SAVED_MODEL_FILES,
    prefix_of,
    stem_and_step,
)
from checkpoints.reader import CheckpointReader, stored_tensors
from errors import CheckpointError, first_few
from file_io import names_in
from tools.command import Record
from tools.inspect_checkpoint import InspectConfig

_DATA = re.compile(r"\.data-\d{5}-of-\d{5}")
_SHARD_OF_V1 = re.compile(r"-\d{5}-of-(\d{5})")
_COMMITTED, _FOREIGN, _DAMAGED = "committed", "no manifest", "damaged"
_MAX_NAMED = 10
_MAX_HELD = 8  # Of those, a few may be damaged; a process may open only so many files.
EMPTY_NAME = "./"  # What a state file has to call the files `.index` and so on.


class Entry(NamedTuple):
    """A checkpoint, whole or not."""

    name: str  # What its files begin with.
    prefix: str  # The same with its folder.
    files: tuple[str, ...]  # Their paths.
    step: int | None  # Of the name `my-model-<step>`, None for any other.
    committed: bool  # Whether it has a manifest, as those of ours do.
    graph: str | None  # The file of its graph.
    has_values: bool  # Whether there is a file of values, or of where they are.
    state_name: str  # What a state file calls it; of the format V1 in shards, a pattern.


def is_folder(path: str) -> bool:
    """Whether a path stands for all in a folder: not for a SavedModel, or a prefix of its name."""
    if file_io.exists(path + naming.INDEX_SUFFIX) or not file_io.is_folder(path):
        return False
    return not any(file_io.exists(os.path.join(path, name)) for name in SAVED_MODEL_FILES)


def list_folder(path: str) -> list[Entry]:
    """The checkpoints of a folder by age, those of a run together and the newest last.

    CheckpointError where the folder cannot be read.
    """
    parts = _parts(own_names(path))
    found = [base for base in parts if _is_checkpoint(path, base, parts)]
    return [_entry(path, b, parts[b]) for _, run in runs_by_age(path, found) for b in run]


def named_entry(prefix: str) -> Entry:
    """The checkpoint at a prefix; CheckpointError where its folder cannot be read."""
    path, base = os.path.split(prefix)
    # A SavedModel without variables has no folder for them.
    names = names_in(path) if graph_path(prefix) is None or file_io.is_folder(path) else []
    return _entry(path, base, _parts(names).get(base, set()))


def _parts(names: Iterable[str]) -> dict[str, set[str]]:
    """Base name -> the suffixes of the files that a checkpoint of that name would have."""
    parts: dict[str, set[str]] = {}
    for name in names:
        base = prefix_of(name)
        parts.setdefault(base, set()).add(name[len(base) :])
    return parts


def _is_checkpoint(path: str, base: str, parts: Mapping[str, set[str]]) -> bool:
    """Whether the files of a base name are a checkpoint, or what damage has left of one."""
    suffixes = parts[base]
    is_ours = naming.split_name(base + naming.MANIFEST_SUFFIX) is not None
    if is_ours and naming.MANIFEST_SUFFIX in suffixes:
        return True
    if is_ours and base + naming.PENDING_SUFFIX in parts:
        return False
    if naming.INDEX_SUFFIX in suffixes or any(map(_DATA.fullmatch, suffixes)):
        return True
    # Of the format V1. Any file may be called like a shard of it: its graph must be there as well.
    return naming.META_SUFFIX in suffixes and _entry(path, base, suffixes).has_values


def _entry(path: str, base: str, suffixes: Collection[str]) -> Entry:
    prefix = os.path.join(path, base)
    ours = naming.split_name(base + naming.MANIFEST_SUFFIX)
    has_file = "" in suffixes and not file_io.is_folder(prefix)
    has_index = naming.INDEX_SUFFIX in suffixes
    shards = [found[1] for suffix in suffixes if (found := _SHARD_OF_V1.fullmatch(suffix))]
    is_sharded_v1 = bool(shards) and not has_index and not has_file
    return Entry(
        name=base,
        prefix=prefix,
        files=tuple(sorted(prefix + suffix for suffix in suffixes)),
        step=ours[0] if ours else None,
        committed=ours is not None and naming.MANIFEST_SUFFIX in suffixes,
        graph=graph_path(prefix),
        has_values=has_file or bool(shards) or has_index or any(map(_DATA.fullmatch, suffixes)),
        state_name=f"{base}-?????-of-{max(shards)}" if is_sharded_v1 else base or EMPTY_NAME,
    )


# What is told of a folder, or of one checkpoint.


def inspect(config: InspectConfig) -> Record:
    """Looks into a checkpoint or a folder, and tells of it as `docs/json.md` has it.

    For people, a `value` is a text.
    """
    return read_newest([config.ckpt], functools.partial(_inspect, config))


def _inspect(config: InspectConfig, hold: Hold) -> Record:
    if is_folder(config.ckpt):
        found = _list_checkpoints(config.ckpt, hold)
        if not (config.tensors or config.stats or config.filter is not None):
            return found
        if (newest := found["newest"]) is None:
            told = first_few(found["may_be_newest"], _MAX_NAMED)
            what = f"it holds several checkpoints; name one: {told}"
            what = what if told else "none of its checkpoints is whole"
            raise CheckpointError(f"--ckpt={config.ckpt}: {what}")
        prefix = os.path.join(config.ckpt, newest)
        logging.info("of %s the newest is read, %s", config.ckpt, newest)
    else:
        prefix = find_variables(config.ckpt)
        hold(prefix)
    # Imported where it is wanted: it reads graphs, and a list takes a third less without.
    from tools.checkpoint_contents import look_into

    return look_into(prefix, config)


def _list_checkpoints(path: str, hold: Hold) -> dict[str, Any]:
    """Looks into a folder: of each checkpoint the index, the manifest and the files' sizes.

    The newest are held. What is deleted meanwhile is left out.
    """
    found = list_folder(path)
    for entry in found[: -_MAX_HELD - 1 : -1]:
        hold(entry.prefix)
    rows = {entry: _listed(entry) for entry in found}
    there = _parts(names_in(path))
    rows = {e: row for e, row in rows.items() if row["state"] != _DAMAGED or e.name in there}
    if not rows:
        raise CheckpointError(f"--ckpt={path}: it holds no checkpoint")
    state_file = os.path.join(path, naming.STATE_FILE)
    is_file = file_io.exists(state_file) and not file_io.is_folder(state_file)
    named = named_checkpoint(state_file) if is_file else None
    whole = {e.name: e for e, row in rows.items() if row["state"] != _DAMAGED}
    newest = [whole[name] for name in newest_of(path, [*whole])]
    called = newest[0].state_name if len(newest) == 1 else None
    right = named is not None and called == (named or EMPTY_NAME)
    best = best_first(
        Saved(row["step"], test_accuracy=row["test_accuracy"])
        for row in rows.values()
        if row["state"] == _COMMITTED
    )
    return {
        "folder": path,
        "checkpoints": [*rows.values()],
        "newest": newest[0].name if len(newest) == 1 else None,
        "may_be_newest": [entry.name for entry in newest if len(newest) > 1],
        "best": naming.checkpoint_name(best[0].step) if best else None,
        "state_file": {"names": named, "right": right} if is_file else None,
    }


def _listed(entry: Entry) -> dict[str, Any]:
    """What is seen of a checkpoint without reading its values, as JSON values."""
    sizes, changed = dict[str, int](), None
    for path in entry.files:
        with suppress(FileNotFoundError):  # Those that train delete older checkpoints.
            found = file_io.stat(path)
            sizes[os.path.basename(path)] = 0 if found.is_folder else found.size
            changed = max(changed or 0.0, found.changed)
    state, said, problem = (_COMMITTED if entry.committed else _FOREIGN), None, None
    try:
        said = naming.manifest_at(entry.prefix)
        for name, digest in said.files.items() if said else ():
            if (size := sizes.get(name, 0)) != digest.size:
                raise CheckpointError(f"{name} has {size} bytes, the manifest says {digest.size}")
        stored_tensors(CheckpointReader(entry.prefix))
    except CheckpointError as error:
        state, problem = _DAMAGED, str(error)
    return {
        "name": entry.name,
        "state": state,
        "step": stem_and_step(entry.name)[1],
        "saved_at": said.saved_at if said else changed,
        "bytes": sum(sizes.values()),
        "has_graph": entry.graph is not None,
        "test_accuracy": said.test_accuracy if said else None,
        "problem": problem,
    }
