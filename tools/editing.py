"""One edit: the tensors that are kept, and the files of the new checkpoint.

The files are made aside, moved into place when all is well, or gone.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

import file_io
from checkpoints import layout
from checkpoints.bundle import RESOURCE, VARIANT, DType, Entry, write_bundle
from checkpoints.folder import explain_if_gone, find_variables, write_state
from checkpoints.layout import (
    DATA_SUFFIX,
    INDEX_SUFFIX,
    META_SUFFIX,
    STATE_FILE,
    prefix_of,
    verify_checkpoint,
)
from checkpoints.lock import FolderLock, Hold, read_newest
from checkpoints.reader import Array, CheckpointReader
from errors import CheckpointError, ToolError, reason
from file_io import names_in
from metagraph.meta import MetaGraphFile
from metagraph.opening import find_model, open_model
from metagraph.variables import slot_names
from tools.command import Record, new_names, select
from tools.edit import NUMBERS, EditConfig

READING = "reading the graph"


def edit(config: EditConfig) -> Record:
    """Writes the new checkpoint and says what was done, as `docs/json.md` has it.

    Where it fails, nothing is written.
    """
    return read_newest([config.meta, config.checkpoint], functools.partial(_edit_newest, config))


def _edit_newest(config: EditConfig, hold: Hold) -> Record:
    prefix = None if config.checkpoint is None else find_variables(config.checkpoint)
    file = None if config.meta is None else find_model(config.meta, warn=prefix is None)
    for path in (prefix, file):
        if path is not None:
            hold(prefix_of(path))
    meta = None if file is None else _open_graph(config, file, prefix)
    prefix = meta.prefix if meta is not None else prefix or ""
    sources = [prefix] if meta is None else [prefix, meta.path.removesuffix(META_SUFFIX)]
    check_prefix(config.output, sources, config.overwrite)
    try:
        verify_checkpoint(prefix, (DATA_SUFFIX, INDEX_SUFFIX))
        return _edit(config, meta, CheckpointReader(prefix))
    except CheckpointError as error:
        flag = "--meta" if config.checkpoint is None else "--ckpt"
        raise explain_if_gone(error, prefix, flag) from error


def _open_graph(config: EditConfig, path: str, checkpoint: str | None) -> MetaGraphFile:
    with config.limit.over(READING):
        meta = open_model(path, config.max_meta_bytes, [checkpoint] if checkpoint else ())
    if not meta.path.endswith(META_SUFFIX):
        raise ToolError(
            f"{meta.path} is no .meta file, the one kind of graph that can be edited; --ckpt alone "
            "edits the variables of a SavedModel"
        )
    verify_checkpoint(meta.path.removesuffix(META_SUFFIX), [META_SUFFIX])
    return meta


def _edit(config: EditConfig, meta: MetaGraphFile | None, reader: CheckpointReader) -> Record:
    """Makes all files aside, has them checked, and moves them into place."""
    own = {key: name for name, key in reader.names.items()}
    keys = [key for key in keys_in_order(reader) if key in own]
    slots = slot_names(keys, meta) if config.without_slots else frozenset[str]()
    kept = select([own[k] for k in keys], [own[k] for k in slots], config.only, config.drop)
    renamed = new_names(kept, config.rename)
    names = {reader.names[name]: new for name, new in renamed.items()}
    tensors = plan_tensors(reader, names, None if config.cast is None else DType(config.cast))
    make_graph = None
    if meta is not None:
        # Imported where it is wanted: it imports graphs, and variables alone take no TensorFlow.
        from tools.edit_graph import graph_maker

        make_graph = graph_maker(config, meta, reader, tensors)

    def make(prefix: str) -> Record | None:
        write_tensors(reader, tensors, prefix)
        return None if make_graph is None else make_graph(prefix)

    graph, files = commit(config.output, make)
    return {
        "source": reader.prefix,
        "output": config.output,
        "files": files,
        "variables": [tensor._asdict() for tensor in tensors],
        "dropped": [key for key in keys_in_order(reader) if key not in names],
        "graph": graph,
    }


class Tensor(NamedTuple):
    """A tensor of the new checkpoint: its key and dtype there, and what they were."""

    name: str
    was: str
    dtype: DType
    was_dtype: DType
    shape: tuple[int, ...]
    bytes: int  # 0 of strings, of which nobody knows them.


def keys_in_order(reader: CheckpointReader) -> list[str]:
    """The keys of a checkpoint, in the order in which their values are in its files."""
    reader.check_sizes(reader.shapes)
    unknown = Entry()  # The format V1 has no index.

    def place(key: str) -> tuple[int, int, str]:
        entry = reader.index.get(key.encode(), unknown)
        return entry.shard_id, entry.offset, key

    return sorted(reader.shapes, key=place)


def plan_tensors(
    reader: CheckpointReader, names: Mapping[str, str], cast: DType | None
) -> list[Tensor]:
    """What becomes of the tensors that are kept, whose new keys `names` has by the old ones.

    Numbers of any floating type become `cast`, if there is one. Raises ToolError where a tensor
    has no value.
    """
    tensors = []
    for key, name in names.items():
        dtype = reader.dtypes[key]
        if dtype in (VARIANT, RESOURCE):
            raise ToolError(f"{key} is a {dtype.name}, which only its graph can read: --drop it")
        stored = cast if cast is not None and dtype in NUMBERS else dtype
        shape = tuple(reader.shapes[key])
        size = math.prod(shape) * stored.size
        tensors.append(Tensor(name, key, stored, dtype, shape, size))
    return tensors


def write_tensors(reader: CheckpointReader, tensors: Sequence[Tensor], prefix: str) -> None:
    """Writes `<prefix>.index` and its data file; ToolError where a number overflows."""
    write_bundle(prefix, {tensor.name: _value(reader, tensor) for tensor in tensors})


def _value(reader: CheckpointReader, tensor: Tensor) -> Array:
    """A tensor's value in its new dtype, rounded to the nearest."""
    value = reader.read(tensor.was)
    if tensor.dtype == tensor.was_dtype:
        return value
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(tensor.dtype.as_numpy_dtype)
    lost = np.isfinite(value) & ~np.isfinite(cast)
    if lost.any():
        raise ToolError(
            f"{tensor.was} holds {value[lost].flat[0]:g}, too large for {tensor.dtype.name} "
            f"({int(lost.sum())} such of {lost.size}): --cast to a wider one"
        )
    return cast


