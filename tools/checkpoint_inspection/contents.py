"""What a checkpoint holds, from its index and its manifest: no value is read."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf
from absl import logging

from checkpoints import manifest, naming
from checkpoints.errors import CheckpointError
from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.loading.graph_files import SAVED_MODEL_FILES
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_files import open_model
from checkpoints.loading.saver_mapping import Stored, checkpoint_keys
from checkpoints.loading.slots import slot_names
from checkpoints.loading.stored_tensors import StoredTensor, stored_tensors
from checkpoints.loading.variable_files import SAVED_MODEL_VARIABLES
from checkpoints.loading.variable_values import VARIABLE_OPS
from checkpoints.manifest import Manifest
from tools.checkpoint_inspection.object_names import path_of, variable_names
from tools.checkpoint_inspection.roles import role_of


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
