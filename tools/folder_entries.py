"""Which checkpoints there are in a folder, ours and strangers', told by the names of its files."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import file_io
from checkpoints import naming
from file_io import names_in
from metagraph.opening import SAVED_MODEL_FILES, SAVED_MODEL_VARIABLES, prefix_of

_DATA = re.compile(r"\.data-\d{5}-of-\d{5}")
_SHARD_OF_V1 = re.compile(r"-\d{5}-of-(\d{5})")
_STEP = re.compile(r"-(\d{1,18})\Z")
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
    """The checkpoints of a folder by age, the newest last: ours after all others.

    The steps of one run are an order. Others have none but when they were written.

    Raises:
      CheckpointError: the folder cannot be read.
    """
    parts = _parts(path)
    found = [_entry(path, b, parts[b]) for b in parts if _is_checkpoint(path, b, parts)]
    others = [stem_and_step(entry.name) for entry in found if entry.step is None]
    is_one_run = len({stem for stem, _ in others}) == 1 and all(s is not None for _, s in others)

    def age(entry: Entry) -> tuple[bool, float, str]:
        if entry.step is not None:
            return True, entry.step, ""
        _, step = stem_and_step(entry.name)
        return False, (step or 0) if is_one_run else _written(entry), entry.name

    return sorted(found, key=age)


def named_entry(prefix: str) -> Entry:
    """The checkpoint at a prefix, whatever there is of it.

    Raises:
      CheckpointError: its folder cannot be read.
    """
    path, base = os.path.split(prefix)
    return _entry(path, base, _parts(path).get(base, set()))


def newest_of(entries: Sequence[Entry], named: str | None) -> Entry | None:
    """The newest of some checkpoints, of which it is the last; None where there is none.

    Where several runs that are not ours share a folder, it is the one that the state file names.
    """
    runs = {stem_and_step(entry.name)[0] for entry in entries}
    if len(runs) > 1 and entries[-1].step is None:
        called_so = [entry for entry in entries if entry.state_name == (named or EMPTY_NAME)]
        return [*entries, *called_so][-1]
    return entries[-1] if entries else None


def stem_and_step(name: str) -> tuple[str, int | None]:
    """`model.ckpt` and 7 of `model.ckpt-7`; None where there is no such number."""
    found = _STEP.search(name)
    return (name[: found.start()], int(found[1])) if found else (name, None)


def graph_path(prefix: str) -> str | None:
    """The file of a checkpoint's graph: its `.meta`, or that of the SavedModel that it is of."""
    paths = [prefix + naming.META_SUFFIX]
    above = prefix.removesuffix(SAVED_MODEL_VARIABLES)
    if above != prefix:
        paths += [os.path.join(above, name) for name in SAVED_MODEL_FILES]
    return next((path for path in paths if file_io.exists(path)), None)


def _parts(path: str) -> dict[str, set[str]]:
    """Base name -> the suffixes of the files that a checkpoint of that name would have."""
    parts: dict[str, set[str]] = {}
    for name in names_in(path):
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


def _written(entry: Entry) -> float:
    """When a checkpoint was written, in seconds since 1970: its index last of all its values."""
    for suffix in (naming.INDEX_SUFFIX, "", naming.META_SUFFIX):
        with suppress(OSError):
            return file_io.stat(entry.prefix + suffix).changed
    return 0.0