# The files of the new checkpoint are made in a folder of their own beside where they will be, which
# is locked meanwhile; what a process that was killed has left there, the next one clears. A
# checkpoint is read by its `.index`, which is moved last, and what is replaced loses its own first:
# whatever is interrupted leaves nothing that looks whole.

_BASE = "model"  # Of the files while they are aside.
_Made = TypeVar("_Made")


def check_prefix(prefix: str, sources: Iterable[str], overwrite: bool) -> None:
    """ToolError unless `prefix` is that of a checkpoint, and none of those of the `sources`.

    Nothing may be there, unless it is to be overwritten.
    """
    name = os.path.basename(prefix)
    if name in ("", ".", "..", STATE_FILE) or file_io.is_folder(prefix):
        raise ToolError(
            f"--output={prefix} is no prefix of a checkpoint: add a name to the folder, as in "
            f"{os.path.join(prefix, 'model')}"
        )
    if prefix_of(prefix) != prefix:
        raise ToolError(f"--output={prefix} is a file's name: expected {prefix_of(prefix)}")
    if os.path.realpath(prefix) in map(os.path.realpath, sources):
        raise ToolError(f"--output={prefix} is the source, which is never touched")
    if file_io.exists(prefix):  # It may be anything, also a checkpoint of the format V1.
        raise ToolError(f"--output={prefix} is a file that is there: take another name")
    old = _files_of(prefix)
    if old and not overwrite:
        raise ToolError(f"--output={prefix}: {old[0]} is there; --overwrite replaces it")


def commit(prefix: str, make: Callable[[str], _Made]) -> tuple[_Made, list[str]]:
    """Has `make` make the files of a checkpoint, and moves them to `prefix`, over what is there.

    Returns what `make` returns, given the prefix that it makes them at, and the names of the files,
    a state file among them where there was none. Raises CheckpointError where another process is
    making the same checkpoint, ToolError where the file system refuses.
    """
    place, name = os.path.split(prefix)
    aside = os.path.join(place, f".{name}.being-edited")
    try:
        file_io.make_folder(aside)
        with FolderLock(aside, "take another --output", keeps_file=False):
            try:
                for left in _made_in(aside):
                    file_io.remove(os.path.join(aside, left))
                return make(os.path.join(aside, _BASE)), _move(aside, prefix)
            finally:
                file_io.remove_folder(aside)
    except OSError as error:
        if file_io.is_folder(aside) and not names_in(aside):  # There was no place for the lock.
            file_io.remove_folder(aside)
        raise ToolError(f"--output={prefix}: {reason(error)}") from error


def _move(aside: str, prefix: str) -> list[str]:
    """Flushes the files that were made and moves them into place; returns their names there."""
    place, name = os.path.split(prefix)
    made = sorted(_made_in(aside), key=lambda file: file.endswith(INDEX_SUFFIX))
    for file in made:
        file_io.flush(os.path.join(aside, file))
    for file in _files_of(prefix):
        file_io.remove(os.path.join(place, file))
    file_io.flush(place or ".")
    for file in made:
        file_io.rename(os.path.join(aside, file), prefix + file.removeprefix(_BASE))
    file_io.flush(place or ".")
    names = [name + file.removeprefix(_BASE) for file in made]
    if not file_io.exists(os.path.join(place, STATE_FILE)):
        write_state(place, [name])
        names.append(STATE_FILE)
    return sorted(names)


def _made_in(aside: str) -> list[str]:
    return [name for name in names_in(aside) if name.startswith(_BASE)]


def _files_of(prefix: str) -> list[str]:
    """The files of a checkpoint that is there, in the order in which they are to go."""
    place, base = os.path.split(prefix)
    if not file_io.is_folder(place or "."):
        return []
    names, pending = names_in(place), base + layout.PENDING_SUFFIX
    found = [n for n in names if n == pending or (n != base and prefix_of(n) == base)]
    first = (layout.MANIFEST_SUFFIX, INDEX_SUFFIX)
    return sorted(found, key=lambda name: not name.endswith(first))
