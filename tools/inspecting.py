"""What tools.inspect_checkpoint tells: the checkpoints of a folder, or what one of them holds.

Which there are, ours and strangers', the names of a folder's files tell. What one holds stands in
its index and its manifest: no value is read but those asked for.
"""

import functools
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from absl import logging

import file_io
from checkpoints import folder, layout
from checkpoints.bundle import STRING
from checkpoints.lock import Hold, read_newest
from checkpoints.reader import OBJECT_GRAPH, Array, CheckpointReader, stored_tensors
from errors import CheckpointError, ToolError, first_few, nearest_names
from metagraph.description import as_numpy_dtype, json_value
from tools.command import Record
from tools.inspect_checkpoint import InspectConfig

_DATA = re.compile(r"\.data-\d{5}-of-\d{5}")
_SHARD_OF_V1 = re.compile(r"-\d{5}-of-(\d{5})")
_COMMITTED, _FOREIGN, _DAMAGED = "committed", "no manifest", "damaged"
_MAX_NAMED = 10
_MAX_HELD = 8  # Of those, a few may be damaged; a process may open only so many files.
EMPTY_NAME = "./"  # What a state file has to call the files `.index` and so on.


def inspect(config: InspectConfig) -> Record:
    """Looks into a checkpoint or a folder, and tells of it as `docs/json.md` has it.

    For people, a `value` is a text.
    """
    return read_newest([config.ckpt], functools.partial(_inspect, config))


def _inspect(config: InspectConfig, hold: Hold) -> Record:
    if not is_folder(config.ckpt):
        prefix = folder.find_variables(config.ckpt)
        hold(prefix)
        return _look_into(prefix, config)
    found = _list_checkpoints(config.ckpt, hold)
    if not (config.tensors or config.stats or config.filter is not None):
        return found
    if (newest := found["newest"]) is None:
        told = first_few(found["may_be_newest"], _MAX_NAMED)
        what = f"it holds several checkpoints; name one: {told}"
        what = what if told else "none of its checkpoints is whole"
        raise CheckpointError(f"--ckpt={config.ckpt}: {what}")
    logging.info("of %s the newest is read, %s", config.ckpt, newest)
    return _look_into(os.path.join(config.ckpt, newest), config)


# Which checkpoints there are in a folder.


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
    if file_io.exists(path + layout.INDEX_SUFFIX) or not file_io.is_folder(path):
        return False
    return not any(file_io.exists(os.path.join(path, name)) for name in layout.SAVED_MODEL_FILES)


def list_folder(path: str) -> list[Entry]:
    """The checkpoints of a folder by age, those of a run together and the newest last.

    CheckpointError where the folder cannot be read.
    """
    parts = _parts(folder.own_names(path))
    found = [base for base in parts if _is_checkpoint(path, base, parts)]
    return [_entry(path, b, parts[b]) for _, run in folder.runs_by_age(path, found) for b in run]


def named_entry(prefix: str) -> Entry:
    """The checkpoint at a prefix; CheckpointError where its folder cannot be read."""
    path, base = os.path.split(prefix)
    # A SavedModel without variables has no folder for them.
    is_there = folder.graph_path(prefix) is None or file_io.is_folder(path)
    names = file_io.names_in(path) if is_there else []
    return _entry(path, base, _parts(names).get(base, set()))


def _parts(names: Iterable[str]) -> dict[str, set[str]]:
    """Base name -> the suffixes of the files that a checkpoint of that name would have."""
    parts: dict[str, set[str]] = {}
    for name in names:
        base = layout.prefix_of(name)
        parts.setdefault(base, set()).add(name[len(base) :])
    return parts


def _is_checkpoint(path: str, base: str, parts: Mapping[str, set[str]]) -> bool:
    """Whether the files of a base name are a checkpoint, or what damage has left of one."""
    suffixes = parts[base]
    if layout.split_name(base + layout.MANIFEST_SUFFIX) is not None:  # One of ours.
        if layout.MANIFEST_SUFFIX in suffixes:
            return True
        if base + layout.PENDING_SUFFIX in parts:
            return False
    if layout.INDEX_SUFFIX in suffixes or any(map(_DATA.fullmatch, suffixes)):
        return True
    # Of the format V1. Any file may be called like a shard of it: its graph must be there as well.
    return layout.META_SUFFIX in suffixes and _entry(path, base, suffixes).has_values


