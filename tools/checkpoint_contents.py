"""What a checkpoint holds, from its index and its manifest: no value is read but those asked for.

Tensors are told by what they are for: the model, its optimizer, or something beside them.
"""

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from checkpoints import manifest, naming
from checkpoints.manifest import Manifest
from checkpoints.reader import Array, CheckpointReader, StoredTensor, stored_tensors
from errors import CheckpointError, ToolError, nearest_names
from metagraph.meta import MetaGraphFile
from metagraph.opening import SAVED_MODEL_VARIABLES, open_model
from metagraph.parsing import SAVED_MODEL_FILES, parse_message
from metagraph.slots import slot_names
from metagraph.variables import (
    OBJECT_SUFFIX,
    VARIABLE_OPS,
    Stored,
    checkpoint_keys,
    read_values,
    variable_of,
)

# The names in an object-based checkpoint, as `tf.train.Checkpoint` and a SavedModel write it.
#
# A key there is a path through objects; the checkpoint also holds a graph of these objects, which
# tells what each variable is called.
#
# Formats: `tensorflow/core/protobuf/trackable_object_graph.proto`, and for the escapes in a key
# `tensorflow/python/trackable/trackable_utils.py`.

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SLOT = "/.OPTIMIZER_SLOT/"
_MAX_BYTES = 16 << 20  # Some kilobytes are usual.


def path_of(key: str) -> str:
    """The path of objects that a key stands for: `net/kernel`, `net/kernel (optimizer/m)`.

    A key that is none of an object stays as it is.
    """
    if not key.endswith(OBJECT_SUFFIX):
        return key
    variable, slot, of = key.removesuffix(OBJECT_SUFFIX).partition(_SLOT)
    path = f"{variable} ({of})" if slot else variable
    return path.replace(".S", "/").replace("..", ".")


def variable_names(reader: CheckpointReader, stored: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Key -> what its variable is called, by the graph of objects; empty where there is none.

    It is the one tensor that is read for a listing, and only where it is of a usual size.
    """
    if OBJECT_GRAPH not in reader.shapes or reader.shapes[OBJECT_GRAPH]:
        return {}
    if (stored[OBJECT_GRAPH].disk_bytes or 0) > _MAX_BYTES:
        return {}
    try:
        content = reader.read(OBJECT_GRAPH).item()
        graph = parse_message(TrackableObjectGraph(), content, reader.prefix)
    except (CheckpointError, TypeError):  # Nothing else depends on it.
        return {}
    attributes = (attribute for node in graph.nodes for attribute in node.attributes)
    return {a.checkpoint_key: a.full_name for a in attributes if a.full_name}


# What the tensors of a checkpoint are for: the model, its optimizer, or something beside them.

MODEL, SLOT, OTHER = "model", "slot", "other"
ROLES = (MODEL, SLOT, OTHER)
_COUNTER = re.compile(r"(.*/)?(global_step|save_counter)(/.*)?")
# What tf.train.ExponentialMovingAverage and the moving averages of contrib keep of a variable.
_AVERAGE = re.compile(r"(.+)/(ExponentialMovingAverage|biased|local_step|avg)(_\d+)?")


def role_of(key: str, reader: CheckpointReader, slots: Collection[str]) -> str:
    """One of `ROLES`.

    `other` is what is no parameter: counters and other single integers, flags and texts, and moving
    averages of what is there itself.

    Args:
      key: of a tensor.
      reader: of its checkpoint.
      slots: the keys that only the optimizer needs.
    """
    if key in slots:
        return SLOT
    dtype: tf.DType = reader.dtypes[key]
    is_single = not reader.shapes[key] and not (dtype.is_floating or dtype.is_complex)
    average = _AVERAGE.fullmatch(key)
    if key == OBJECT_GRAPH or is_single or dtype == tf.string or _COUNTER.fullmatch(key):
        return OTHER
    return OTHER if average and average[1] in reader.shapes else MODEL


# What a checkpoint holds, from its index and its manifest: no value is read.


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of a checkpoint.

    Attributes:
      key: its name there.
      dtype: its TensorFlow name, such as `float32`.
      shape: of the whole, where it was saved in slices.
      role: as `role_of` gives it.
      stored: how it lies in the files.
      path: of objects, where the checkpoint is object-based; else the key.
      variables: those that are restored from it, by the graph or by the graph of objects; none
        where there is neither.
      bytes: in memory; None of texts, which may be of any length.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    role: str
    stored: StoredTensor
    path: str
    variables: tuple[str, ...]
    bytes: int | None

    @property
    def values(self) -> int:
        """How many it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Contents:
    """A checkpoint, looked into.

    Attributes:
      reader: of its tensors.
      meta: its graph; None where there is none, or none that can be read.
      places: variable of the graph -> place in the checkpoint.
      manifest: what its writer said of it; None where it has none.
      tensors: by rising key.
    """

    reader: CheckpointReader
    meta: MetaGraphFile | None
    places: Mapping[str, Stored]
    manifest: Manifest | None
    tensors: Sequence[TensorEntry]


def read_contents(prefix: str, max_meta_bytes: int) -> Contents:
    """Looks into the checkpoint at a prefix.

    Of a graph that is damaged a warning says so, and the names of the tensors have to tell what
    they are.

    Args:
      prefix: of its files.
      max_meta_bytes: the size of the largest file of a graph that is read.

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
    variables = {key: [name] for key, name in variable_names(reader, stored).items()}
    for variable, place in places.items():
        of_key = variables.setdefault(place.key, [])
        of_key += [] if variable in of_key else [variable]
    tensors = [
        TensorEntry(
            key=key,
            dtype=reader.dtypes[key].name,
            shape=tuple(shape),
            role=role_of(key, reader, slots),
            stored=_with_slices(stored[key], variables.get(key, []), places),
            path=path_of(key),
            variables=tuple(variables.get(key, [])),
            bytes=_bytes(reader, key),
        )
        for key, shape in sorted(reader.shapes.items())
    ]
    return Contents(reader, meta, places, said, tensors)


def _bytes(reader: CheckpointReader, key: str) -> int | None:
    dtype = reader.dtypes[key]
    return None if dtype == tf.string else math.prod(reader.shapes[key]) * int(dtype.size)


def _with_slices(
    stored: StoredTensor, variables: Sequence[str], places: Mapping[str, Stored]
) -> StoredTensor:
    """The same; of slices that no header tells of, the graph may."""
    parts = [name for name in variables if name in places and places[name].part is not None]
    return stored if stored.slices is not None or not parts else stored._replace(slices=len(parts))


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

    Returns:
      None where there is none.
    """
    paths = [prefix + naming.META_SUFFIX]
    folder = prefix.removesuffix(SAVED_MODEL_VARIABLES)
    if folder != prefix:
        paths += [os.path.join(folder, name) for name in SAVED_MODEL_FILES]
    return next((path for path in paths if tf.io.gfile.exists(path)), None)


# The tensors that --tensor names, read by themselves.

_FIRST_OUTPUT = ":0"


class Named(NamedTuple):
    """What a name means in a checkpoint.

    Attributes:
      name: as the user wrote it.
      key: of the tensor.
      variable: of the graph, where it is that, and not all of the tensor of this key.
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
        is_all = place.part is None and not place.reshaped
        return Named(name, place.key, None if is_all else plain)
    keys = {entry.path: entry.key for entry in contents.tensors}
    for entry in contents.tensors:
        keys |= {variable: entry.key for variable in entry.variables if variable not in keys}
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
