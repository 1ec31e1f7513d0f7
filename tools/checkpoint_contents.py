"""What a checkpoint holds, from its index and its manifest: no value is read but those asked for.

Tensors are told by what they are for: the model, its optimizer, or something beside them.
"""

import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from checkpoints import naming
from checkpoints.bundle import STRING
from checkpoints.folder import graph_path
from checkpoints.naming import OBJECT_SUFFIX
from checkpoints.reader import OBJECT_GRAPH, Array, CheckpointReader, stored_tensors
from errors import CheckpointError, ToolError, nearest_names
from metagraph.description import as_numpy_dtype, json_value
from metagraph.meta import MetaGraphFile
from metagraph.opening import open_model
from metagraph.variables import VARIABLE_OPS, Stored, checkpoint_keys, slot_names
from tools.command import Record
from tools.inspect_checkpoint import InspectConfig

ROLES = ("model", "slot", "other")
_COUNTER = re.compile(r"(.*/)?(global_step|save_counter)(/.*)?")
# What tf.train.ExponentialMovingAverage and the moving averages of contrib keep of a variable.
_AVERAGE = re.compile(r"(.+)/(ExponentialMovingAverage|biased|local_step|avg)(_\d+)?")
_OBJECT_SLOT = "/.OPTIMIZER_SLOT/"
_FACTS = ("step", "saved_at", "environment", "config", "test_accuracy")
_MAX_TEXT = 200  # Characters of one text among values.
_MAX_VALUES = 1000  # Of a tensor, before only its ends are shown.
_WIDTH = 100
_BLOCK = 1 << 16  # Values at once: 512 KiB in float64, which stay in a processor's cache.


def look_into(prefix: str, config: InspectConfig) -> Record:
    """What is asked for of the checkpoint at a prefix.

    That is the values that --tensor names; else all tensors, or those that --filter is found in, of
    which values are read for statistics alone. Where its graph is damaged a warning says so, and
    names alone tell what the tensors are. Raises ToolError where there is no such tensor.
    """
    with config.limit.over("reading the graph"):
        naming.verify_checkpoint(prefix, [naming.INDEX_SUFFIX])
        reader = CheckpointReader(prefix)
        meta, places, slots = _told_by_graph(reader, config.max_meta_bytes)
    tensors = _tensors(reader, places, slots)
    if config.tensors:
        keys = _keys_of(config.tensors, tensors, places, prefix)
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
    said = naming.manifest_at(prefix)
    facts = {name: getattr(said, name) for name in _FACTS} if said else None
    totals = {role: _total([t for t in shown if t["role"] == role]) for role in ROLES}
    return {
        "checkpoint": prefix,
        "format": reader.version,
        "files": [
            {"name": os.path.basename(file), "bytes": size}
            for file, size in zip(reader.files, reader.sizes, strict=True)
        ],
        "graph": meta.path if meta else None,
        # A NaN of a manifest, which JSON has not, becomes a text.
        "manifest": json.loads(json.dumps(facts), parse_constant=str),
        "tensors": shown,
        "totals": {**totals, "all": _total(shown)},
    }


def _tensors(
    reader: CheckpointReader, places: Mapping[str, Stored], slots: Collection[str]
) -> list[dict[str, Any]]:
    """All tensors by rising key, each as `inspect` gives it."""
    stored = stored_tensors(reader)
    variables: dict[str, list[str]] = {}
    for variable, place in places.items():
        variables.setdefault(place.key, []).append(variable)
    tensors = []
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
                "role": _role_of(key, reader, slots),
                "path": _path_of(key),
                "slices": stored[key].slices,
                "variables": variables.get(key, []),
            }
        )
    return tensors


def _told_by_graph(
    reader: CheckpointReader, max_bytes: int
) -> tuple[MetaGraphFile | None, Mapping[str, Stored], frozenset[str]]:
    """The graph of a checkpoint, where its variables are, and the optimizer's keys."""
    path = graph_path(reader.prefix)
    if path is not None:
        try:
            meta = open_model(path, max_bytes)
            names = [name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS]
            places = checkpoint_keys(meta, names, reader.names)
            return meta, places, slot_names(reader.shapes, meta)
        except CheckpointError as error:
            logging.warning("read without its graph: %s", error)
    return None, {}, slot_names(reader.shapes)


def _role_of(key: str, reader: CheckpointReader, slots: Collection[str]) -> str:
    """One of `ROLES`.

    `other` is what is no parameter: counters and other single integers, flags and texts, and moving
    averages of what is there itself.
    """
    if key in slots:
        return "slot"
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
    if not key.endswith(OBJECT_SUFFIX):
        return key
    variable, slot, of = key.removesuffix(OBJECT_SUFFIX).partition(_OBJECT_SLOT)
    path = f"{variable} ({of})" if slot else variable
    return path.replace(".S", "/").replace("..", ".")


def _total(tensors: Sequence[Mapping[str, Any]]) -> Record:
    return {
        "tensors": len(tensors),
        "values": sum(t["values"] for t in tensors),
        "bytes": sum(t["disk_bytes"] or 0 if t["bytes"] is None else t["bytes"] for t in tensors),
        "disk_bytes": sum(t["disk_bytes"] or 0 for t in tensors),
    }


def _keys_of(
    names: Sequence[str], tensors: Sequence[Record], places: Mapping[str, Stored], prefix: str
) -> dict[str, str]:
    """Name -> key, of keys themselves, whole variables of the graph, and paths of objects."""
    own = {tensor["key"]: tensor["key"] for tensor in tensors}
    whole = {v: p.key for v, p in places.items() if p.part is None and p.key in own}
    known = {tensor["path"]: tensor["key"] for tensor in tensors} | whole | own
    found = {}
    for name in names:
        plain = name if name in known else name.removesuffix(":0")
        if plain not in known:
            near = nearest_names(plain, known)
            hint = (
                f"the nearest are {', '.join(near)}" if near else "without --tensor all are listed"
            )
            raise ToolError(f"{prefix} has no tensor {name!r}; {hint}")
        found[name] = known[plain]
    return found


def _value(reader: CheckpointReader, name: str, key: str, config: InspectConfig) -> Record:
    array = read_tensor(reader, key)
    return {
        "name": name,
        "key": key,
        "dtype": reader.dtypes[key].name,
        "shape": list(array.shape),
        "value": json_value(array) if config.format == "json" else _value_text(array),
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
    count, inf = int(is_finite.sum()), int(np.isinf(flat).sum())
    nan = flat.size - count - inf
    if array.dtype.kind == "c" or not count:
        return Statistics(nan=nan, inf=inf)
    flat = flat if count == flat.size else flat[is_finite]
    blocks = (flat[start : start + _BLOCK] for start in range(0, count, _BLOCK))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(flat.mean(dtype=np.float64))
        squares = sum(float(np.square(b.astype(np.float64) - mean).sum()) for b in blocks)
    least, greatest = flat.min().item() + 0, flat.max().item() + 0  # Of a flag, a number.
    both = (mean, math.sqrt(squares / count))
    known_mean, known_std = (value if math.isfinite(value) else None for value in both)
    return Statistics(least, greatest, known_mean, known_std, nan, inf)


def _value_text(array: Array) -> str:
    """A value as NumPy prints it: of a large one, only the ends of each dimension."""
    return np.array2string(
        array, threshold=_MAX_VALUES, max_line_width=_WIDTH, formatter={"object": _text}
    )


def _text(value: Any) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    more = f"... ({len(text)} characters)" if len(text) > _MAX_TEXT else ""
    return repr(text[:_MAX_TEXT] + more)