def _entry(path: str, base: str, suffixes: Collection[str]) -> Entry:
    prefix = os.path.join(path, base)
    ours = layout.split_name(base + layout.MANIFEST_SUFFIX)
    has_file = "" in suffixes and not file_io.is_folder(prefix)
    has_index = layout.INDEX_SUFFIX in suffixes
    shards = [found[1] for suffix in suffixes if (found := _SHARD_OF_V1.fullmatch(suffix))]
    is_sharded_v1 = bool(shards) and not has_index and not has_file
    return Entry(
        name=base,
        prefix=prefix,
        files=tuple(sorted(prefix + suffix for suffix in suffixes)),
        step=ours[0] if ours else None,
        committed=ours is not None and layout.MANIFEST_SUFFIX in suffixes,
        graph=folder.graph_path(prefix),
        has_values=has_file or bool(shards) or has_index or any(map(_DATA.fullmatch, suffixes)),
        state_name=f"{base}-?????-of-{max(shards)}" if is_sharded_v1 else base or EMPTY_NAME,
    )


def _list_checkpoints(path: str, hold: Hold) -> Record:
    """Looks into a folder: of each checkpoint the index, the manifest and the files' sizes.

    The newest are held. What is deleted meanwhile is left out.
    """
    found = list_folder(path)
    for entry in found[: -_MAX_HELD - 1 : -1]:
        hold(entry.prefix)
    rows = {entry: _listed(entry) for entry in found}
    there = _parts(file_io.names_in(path))
    rows = {e: row for e, row in rows.items() if row["state"] != _DAMAGED or e.name in there}
    if not rows:
        raise CheckpointError(f"--ckpt={path}: it holds no checkpoint")
    whole = {e.name: e.state_name for e, row in rows.items() if row["state"] != _DAMAGED}
    newest = folder.newest_of(path, [*whole])
    is_clear = len(newest) == 1
    state, state_file = None, os.path.join(path, layout.STATE_FILE)
    if file_io.exists(state_file) and not file_io.is_folder(state_file):
        named = folder.named_checkpoint(state_file)
        is_named = named is not None and is_clear and whole[newest[0]] == (named or EMPTY_NAME)
        state = {"names": named, "right": is_named}
    committed = [row for row in rows.values() if row["state"] == _COMMITTED]
    best = folder.best_first(
        folder.Saved(r["step"], test_accuracy=r["test_accuracy"]) for r in committed
    )
    return {
        "folder": path,
        "checkpoints": [*rows.values()],
        "newest": newest[0] if is_clear else None,
        "may_be_newest": [] if is_clear else newest,
        "best": layout.checkpoint_name(best[0].step) if best else None,
        "state_file": state,
    }


def _listed(entry: Entry) -> Record:
    """What is seen of a checkpoint without reading its values, as JSON values."""
    sizes, changed = dict[str, int](), None
    for path in entry.files:
        with suppress(FileNotFoundError):  # Those that train delete older checkpoints.
            found = file_io.stat(path)
            sizes[os.path.basename(path)] = 0 if found.is_folder else found.size
            changed = max(changed or 0.0, found.changed)
    state, said, problem = (_COMMITTED if entry.committed else _FOREIGN), None, None
    try:
        said = layout.manifest_at(entry.prefix)
        for name, digest in said.files.items() if said else ():
            if (size := sizes.get(name, 0)) != digest.size:
                raise CheckpointError(f"{name} has {size} bytes, the manifest says {digest.size}")
        stored_tensors(CheckpointReader(entry.prefix))
    except CheckpointError as error:
        state, problem = _DAMAGED, str(error)
    return {
        "name": entry.name,
        "state": state,
        "step": layout.stem_and_step(entry.name)[1],
        "saved_at": said.saved_at if said else changed,
        "bytes": sum(sizes.values()),
        "has_graph": entry.graph is not None,
        "test_accuracy": said.test_accuracy if said else None,
        "problem": problem,
    }


# What one checkpoint holds.

