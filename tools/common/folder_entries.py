"""Which checkpoints there are in a folder, ours and strangers', told by the names of its files."""

import os
import re
from collections.abc import Collection
from typing import NamedTuple

import tensorflow as tf

from checkpoints import folder, naming
from checkpoints.folder import names_in
from checkpoints.loading.graph_files import SAVED_MODEL_FILES
from checkpoints.loading.variable_files import SAVED_MODEL_VARIABLES, prefix_of

_DATA = re.compile(r"\.data-\d{5}-of-\d{5}")
_SHARD_OF_V1 = re.compile(r"-\d{5}-of-(\d{5})")
_STEP = re.compile(r"-(\d{1,18})\Z")
EDITED_SUFFIX = ".being-edited"  # Of the hidden folder that tools.edit fills, and locks.
EMPTY_NAME = "./"  # What a state file has to call the files `.index` and so on.
_VARIABLES = os.path.basename(SAVED_MODEL_VARIABLES)


class Entry(NamedTuple):
    """A checkpoint, whole or not.

    Attributes:
      name: what its files begin with.
      prefix: with its folder.
      step: of the name `my-model-<step>`, None for any other.
      committed: whether it has a manifest, as those of ours do.
      graph: the file of its graph; None where it has none.
      has_values: whether there is a file of values, or of where they are.
      state_name: what a state file calls it; of the format V1 in shards, a pattern.
    """

    name: str
    prefix: str
    step: int | None
    committed: bool
    graph: str | None
    has_values: bool
    state_name: str


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
      path: of the folder.
      entries: its checkpoints, ours by step, then the others by name.
      strays: names of files that look like a part of a checkpoint, and are of none.
      is_saved_model: whether it is a SavedModel or the variables of one, whose checkpoint no state
        file names.
    """

    path: str
    entries: tuple[Entry, ...]
    strays: tuple[str, ...]
    is_saved_model: bool


def list_folder(path: str) -> Listing:
    """Lists a folder; of a SavedModel, the one checkpoint in its `variables`.

    Raises:
      CheckpointError: the folder cannot be read.
    """
    names = names_in(path)
    if any(name in names for name in SAVED_MODEL_FILES):
        return Listing(path, (_of_saved_model(path),), (), True)
    parts = _parts(names)
    entries = [
        _entry(path, base, suffixes, base in names)
        for base, suffixes in parts.items()
        if _is_checkpoint(path, base, suffixes, names)
    ]
    found = {entry.name for entry in entries}
    strays = [
        base + suffix
        for base, suffixes in parts.items()
        for suffix in suffixes
        if base not in found and not _is_leftover_of_ours(base, names) and not _may_be_data(suffix)
    ]
    within_saved_model = _saved_model_above(path) is not None
    return Listing(
        path, tuple(sorted(entries, key=_order)), tuple(sorted(strays)), within_saved_model
    )


def stem_and_step(name: str) -> tuple[str, int | None]:
    """`model.ckpt` and 7 of `model.ckpt-7`; None where there is no such number."""
    found = _STEP.search(name)
    return (name[: found.start()], int(found[1])) if found else (name, None)


def named_entry(prefix: str) -> Entry:
    """The checkpoint at a prefix, whatever there is of it.

    Raises:
      CheckpointError: its folder cannot be read.
    """
    path, base = os.path.split(prefix)
    names = names_in(path)
    return _entry(path, base, _parts(names).get(base, set()), base in names)


def _parts(names: Collection[str]) -> dict[str, set[str]]:
    """Base name -> the suffixes of the files that a checkpoint of that name would have."""
    parts: dict[str, set[str]] = {}
    for name in names:
        base = prefix_of(name)
        if base != name:
            parts.setdefault(base, set()).add(name[len(base) :])
    return parts


def _is_checkpoint(path: str, base: str, suffixes: Collection[str], names: Collection[str]) -> bool:
    """Whether such files are a checkpoint, or what damage has left of one."""
    if _is_leftover_of_ours(base, names):
        return False
    if naming.INDEX_SUFFIX in suffixes or any(map(_DATA.fullmatch, suffixes)):
        return True
    if naming.MANIFEST_SUFFIX in suffixes and naming.split_name(base + naming.MANIFEST_SUFFIX):
        return True
    # Of the format V1. Any file may be called like a shard of it: its graph must be there as well.
    has_values = base in names and not tf.io.gfile.isdir(os.path.join(path, base))
    has_values = has_values or any(map(_may_be_data, suffixes))
    return naming.META_SUFFIX in suffixes and has_values


def _is_leftover_of_ours(base: str, names: Collection[str]) -> bool:
    ends = (naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX)
    is_called_so = naming.split_name(base + naming.PENDING_SUFFIX) is not None
    return is_called_so and folder.is_leftover({end for end in ends if base + end in names})


def _may_be_data(suffix: str) -> bool:
    return _SHARD_OF_V1.fullmatch(suffix) is not None


def _entry(path: str, base: str, suffixes: Collection[str], has_file: bool) -> Entry:
    prefix = os.path.join(path, base)
    ours = naming.split_name(base + naming.MANIFEST_SUFFIX)
    shards = [found[1] for suffix in suffixes if (found := _SHARD_OF_V1.fullmatch(suffix))]
    has_index = naming.INDEX_SUFFIX in suffixes
    is_sharded_v1 = bool(shards) and not has_index and not has_file
    return Entry(
        name=base,
        prefix=prefix,
        step=ours[0] if ours else None,
        committed=ours is not None and naming.MANIFEST_SUFFIX in suffixes,
        graph=_graph_of(path, base, suffixes),
        has_values=has_file or bool(shards) or has_index or any(map(_DATA.fullmatch, suffixes)),
        state_name=f"{base}-?????-of-{max(shards)}" if is_sharded_v1 else base or EMPTY_NAME,
    )


def _graph_of(path: str, base: str, suffixes: Collection[str]) -> str | None:
    if naming.META_SUFFIX in suffixes:
        return os.path.join(path, base + naming.META_SUFFIX)
    return _saved_model_above(path) if base == _VARIABLES else None


def _saved_model_above(path: str) -> str | None:
    """The graph of the SavedModel that a folder `variables` is of."""
    if os.path.basename(os.path.abspath(path)) != os.path.dirname(SAVED_MODEL_VARIABLES):
        return None
    files = [os.path.join(path, os.pardir, name) for name in SAVED_MODEL_FILES]
    return next((os.path.normpath(file) for file in files if tf.io.gfile.exists(file)), None)


def _of_saved_model(path: str) -> Entry:
    place, base = os.path.split(os.path.join(path, SAVED_MODEL_VARIABLES))
    names = names_in(place) if tf.io.gfile.isdir(place) else []
    found = _entry(place, base, _parts(names).get(base, set()), base in names)
    graph = next(n for n in SAVED_MODEL_FILES if tf.io.gfile.exists(os.path.join(path, n)))
    return found._replace(name=SAVED_MODEL_VARIABLES, graph=os.path.join(path, graph))


def _order(entry: Entry) -> tuple[bool, int, str, int, str]:
    """By rising step: of ours, then of others, each as a run with one name."""
    stem, step = stem_and_step(entry.name)
    return (entry.step is None, entry.step or 0, stem, -1 if step is None else step, entry.name)
