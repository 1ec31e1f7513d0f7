"""What tools/verify.py does once its flags are read."""

import os
from dataclasses import dataclass

import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.loading.graph_files import GRAPH_SUFFIXES, SAVED_MODEL_FILES
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.nearby import beside
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.loading.variable_files import find_variables, prefix_of
from checkpoints.naming import INDEX_SUFFIX
from tools.common.errors import ToolError
from tools.common.output import Record
from tools.verification.folder import FolderVerdict, verify_folder, verify_named
from tools.verification.graph import GraphChecks
from tools.verification.repair import repair_folder
from tools.verification.report import as_record


@dataclass(frozen=True)
class VerifyConfig:
    """What is asked for.

    Attributes:
      path: a folder for all of its checkpoints, or what `find_variables` takes for one.
      repair: whether to put the folder right.
      max_meta_bytes: the size of the largest file of a graph that is read.
      time_limit: on reading and importing a graph.
    """

    path: str
    repair: bool = False
    max_meta_bytes: int = DEFAULT_MAX_BYTES
    time_limit: TimeLimit = TimeLimit()  # noqa: RUF009 (it is frozen)


def verify(config: VerifyConfig) -> Record:
    """Verifies, and repairs where that is asked for; see `as_record`.

    Raises:
      CheckpointError, ToolError: there is no such folder or checkpoint, or it cannot be read, or
        not repaired.
    """
    path = _folder_of_model(config.path)
    graphs = GraphChecks(config.max_meta_bytes, config.time_limit)
    if not _is_folder(path):
        if config.repair:
            raise ToolError(f"--repair is of a folder, not of {path} alone: name its folder")
        return as_record(verify_named(_prefix(path), graphs))
    repaired: list[str] = []
    if config.repair:
        found, repaired = repair_folder(path, graphs)
    else:
        found = verify_folder(path, graphs)
    if not (found.checkpoints or found.leftovers or repaired):
        raise ToolError(_nothing_in(found))
    return as_record(found, repaired)


def _folder_of_model(path: str) -> str:
    """A SavedModel's folder, where its file is named."""
    place, name = os.path.split(path)
    return place or "." if name in SAVED_MODEL_FILES else path


def _is_folder(path: str) -> bool:
    """Whether a folder is meant: one may be called as a checkpoint is."""
    is_checkpoint = not path.endswith("/") and tf.io.gfile.exists(prefix_of(path) + INDEX_SUFFIX)
    return bool(tf.io.gfile.isdir(path)) and not is_checkpoint


def _prefix(path: str) -> str:
    """The prefix of the checkpoint that a path which is no folder stands for."""
    if path.endswith(GRAPH_SUFFIXES):
        raise ToolError(f"{path} is no checkpoint: a graph that stands alone has no variables")
    try:
        return find_variables(path)
    except CheckpointError as error:
        prefix = prefix_of(path)
        near = beside(prefix, (INDEX_SUFFIX,))
        raise ToolError(
            f"there is no folder {path}, and no {prefix}{INDEX_SUFFIX}{near}"
        ) from error


def _nothing_in(found: FolderVerdict) -> str:
    strays = f"; of none is {', '.join(found.strays[:3])}" if found.strays else ""
    return f"{found.path} holds no checkpoint{strays}"