_ROLES = ("model", "slot", "other")
_COUNTER = re.compile(r"(.*/)?(global_step|save_counter)(/.*)?")
# What tf.train.ExponentialMovingAverage and the moving averages of contrib keep of a variable.
_AVERAGE = re.compile(r"(.+)/(ExponentialMovingAverage|biased|local_step|avg)(_\d+)?")
_OBJECT_SLOT = "/.OPTIMIZER_SLOT/"
_FACTS = ("step", "saved_at", "environment", "config", "test_accuracy")
_MAX_TEXT = 200  # Characters of one text among values.
_MAX_VALUES = 1000  # Of a tensor, before only its ends are shown.
_WIDTH = 100
_BLOCK = 1 << 16  # Values at once: 512 KiB in float64, which stay in a processor's cache.


def _look_into(prefix: str, config: InspectConfig) -> Record:
    """The values that --tensor names; else all tensors, or those that --filter is found in.

    Of these, values are read for statistics alone. Raises ToolError where there is no such tensor.
    """
    with config.limit.over("reading the graph"):
        layout.verify_checkpoint(prefix, [layout.INDEX_SUFFIX])
        reader = CheckpointReader(prefix)
        graph, whole, tensors = _tensors(reader, config.max_meta_bytes)
    if config.tensors:
        keys = _keys_of(config.tensors, tensors, whole, prefix)
        values = [_value(reader, name, key, config) for name, key in keys.items()]
        return {"checkpoint": prefix, "values": values}
    shown = [tensor for tensor in tensors if re.search(config.filter or "", tensor["key"])]
    if config.filter is not None and not shown:
        raise ToolError(
            f"--filter={config.filter} matches none of the {len(tensors)} tensors of {prefix}"
        )
    if config.stats:
        for tensor in shown:
            tensor["stats"] = statistics(read_tensor(reader, tensor["key"]))._asdict()
    said = layout.manifest_at(prefix)
    facts = {name: getattr(said, name) for name in _FACTS} if said else None
    totals = {role: _total([t for t in shown if t["role"] == role]) for role in _ROLES}
    return {
        "checkpoint": prefix,
        "format": reader.version,
        "files": [
            {"name": os.path.basename(file), "bytes": size}
            for file, size in zip(reader.files, reader.sizes, strict=True)
        ],
        "graph": graph,
        # A NaN of a manifest, which JSON has not, becomes a text.
        "manifest": json.loads(json.dumps(facts), parse_constant=str),
        "tensors": shown,
        "totals": {**totals, "all": _total(shown)},
    }


def _tensors(
    reader: CheckpointReader, max_meta_bytes: int
) -> tuple[str | None, dict[str, str], list[dict[str, Any]]]:
    """The file of the graph, the keys of variables that are saved whole, all tensors by rising key.

    Where the graph is damaged a warning says so, and names alone tell what the tensors are.
    """
    # Imported where they are wanted: they read graphs, and a list takes a third less without.
    from metagraph.opening import open_model
    from metagraph.variables import VARIABLE_OPS, checkpoint_keys, slot_names

    meta, places, path = None, {}, folder.graph_path(reader.prefix)
    try:
        if path is not None:
            meta = open_model(path, max_meta_bytes)
            names = [name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS]
            places = checkpoint_keys(meta, names, reader.names)
        slots = slot_names(reader.shapes, meta)
    except CheckpointError as error:
        logging.warning("read without its graph: %s", error)
        meta, places, slots = None, {}, slot_names(reader.shapes)
    variables: dict[str, list[str]] = {}
    for name, place in places.items():
        variables.setdefault(place.key, []).append(name)
    stored, tensors = stored_tensors(reader), []
    for key, shape in sorted(reader.shapes.items()):
        values, dtype = math.prod(shape), reader.dtypes[key]
        tensors.append(
            {
                "key": key,
                "dtype": dtype.name,
                "shape": list(shape),
                "values": values,
                "bytes": None if dtype == STRING else values * dtype.size,
                "disk_bytes": stored[key].disk_bytes,
                "role": "slot" if key in slots else _role_of(key, reader),
                "path": _path_of(key),
                "slices": stored[key].slices,
                "variables": variables.get(key, []),
            }
        )
    whole = {name: place.key for name, place in places.items() if place.part is None}
    return meta.path if meta else None, whole, tensors


def _role_of(key: str, reader: CheckpointReader) -> str:
    """Whether a tensor that is no slot is of the `model`, or `other`: no parameter.

    Such are counters and other single integers, flags and texts, and moving averages of what is
    there itself.
    """
    dtype = reader.dtypes[key]
    is_single = not reader.shapes[key] and not (dtype.is_floating or dtype.is_complex)
    average = _AVERAGE.fullmatch(key)
    if key == OBJECT_GRAPH or is_single or dtype == STRING or _COUNTER.fullmatch(key):
        return "other"
    return "other" if average and average[1] in reader.shapes else "model"


