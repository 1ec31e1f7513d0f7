"""The two things that are compared: each has variables, or a graph, or both."""

import os
from dataclasses import dataclass

import tensorflow as tf

from checkpoints import naming
from checkpoints.errors import CheckpointError
from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.loading.graph_files import GRAPH_SUFFIXES, SAVED_MODEL_FILES
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_files import open_model
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.loading.variable_files import find_variables
from checkpoints.manifest import verify_checkpoint
from checkpoints.newest import Hold, say_if_gone
from tools.common.errors import ToolError
from tools.common.folder_entries import list_folder, named_entry

VARIABLES, GRAPH = "variables", "graph"
_READING = "reading the graph"


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
      path: as the user wrote it.
      reader: of its checkpoint; None where it has no variables, or they are not asked for.
      meta: its graph; None likewise.
    """

    path: str
    reader: CheckpointReader | None
    meta: MetaGraphFile | None


def open_side(
    path: str, flag: str, only: str | None, max_bytes: int, limit: TimeLimit, hold: Hold
) -> Side:
    """Opens what a path stands for: no value is read.

    Args:
      path: the prefix of a checkpoint or any file of it, a folder for its newest, a frozen graph,
        or the folder of a SavedModel.
      flag: that named it, for messages.
      only: `VARIABLES` or `GRAPH`; None for all there is.
      max_bytes: the size of the largest file of a graph that is read.
      limit: on reading the graph.
      hold: called with the checkpoint's prefix.

    Raises:
      CheckpointError, ToolError: it has nothing that is asked for, or is damaged.
    """
    prefix = _prefix(path, flag, hold, must=only == VARIABLES)
    try:
        reader = meta = None
        if only != GRAPH and prefix is not None:
            verify_checkpoint(prefix, [naming.INDEX_SUFFIX])
            reader = CheckpointReader(prefix)
        file = _graph_file(path, prefix, only)
        if file is not None:
            with limit.over(_READING):
                meta = open_model(file, max_bytes)
    except CheckpointError as error:
        raise say_if_gone(error, prefix or path, flag) from error
    if only == VARIABLES and reader is None:
        raise ToolError(f"{flag}={path} has no variables: expected a checkpoint or a SavedModel")
    return Side(path, reader, meta)


def _prefix(path: str, flag: str, hold: Hold, must: bool) -> str | None:
    """The prefix of the checkpoint that belongs to a path; None where there is none.

    Raises:
      CheckpointError: it is deleted just now.
      ToolError: there is none, or not one alone, and there `must` be one.
    """
    if os.path.basename(path) in SAVED_MODEL_FILES:
        path = os.path.dirname(path) or "."
    elif path.endswith(GRAPH_SUFFIXES) and not _is_folder(path):
        return None
    try:
        prefix = find_variables(path)
    except CheckpointError as error:
        alone = list_folder(path).entries if _is_folder(path) else ()
        if len(alone) == 1:
            return alone[0].prefix  # Of the format V1, which has no index to be found by.
        if must:
            raise ToolError(str(error).replace("--ckpt=", f"{flag}=", 1)) from error
        return None  # It may have a graph all the same; if not, that is said.
    hold(prefix)
    if _is_folder(os.path.dirname(prefix)) and named_entry(prefix).has_values:
        return prefix
    if _is_folder(path) and not _is_saved_model(path):
        raise CheckpointError(f"{prefix} was deleted while it was read")
    return None


def _graph_file(path: str, prefix: str | None, only: str | None) -> str | None:
    """What to read the graph from; None where it is not asked for, or there are only variables."""
    if only == VARIABLES:
        return None
    if prefix is not None and tf.io.gfile.exists(prefix + naming.META_SUFFIX):
        verify_checkpoint(prefix, [naming.META_SUFFIX])
        return prefix + naming.META_SUFFIX  # Of a folder, that of the very checkpoint.
    if prefix is None or only == GRAPH or _is_saved_model(path):
        return path
    return None


def _is_folder(path: str) -> bool:
    return bool(tf.io.gfile.isdir(path or "."))


def _is_saved_model(path: str) -> bool:
    return any(tf.io.gfile.exists(os.path.join(path, name)) for name in SAVED_MODEL_FILES)
