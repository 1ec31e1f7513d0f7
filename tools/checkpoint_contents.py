"""What a checkpoint holds, from its index and its manifest: no value is read but those asked for.

Tensors are told by what they are for: the model, its optimizer, or something beside them.
"""

import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from checkpoints import manifest, naming
from checkpoints.manifest import Manifest
from checkpoints.reader import Array, CheckpointReader, StoredTensor, stored_tensors
from errors import CheckpointError, ToolError, nearest_names
from metagraph.casting import json_value
from metagraph.meta import MetaGraphFile
from metagraph.opening import SAVED_MODEL_VARIABLES, open_model
from metagraph.parsing import SAVED_MODEL_FILES, parse_message
from metagraph.variables import (
    OBJECT_SUFFIX,
    VARIABLE_OPS,
    Stored,
    checkpoint_keys,
    read_values,
    slot_names,
    variable_of,
)
from tools.command import Record
from tools.inspect_checkpoint import InspectConfig

MODEL, SLOT, OTHER = "model", "slot", "other"
ROLES = (MODEL, SLOT, OTHER)
_COUNTER = re.compile(r"(.*/)?(global_step|save_counter)(/.*)?")
# What tf.train.ExponentialMovingAverage and the moving averages of contrib keep of a variable.
_AVERAGE = re.compile(r"(.+)/(ExponentialMovingAverage|biased|local_step|avg)(_\d+)?")
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_OBJECT_SLOT = "/.OPTIMIZER_SLOT/"
_MAX_OBJECT_BYTES = 16 << 20  # Of the graph of objects; some kilobytes are usual.
_FIRST_OUTPUT = ":0"
_FACTS = ("step", "saved_at", "environment", "config", "test_accuracy")
_MAX_TEXT = 200  # Characters of one text among values.
_MAX_VALUES = 1000  # Of a tensor, before only its ends are shown.
_WIDTH = 100
_BLOCK = 1 << 16  # Values at once: 512 KiB in float64, which stay in a processor's cache.


@dataclass(frozen=True, eq=False)
class Contents:
    """A checkpoint, looked into.

    Its graph is None where there is none, or none that can be read; `places` are those of the
    graph's variables in the checkpoint. The tensors are by rising key, each as
    `tools.checkpoint_inspection.inspect` gives it.
    """

    reader: CheckpointReader
    meta: MetaGraphFile | None
    places: Mapping[str, Stored]
    manifest: Manifest | None
    tensors: Sequence[dict[str, Any]]


def read_contents(prefix: str, max_meta_bytes: int) -> Contents:
    """Looks into the checkpoint at a prefix.

    Of a graph that is damaged a warning says so, and the names of the tensors have to tell what
    they are.

    Raises:
      CheckpointError: a file is missing or damaged.
    """
    folder, name = os.path.split(prefix)
    named = naming.split_name(name + naming.INDEX_SUFFIX)
    manifest.verify_checkpoint(prefix, [naming.INDEX_SUFFIX])
    said = manifest.read(folder, named[0]) if named else None
    reader = CheckpointReader(prefix)
    stored = stored_tensors(reader)
    meta, places, slots = _told_by_graph(reader, max_meta_bytes)
    variables = {key: [name] for key, name in _variable_names(reader, stored).items()}
    for variable, place in places.items():
        of_key = variables.setdefault(place.key, [])
        of_key += [] if variable in of_key else [variable]
    tensors = []
    for key, shape in sorted(reader.shapes.items()):
        values, dtype, own = math.prod(shape), reader.dtypes[key], variables.get(key, [])
        slices = stored[key].slices
        if slices is None:  # Of slices that no header tells of, the graph may.
            slices = sum(n in places and places[n].part is not None for n in own) or None
        tensors.append(
            {
                "key": key,
                "dtype": dtype.name,
                "shape": list(shape),
                "values": values,
                "bytes": None if dtype == tf.string else values * int(dtype.size),
                "disk_bytes": stored[key].disk_bytes,
                "role": _role_of(key, reader, slots),
                "path": _path_of(key),
                "slices": slices,
                "files": [os.path.basename(file) for file in stored[key].files],
                "variables": own,
            }
        )
    return Contents(reader, meta, places, said, tensors)


def _told_by_graph(
    reader: CheckpointReader, max_bytes: int
) -> tuple[MetaGraphFile | None, Mapping[str, Stored], frozenset[str]]:
    """The graph of a checkpoint, where its variables are, and the optimizer's keys."""
    path = graph_path(reader.prefix)
    if path is not None:
        try:
            meta = open_model(path, max_bytes)
            names = [name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS]
            places = checkpoint_keys(meta, names, reader.shapes)
            return meta, places, slot_names(reader.shapes, meta)
        except CheckpointError as error:
            logging.warning("read without its graph: %s", error)
    return None, {}, slot_names(reader.shapes)