def _path_of(key: str) -> str:
    """The path of objects that a key stands for: `net/kernel`, `net/kernel (optimizer/m)`.

    A key that is none of an object stays as it is. Format of such a key:
    `tensorflow/python/trackable/trackable_utils.py`.
    """
    if not key.endswith(layout.OBJECT_SUFFIX):
        return key
    variable, slot, of = key.removesuffix(layout.OBJECT_SUFFIX).partition(_OBJECT_SLOT)
    path = f"{variable} ({of})" if slot else variable
    return path.replace(".S", "/").replace("..", ".")


def _total(tensors: Sequence[Record]) -> Record:
    return {
        "tensors": len(tensors),
        "values": sum(t["values"] for t in tensors),
        "bytes": sum(t["disk_bytes"] or 0 if t["bytes"] is None else t["bytes"] for t in tensors),
        "disk_bytes": sum(t["disk_bytes"] or 0 for t in tensors),
    }


def _keys_of(
    names: Sequence[str], tensors: Sequence[Record], whole: Mapping[str, str], prefix: str
) -> dict[str, str]:
    """Name -> key, of keys themselves, whole variables of the graph, and paths of objects."""
    own = {tensor["key"]: tensor["key"] for tensor in tensors}
    known = {tensor["path"]: tensor["key"] for tensor in tensors}
    known |= {name: key for name, key in whole.items() if key in own} | own
    found = {}
    for name in names:
        plain = name if name in known else name.removesuffix(":0")
        if plain not in known:
            near = ", ".join(nearest_names(plain, known))
            hint = f"the nearest are {near}" if near else "without --tensor all are listed"
            raise ToolError(f"{prefix} has no tensor {name!r}; {hint}")
        found[name] = known[plain]
    return found


def _value(reader: CheckpointReader, name: str, key: str, config: InspectConfig) -> Record:
    array = read_tensor(reader, key)
    shown: dict[str, Any] = {
        "threshold": _MAX_VALUES,
        "max_line_width": _WIDTH,
        "formatter": {"object": _text},
    }
    return {
        "name": name,
        "key": key,
        "dtype": reader.dtypes[key].name,
        "shape": list(array.shape),
        "value": json_value(array) if config.format == "json" else np.array2string(array, **shown),
        **({"stats": statistics(array)._asdict()} if config.stats else {}),
    }


def read_tensor(reader: CheckpointReader, key: str) -> Array:
    """The value of a tensor, in a dtype that NumPy itself has; CheckpointError where damaged."""
    reader.check_sizes([key])
    return as_numpy_dtype(reader.read(key))


class Statistics(NamedTuple):
    """Of the finite values of a tensor; None where it has none, or is of a kind that has none.

    The least and the greatest are exact; mean and standard deviation (divided by their number) are
    None where they, or their sums, are beyond float64. Also how many values are NaN, and infinite.
    """

    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    nan: int = 0
    inf: int = 0


def statistics(array: Array) -> Statistics:
    """The statistics of an array; of texts there are none, of complex numbers the counts alone."""
    if array.dtype.kind == "O":
        return Statistics()
    flat = array.reshape(-1)
    is_finite = np.isfinite(flat)
    finite = flat if is_finite.all() else flat[is_finite]
    inf = int(np.isinf(flat).sum())
    nan = flat.size - finite.size - inf
    if array.dtype.kind == "c" or not finite.size:
        return Statistics(nan=nan, inf=inf)
    blocks = (finite[start : start + _BLOCK] for start in range(0, finite.size, _BLOCK))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(finite.mean(dtype=np.float64))
        squares = sum(float(np.square(b.astype(np.float64) - mean).sum()) for b in blocks)
    least, greatest = finite.min().item() + 0, finite.max().item() + 0  # Of a flag, a number.
    both = (mean, math.sqrt(squares / finite.size))
    known_mean, known_std = (value if math.isfinite(value) else None for value in both)
    return Statistics(least, greatest, known_mean, known_std, nan, inf)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    more = f"... ({len(text)} characters)" if len(text) > _MAX_TEXT else ""
    return repr(text[:_MAX_TEXT] + more)
