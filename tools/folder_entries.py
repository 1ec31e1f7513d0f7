"""Which checkpoints there are in a folder, ours and strangers', told by the names of its files.

Also their order, and what saves and edits that were cut short have left.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import tensorflow as tf

from checkpoints import file_io, folder, lock, naming
from checkpoints.folder import names_in
from errors import CheckpointError
from metagraph.opening import SAVED_MODEL_VARIABLES, prefix_of
from metagraph.parsing import SAVED_MODEL_FILES

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
        if base not in found
        and not _is_leftover_of_ours(base, names)
        and not _SHARD_OF_V1.fullmatch(suffix)
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
    has_values = has_values or any(map(_SHARD_OF_V1.fullmatch, suffixes))
    return naming.META_SUFFIX in suffixes and has_values


def _is_leftover_of_ours(base: str, names: Collection[str]) -> bool:
    ends = (naming.MANIFEST_SUFFIX, naming.PENDING_SUFFIX)
    is_called_so = naming.split_name(base + naming.PENDING_SUFFIX) is not None
    return is_called_so and naming.is_leftover({end for end in ends if base + end in names})


def _entry(path: str, base: str, suffixes: Collection[str], has_file: bool) -> Entry:
    prefix = os.path.join(path, base)
    ours = naming.split_name(base + naming.MANIFEST_SUFFIX)
    shards = [found[1] for suffix in suffixes if (found := _SHARD_OF_V1.fullmatch(suffix))]
    has_index = naming.INDEX_SUFFIX in suffixes
    graph = _saved_model_above(path) if base == _VARIABLES else None
    if naming.META_SUFFIX in suffixes:
        graph = prefix + naming.META_SUFFIX
    is_sharded_v1 = bool(shards) and not has_index and not has_file
    return Entry(
        name=base,
        prefix=prefix,
        step=ours[0] if ours else None,
        committed=ours is not None and naming.MANIFEST_SUFFIX in suffixes,
        graph=graph,
        has_values=has_file or bool(shards) or has_index or any(map(_DATA.fullmatch, suffixes)),
        state_name=f"{base}-?????-of-{max(shards)}" if is_sharded_v1 else base or EMPTY_NAME,
    )


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


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Checkpoints by age, the newest last: ours after all others.

    The steps of one run are an order. Others have none but when they were written.
    """
    found = list(entries)
    others = [(*stem_and_step(entry.name), entry) for entry in found if entry.step is None]
    if len({stem for stem, _, _ in others}) == 1 and all(step is not None for _, step, _ in others):
        others.sort(key=lambda other: other[1] or 0)
    else:
        others.sort(key=lambda other: (_written(other[2]), other[2].name))
    ours = sorted((e for e in found if e.step is not None), key=lambda entry: entry.step or 0)
    return [*(entry for _, _, entry in others), *ours]


def newest_of(entries: Iterable[Entry], named: str | None) -> Entry | None:
    """The newest of some checkpoints; None where there is none.

    Args:
      entries: the checkpoints.
      named: what the state file calls the newest, which decides where several runs that are not
        ours share a folder; None where it names none.
    """
    ordered = in_order(entries)
    newest = ordered[-1] if ordered else None
    if newest and newest.step is None and len({stem_and_step(e.name)[0] for e in ordered}) > 1:
        return next((e for e in ordered if e.state_name == (named or EMPTY_NAME)), newest)
    return newest


def _written(entry: Entry) -> float:
    """When a checkpoint was written, in seconds since 1970: its index last of all its values."""
    for suffix in (naming.INDEX_SUFFIX, "", naming.META_SUFFIX):
        try:
            return float(tf.io.gfile.stat(entry.prefix + suffix).mtime_nsec / 1e9)
        except tf.errors.OpError:
            continue
    return 0.0


class Leftover(NamedTuple):
    """What one save, one deletion or one edit that was cut short has left.

    Attributes:
      names: of the files, or of a folder.
      step: of a checkpoint of ours; None for what an edit or a write of the state file left.
    """

    names: tuple[str, ...]
    step: int | None = None


def find_leftovers(path: str) -> list[Leftover]:
    """What is left in a folder; an edit that is under way is told by its lock.

    Raises:
      CheckpointError: it cannot be read.
    """
    names = names_in(path)
    found = [
        Leftover(tuple(sorted(naming.checkpoint_name(step) + suffix for suffix in suffixes)), step)
        for step, suffixes in folder.files_by_step(path).items()
        if naming.is_leftover(suffixes)
    ]
    for name in sorted(names):
        place = os.path.join(path, name)
        is_of_an_edit = name.startswith(".") and name.endswith(EDITED_SUFFIX)
        if name == naming.STATE_FILE + file_io.TEMPORARY_SUFFIX or (
            is_of_an_edit and tf.io.gfile.isdir(place) and lock.holder(place) is None
        ):
            found.append(Leftover((name,)))
    return found


def clear(path: str, leftover: Leftover) -> None:
    """Deletes a leftover.

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
            file_io.remove(place)


def all_in(path: str) -> Iterator[str]:
    """The path itself and, of a folder, whatever is below it."""
    yield path
    if tf.io.gfile.isdir(path):
        with suppress(CheckpointError):
            for name in names_in(path):
                yield from all_in(os.path.join(path, name))
