"""Opens the model that a path stands for, in whichever of its files or folders that is.

A path is a `.meta` file, the prefix of a checkpoint or another of its files, a frozen graph, a
SavedModel, or a folder that holds one of them. The state file `checkpoint` is never trusted: at
most, it chooses among the files that are there.

Formats: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/framework/graph.proto`.
"""

import os
from dataclasses import replace

import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints import folder, naming
from checkpoints.bounded_file import read_bounded
from checkpoints.errors import CheckpointError, first_few
from checkpoints.folder import names_in
from checkpoints.loading.graph_files import (
    GRAPH_SUFFIXES,
    SAVED_MODEL_FILES,
    parse_graph_file,
    serving_graph,
)
from checkpoints.loading.meta_graph_file import MetaGraphFile, read_meta_graph
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES, MAX_META_FLAG
from checkpoints.loading.nearby import no_graph, nothing_in
from checkpoints.loading.state_file import named_checkpoint
from checkpoints.loading.variable_files import (
    SAVED_MODEL_VARIABLES,
    find_variables,
    prefix_of,
)
from checkpoints.newest import newest_meta_graph

_MAX_NAMED = 10


def open_model(
    path: str, max_bytes: int = DEFAULT_MAX_BYTES, checkpoint: str | None = None
) -> MetaGraphFile:
    """Reads the graph that `path` stands for, and says where its variables are.

    Args:
      path: as the user wrote it.
      max_bytes: the size of the largest graph file that is read.
      checkpoint: what `find_variables` takes, for variables that are elsewhere than the graph;
        None for those of the graph's own name.

    Raises:
      CheckpointError: there is no such model or not one alone, a part of it is missing, or it is
        something else.
    """
    file = find_model(path, warn=checkpoint is None)
    read = _read_graph_file if file.endswith(GRAPH_SUFFIXES) else read_meta_graph
    meta = read(file, max_bytes)
    return meta if checkpoint is None else replace(meta, prefix=find_variables(checkpoint))


def find_model(path: str, warn: bool = True) -> str:
    """The file that holds the graph: a `.meta`, a frozen graph or a `saved_model.pb`.

    Args:
      path: as the user wrote it.
      warn: of variables in a folder that are passed over, as there is no graph with them.

    Raises:
      CheckpointError: as `open_model`.
    """
    if tf.io.gfile.isdir(path):
        return _in_folder(path, warn)
    if path.endswith(GRAPH_SUFFIXES):
        if not tf.io.gfile.exists(path):
            raise no_graph(path, os.path.splitext(path)[0])
        return path
    prefix = prefix_of(path)
    if tf.io.gfile.exists(prefix + naming.META_SUFFIX):
        return prefix + naming.META_SUFFIX
    raise no_graph(path, prefix)


def _is_meta(path: str) -> bool:
    return path.endswith(naming.META_SUFFIX)


def _in_folder(path: str, warn: bool) -> str:
    """The file of the one model in a folder, of its newest checkpoint where there are several."""
    names = names_in(path)
    for name in SAVED_MODEL_FILES:
        if name in names:
            return os.path.join(path, name)
    if folder.usable_steps(path):
        return _with_graph(newest_meta_graph(path))
    found = _one_graph(path, names)
    if found is not None:
        if warn:
            _warn_of_graphless(path, names, found)
        return os.path.join(path, found)
    beside = path.rstrip("/") + naming.META_SUFFIX  # A folder may be called as a checkpoint is.
    if tf.io.gfile.exists(beside):
        return beside
    raise nothing_in(path, names)


def _one_graph(path: str, names: list[str]) -> str | None:
    """The name of the one file with a graph, or of the one that the state file names, if any."""
    found = [name for name in names if _is_meta(name)]
    found = found or [name for name in names if name.endswith(GRAPH_SUFFIXES)]
    if len(found) > 1:
        named = named_checkpoint(os.path.join(path, naming.STATE_FILE))
        found = [name for name in found if name == f"{named}{naming.META_SUFFIX}"] or found
    if len(found) > 1:
        raise CheckpointError(
            f"{path} holds {len(found)} graphs; name one: {first_few(found, _MAX_NAMED)}"
        )
    return found[0] if found else None


def _warn_of_graphless(path: str, names: list[str], chosen: str) -> None:
    """Says which variables are passed over, as none of these files has their graph."""
    prefixes = [
        n.removesuffix(naming.INDEX_SUFFIX) for n in names if n.endswith(naming.INDEX_SUFFIX)
    ]
    graphless = [prefix for prefix in prefixes if prefix + naming.META_SUFFIX not in names]
    if graphless:
        logging.warning(
            "%s is read; of %s there is no .meta in %s: --ckpt=%s reads their variables",
            chosen,
            first_few(graphless, _MAX_NAMED),
            path,
            os.path.join(path, "<name>" if graphless[1:] else graphless[0]),
        )


def _with_graph(meta: str) -> str:
    if not tf.io.gfile.exists(meta):
        raise no_graph(meta, meta.removesuffix(naming.META_SUFFIX))
    return meta


def _read_graph_file(path: str, max_bytes: int) -> MetaGraphFile:
    """A frozen graph, without variables; what is a SavedModel by its content is read as one."""
    found = parse_graph_file(read_bounded(path, max_bytes, MAX_META_FLAG), path, max_bytes)
    prefix = os.path.splitext(path)[0]
    if isinstance(found, MetaGraphDef):
        return MetaGraphFile(path, prefix, found)
    prefix = os.path.join(os.path.dirname(path), SAVED_MODEL_VARIABLES)
    return MetaGraphFile(path, prefix, serving_graph(found, path))
