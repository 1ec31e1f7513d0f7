"""Opens the model that a path stands for, in whichever of its files or folders that is.

A path is a `.meta` file, the prefix of a checkpoint or another of its files, a frozen graph, a
SavedModel, or a folder that holds one of them. The state file `checkpoint` is never trusted: at
most, it chooses among the files that are there.

Formats: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/framework/graph.proto`.
"""

import os
import re

import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints import folder, naming
from checkpoints.bounded_file import read_bounded, read_head
from checkpoints.errors import CheckpointError, first_few, reason
from checkpoints.file_kinds import HEAD_BYTES, kind_of
from checkpoints.loading.graph_files import SAVED_MODEL_FILES, parse_graph_file, serving_graph
from checkpoints.loading.meta_graph_file import MetaGraphFile, read_meta_graph
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES, MAX_META_FLAG
from checkpoints.loading.state_file import named_checkpoint
from checkpoints.newest import newest_meta_graph

_GRAPH_SUFFIXES = (".pb", ".pbtxt")
_VARIABLES = os.path.join("variables", "variables")  # Of a SavedModel, the checkpoint's prefix.
# `.index`, `.data-00000-of-00001`, and `-00000-of-00001` of the format V1.
_PART = re.compile(r"(\.index|\.manifest|(\.data)?-\d{5}-of-\d{5})$")
_MAX_NAMED = 10


def open_model(path: str, max_bytes: int = DEFAULT_MAX_BYTES) -> MetaGraphFile:
    """Reads the graph that `path` stands for, and says where its variables are.

    Args:
      path: as the user wrote it.
      max_bytes: the size of the largest graph file that is read.

    Raises:
      CheckpointError: there is no such model or not one alone, a part of it is missing, or it is
        something else.
    """
    file = find_model(path)
    if file.endswith(_GRAPH_SUFFIXES):
        return _read_graph_file(file, max_bytes)
    return read_meta_graph(file, max_bytes)


def find_model(path: str) -> str:
    """The file that holds the graph: a `.meta`, a frozen graph or a `saved_model.pb`.

    Raises:
      CheckpointError: as `open_model`.
    """
    if tf.io.gfile.isdir(path):
        return _in_folder(path)
    if path.endswith(_GRAPH_SUFFIXES):
        return path
    prefix = path.removesuffix(naming.META_SUFFIX) if _is_meta(path) else _PART.sub("", path)
    if tf.io.gfile.exists(prefix + naming.META_SUFFIX):
        return prefix + naming.META_SUFFIX
    raise _no_graph(path, prefix)


def _is_meta(path: str) -> bool:
    return path.endswith(naming.META_SUFFIX)


def _in_folder(path: str) -> str:
    """The file of the one model in a folder, of its newest checkpoint where there are several."""
    names = _names(path)
    for name in SAVED_MODEL_FILES:
        if name in names:
            return os.path.join(path, name)
    if folder.usable_steps(path):
        return _with_graph(newest_meta_graph(path))
    found = [name for name in names if _is_meta(name)]
    found = found or [name for name in names if name.endswith(_GRAPH_SUFFIXES)]
    if len(found) > 1:
        named = named_checkpoint(os.path.join(path, naming.STATE_FILE))
        found = [name for name in found if name == f"{named}{naming.META_SUFFIX}"] or found
    if len(found) > 1:
        raise CheckpointError(
            f"{path} holds {len(found)} graphs; name one: {first_few(found, _MAX_NAMED)}"
        )
    if found:
        _warn_of_graphless(path, names, found[0])
        return os.path.join(path, found[0])
    beside = path.rstrip("/") + naming.META_SUFFIX  # A folder may be called as a checkpoint is.
    if tf.io.gfile.exists(beside):
        return beside
    raise _nothing_in(path, names)


def _warn_of_graphless(path: str, names: list[str], chosen: str) -> None:
    """Says which variables are passed over, as none of these files has their graph."""
    prefixes = [
        n.removesuffix(naming.INDEX_SUFFIX) for n in names if n.endswith(naming.INDEX_SUFFIX)
    ]
    graphless = [prefix for prefix in prefixes if prefix + naming.META_SUFFIX not in names]
    if graphless:
        logging.warning(
            "%s is read; of %s there is no .meta in %s",
            chosen,
            first_few(graphless, _MAX_NAMED),
            path,
        )


def _nothing_in(path: str, names: list[str]) -> CheckpointError:
    """What to say of a folder without a graph."""
    parts = [name for name in names if name.endswith(naming.INDEX_SUFFIX)]
    if parts:
        return _no_graph(path, os.path.join(path, parts[-1].removesuffix(naming.INDEX_SUFFIX)))
    return CheckpointError(
        f"{path} holds no model: no .meta, .pb or saved_model.pb, and no checkpoint "
        f"{naming.BASENAME}-<step>"
    )


def _names(path: str) -> list[str]:
    """The names of a folder's files, sorted."""
    try:
        return sorted(name for name in tf.io.gfile.listdir(path) if not name.endswith("/"))
    except tf.errors.OpError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error


def _with_graph(meta: str) -> str:
    if not tf.io.gfile.exists(meta):
        raise _no_graph(meta, meta.removesuffix(naming.META_SUFFIX))
    return meta


def _no_graph(path: str, prefix: str) -> CheckpointError:
    """What to say of a path beside which there is no graph."""
    index = prefix + naming.INDEX_SUFFIX
    if tf.io.gfile.exists(index):
        saved_model = os.path.dirname(os.path.dirname(os.path.abspath(index)))
        if any(tf.io.gfile.exists(os.path.join(saved_model, n)) for n in SAVED_MODEL_FILES):
            return CheckpointError(
                f"{index} is part of a SavedModel: name its folder {saved_model}"
            )
        return CheckpointError(
            f"variables without a graph: {index} is there, {prefix}{naming.META_SUFFIX} is missing"
        )
    if tf.io.gfile.exists(path):
        kind = kind_of(read_head(path, HEAD_BYTES)) or "nothing that is known here"
        return CheckpointError(
            f"{path} is no model: it is {kind}; expected a .meta, a checkpoint's prefix, a frozen "
            ".pb or the folder of a SavedModel"
        )
    place = os.path.dirname(path)
    is_folder = tf.io.gfile.isdir(place or ".")
    beside = [name for name in _names(place or ".") if _is_meta(name)] if is_folder else []
    hint = f"; beside it there is {first_few(beside, _MAX_NAMED)}" if beside else ""
    meta = "" if _is_meta(path) else f", nor {prefix}{naming.META_SUFFIX}"
    return CheckpointError(f"there is no file {path}{meta}{hint}")


def _read_graph_file(path: str, max_bytes: int) -> MetaGraphFile:
    """A frozen graph, without variables; what is a SavedModel by its content is read as one."""
    found = parse_graph_file(read_bounded(path, max_bytes, MAX_META_FLAG), path, max_bytes)
    prefix = os.path.splitext(path)[0]
    if isinstance(found, MetaGraphDef):
        return MetaGraphFile(path, prefix, found)
    prefix = os.path.join(os.path.dirname(path), _VARIABLES)
    return MetaGraphFile(path, prefix, serving_graph(found, path))