def graph_path(prefix: str) -> str | None:
    """The file of a checkpoint's graph: its `.meta`, or that of the SavedModel that it is part of.

    None where there is none.
    """
    paths = [prefix + naming.META_SUFFIX]
    folder = prefix.removesuffix(SAVED_MODEL_VARIABLES)
    if folder != prefix:
        paths += [os.path.join(folder, name) for name in SAVED_MODEL_FILES]
    return next((path for path in paths if tf.io.gfile.exists(path)), None)


def _role_of(key: str, reader: CheckpointReader, slots: Collection[str]) -> str:
    """One of `ROLES`.

    `other` is what is no parameter: counters and other single integers, flags and texts, and moving
    averages of what is there itself.
    """
    if key in slots:
        return SLOT
    dtype: tf.DType = reader.dtypes[key]
    is_single = not reader.shapes[key] and not (dtype.is_floating or dtype.is_complex)
    average = _AVERAGE.fullmatch(key)
    if key == _OBJECT_GRAPH or is_single or dtype == tf.string or _COUNTER.fullmatch(key):
        return OTHER
    return OTHER if average and average[1] in reader.shapes else MODEL


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


def _variable_names(reader: CheckpointReader, stored: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Key -> what its variable is called, by the graph of objects; empty where there is none.

    It is the one tensor that is read for a listing, and only where it is of a usual size.

    Format: `tensorflow/core/protobuf/trackable_object_graph.proto`.
    """
    if reader.shapes.get(_OBJECT_GRAPH) != []:
        return {}
    if (stored[_OBJECT_GRAPH].disk_bytes or 0) > _MAX_OBJECT_BYTES:
        return {}
    try:
        content = reader.read(_OBJECT_GRAPH).item()
        graph = parse_message(TrackableObjectGraph(), content, reader.prefix)
    except (CheckpointError, TypeError):  # Nothing else depends on it.
        return {}
    attributes = (attribute for node in graph.nodes for attribute in node.attributes)
    return {a.checkpoint_key: a.full_name for a in attributes if a.full_name}


def values_record(contents: Contents, config: InspectConfig) -> Record:
    """The tensors that are asked for, and of no others; see `tools.checkpoint_inspection.inspect`.

    Raises:
      ToolError: one is not there.
      CheckpointError: one is damaged.
    """
    asked = [find_named(contents, name) for name in config.tensors]  # Before any is read.
    values = []
    for named in asked:
        array = read_named(contents, named)
        values.append(
            {
                **named._asdict(),
                "dtype": contents.reader.dtypes[named.key].name,
                "shape": list(array.shape),
                "value": json_value(array) if config.format == "json" else _value_text(array),
                **({"stats": statistics(array)._asdict()} if config.stats else {}),
            }
        )
    return {"checkpoint": contents.reader.prefix, "values": values}


def contents_record(contents: Contents, config: InspectConfig) -> Record:
    """All tensors, or those that the filter is found in; values are read for statistics alone.

    Raises:
      ToolError: the filter is found in none.
      CheckpointError: one is damaged.
    """
    reader, said = contents.reader, contents.manifest
    tensors = [t for t in contents.tensors if re.search(config.filter or "", t["key"])]
    if config.filter is not None and not tensors:
        raise ToolError(
            f"--filter={config.filter} matches none of the {len(contents.tensors)} tensors of "
            f"{reader.prefix}"
        )
    if config.stats:
        for tensor in tensors:
            tensor["stats"] = statistics(read_tensor(contents, tensor["key"]))._asdict()
    # A NaN of a manifest, which JSON has not, becomes a text.
    facts = {name: getattr(said, name) for name in _FACTS} if said else None
    return {
        "checkpoint": reader.prefix,
        "format": reader.version,
        "files": [
            {"name": os.path.basename(file), "bytes": size}
            for file, size in zip(reader.files, reader.sizes, strict=True)
        ],
        "graph": contents.meta.path if contents.meta else None,
        "manifest": json.loads(json.dumps(facts), parse_constant=str),
        "tensors": tensors,
        "totals": {
            **{role: _total([t for t in tensors if t["role"] == role]) for role in ROLES},
            "all": _total(tensors),
        },
    }


def _total(tensors: Sequence[Mapping[str, Any]]) -> Record:
    return {
        "tensors": len(tensors),
        "values": sum(t["values"] for t in tensors),
        "bytes": sum(t["disk_bytes"] or 0 if t["bytes"] is None else t["bytes"] for t in tensors),
        "disk_bytes": sum(t["disk_bytes"] or 0 for t in tensors),
    }


class Named(NamedTuple):
    """What a name means in a checkpoint: the key of a tensor.

    Also the variable of the graph, where it is that, and not all of the tensor of this key.
    """

    name: str
    key: str
    variable: str | None = None


def find_named(contents: Contents, name: str) -> Named:
    """The tensor that a name means.

    The first of these that there is: a key of the checkpoint; a key without `:0`; a variable of
    the graph; the path or the name of one of an object-based checkpoint.

    Raises:
      ToolError: there is none; the message offers the nearest names.
    """
    plain = name.removesuffix(_FIRST_OUTPUT)
    held, places = contents.reader.shapes, contents.places
    for key in (name, plain):
        if key in held:
            return Named(name, key)
    if plain in places and places[plain].key in held:
        place = places[plain]
        is_all = place.part is None
        return Named(name, place.key, None if is_all else plain)
    keys = {tensor["path"]: tensor["key"] for tensor in contents.tensors}
    for tensor in contents.tensors:
        for variable in tensor["variables"]:
            keys.setdefault(variable, tensor["key"])
    if plain in keys:
        return Named(name, keys[plain])
    near = nearest_names(plain, keys)
    hint = f"the nearest are {', '.join(near)}" if near else "without --tensor all are listed"
    raise ToolError(f"{contents.reader.prefix} has no tensor {name!r}; {hint}")


def read_named(contents: Contents, named: Named) -> Array:
    """Its value, and of no other tensor.

    Raises:
      CheckpointError: it is damaged, or does not fit its variable.
    """
    if named.variable is None or contents.meta is None:
        return read_tensor(contents, named.key)
    node = contents.meta.nodes[named.variable]
    return plain_array(read_values(contents.meta, [variable_of(contents.meta, node)])[node.name])


def read_tensor(contents: Contents, key: str) -> Array:
    """The value of a tensor, in a dtype that NumPy itself has.

    Raises:
      CheckpointError: it is damaged.
    """
    contents.reader.check_sizes([key])
    return plain_array(contents.reader.read(key))


def plain_array(array: Array) -> Array:
    """The same values in a dtype of NumPy's own: bfloat16 as float32, int4 as int8, and so on."""
    if array.dtype.kind != "V":
        return array
    if array.dtype.names:  # A quantized integer is a structure of one field.
        field: Array = array[array.dtype.names[0]]
        return field
    return array.astype(np.int8 if tf.as_dtype(array.dtype).is_integer else np.float32)


class Statistics(NamedTuple):
    """Of the finite values of a tensor; None where it has none, or is of a kind that has none.

    The least and the greatest are exact, the standard deviation is that of these very values
    (divided by their number). Also how many are NaN, and infinite.
    """

    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    nan: int = 0
    inf: int = 0


def statistics(array: Array) -> Statistics:
    """The statistics of an array, a block at a time in float64.

    Texts have none; of complex numbers only NaN and infinities are counted. Mean and squares of two
    blocks become one as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances" (1979); where they are beyond float64, they are None.
    """
    if array.dtype.kind == "O":
        return Statistics()
    flat = array.reshape(-1)
    least, greatest, mean, squares = math.inf, -math.inf, 0.0, 0.0
    count = nan = inf = 0
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        is_infinite = np.isinf(block)
        nan += int((np.isnan(block) & ~is_infinite).sum())  # A complex number may be both.
        inf += int(is_infinite.sum())
        exact = block[np.isfinite(block)]
        if not exact.size or array.dtype.kind == "c":
            continue
        least = min(least, exact.min().item() + 0)  # Of a flag, a number.
        greatest = max(greatest, exact.max().item() + 0)
        values = exact.astype(np.float64)
        total = count + values.size
        with np.errstate(over="ignore", invalid="ignore"):
            own = values.mean()
            values -= own
            apart = own - mean
            np.square(values, out=values)  # Not a dot product, whose threads wait for each other.
            squares += values.sum() + apart * apart * (count * values.size / total)
            mean += apart * (values.size / total)
        count = total
    if not count:
        return Statistics(nan=nan, inf=inf)
    std = float(np.sqrt(squares / count))
    return Statistics(
        least,
        greatest,
        float(mean) if math.isfinite(mean) else None,
        std if math.isfinite(std) else None,
        nan,
        inf,
    )


def _value_text(array: Array) -> str:
    """A value as NumPy prints it: of a large one, only the ends of each dimension."""
    if array.dtype.kind == "O":
        array = np.vectorize(_text, otypes=[object])(array) if array.size else array
    return np.array2string(array, threshold=_MAX_VALUES, max_line_width=_WIDTH)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}... ({len(text)} characters)"
