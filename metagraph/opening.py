"""Opens the model, or the checkpoint, that a path stands for.

The path may name any of its files or folders. Where a path stands for none, the error line says
what is there in its place, or beside it.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints import folder, naming
from checkpoints.file_io import HEAD_BYTES, kind_of, read_bounded, read_head
from checkpoints.folder import named_checkpoint, names_in, newest_meta_graph
from errors import CheckpointError, first_few, nearest_names
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.parsing import (
    DEFAULT_MAX_BYTES,
    GRAPH_SUFFIXES,
    MAX_META_FLAG,
    SAVED_MODEL_FILES,
    parse_graph_file,
    serving_graph,
)

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z")
_MAX_NAMED = 10
_MAX_FOLDERS = 200  # That are looked into for a model; a home may hold any number.


def no_graph(path: str, prefix: str) -> CheckpointError:
    """What to say of a path beside which there is no graph.

    Args:
      path: as the user wrote it.
      prefix: of the checkpoint that it would be of.
    """
    if tf.io.gfile.exists(prefix + naming.INDEX_SUFFIX):
        return _only_variables(prefix)
    if tf.io.gfile.exists(path):
        kind = kind_of(read_head(path, HEAD_BYTES)) or "nothing that is known here"
        return CheckpointError(
            f"{path} is no model: it is {kind}; expected a .meta, a checkpoint's prefix, a frozen "
            ".pb or the folder of a SavedModel"
        )
    is_meta = path.endswith((naming.META_SUFFIX, *GRAPH_SUFFIXES))
    meta = "" if is_meta else f", nor {prefix}{naming.META_SUFFIX}"
    suffixes = (naming.META_SUFFIX, *GRAPH_SUFFIXES)
    return CheckpointError(f"there is no file {path}{meta}{beside(path, suffixes)}")


def _only_variables(prefix: str) -> CheckpointError:
    """What to say of a checkpoint without its `.meta`: where the graph may be."""
    index = prefix + naming.INDEX_SUFFIX
    saved_model = os.path.dirname(os.path.dirname(os.path.abspath(index)))
    if any(tf.io.gfile.exists(os.path.join(saved_model, n)) for n in SAVED_MODEL_FILES):
        return CheckpointError(f"{index} is part of a SavedModel: name its folder {saved_model}")
    folder = os.path.dirname(prefix)
    metas = [name for name in names_in(folder) if name.endswith(naming.META_SUFFIX)]
    graph = os.path.join(folder, metas[0]) if len(metas) == 1 else "<the .meta of its graph>"
    there = f" (there is {first_few(metas, _MAX_NAMED)})" if len(metas) > 1 else ""
    return CheckpointError(
        f"variables without a graph: {index} is there, {prefix}{naming.META_SUFFIX} is missing; "
        f"where its graph has another name{there}: --meta={graph} --ckpt={prefix}"
    )


def beside(path: str, suffixes: Sequence[str]) -> str:
    """The end of an error line over a path that is not there: what its folder has, nearest first.

    Args:
      path: the missing one.
      suffixes: of the files that it could have been.
    """
    folder, name = os.path.split(path.rstrip("/"))
    if not tf.io.gfile.isdir(folder or "."):
        return _above(folder)
    names = names_in(folder)
    files = [n for n in names if n.endswith(tuple(suffixes))]
    near = _nearest(name, files)
    if not name.endswith(tuple(suffixes)):  # It may have been a folder.
        others = [n for n in names if tf.io.gfile.isdir(os.path.join(folder, n))]
        near += nearest_names(name, others)
    return f"; beside it there is {first_few(near, _MAX_NAMED)}" if near else ""


def _above(folder: str) -> str:
    """The nearest name in place of the first part of a path that is not there."""
    while not tf.io.gfile.isdir(os.path.dirname(folder) or "."):
        folder = os.path.dirname(folder)
    place, name = os.path.split(folder)
    near = nearest_names(name, names_in(place), 1)
    hint = f", there is {os.path.join(place, near[0])}" if near else ""
    return f": there is no folder {folder}{hint}"


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    """All names, the most alike first."""
    matcher = difflib.SequenceMatcher(b=name)

    def likeness(other: str) -> float:
        matcher.set_seq1(other)
        return -matcher.ratio()

    return sorted(names, key=likeness)


def nothing_in(path: str, names: Sequence[str]) -> CheckpointError:
    """What to say of a folder without a graph.

    Args:
      path: of the folder.
      names: what is in it.
    """
    parts = [name for name in names if name.endswith(naming.INDEX_SUFFIX)]
    if parts:
        return no_graph(path, os.path.join(path, parts[-1].removesuffix(naming.INDEX_SUFFIX)))
    below = list(_folders_with_models(path))
    if below:
        return CheckpointError(
            f"{path} holds no model itself; name a folder of it that does: "
            f"{first_few(below, _MAX_NAMED)}"
        )
    packed = next((name for name in names if name.lower().endswith(_ARCHIVES)), None)
    kind = packed and kind_of(read_head(os.path.join(path, packed), HEAD_BYTES))
    hint = f"; {packed} is {kind}" if kind else ""
    return CheckpointError(
        f"{path} holds no model: no .meta, .pb or saved_model.pb, and no checkpoint "
        f"{naming.BASENAME}-<step>{hint}"
    )


def _folders_with_models(path: str) -> Iterator[str]:
    """The folders in a folder, and in those, that hold a graph; only so many are looked into."""
    level, left = [path], _MAX_FOLDERS
    for _ in range(2):
        level = [below for folder in level for below in _folders_in(folder)][:left]
        left -= len(level)
        with_models = [folder for folder in level if _holds_graph(folder)]
        yield from with_models
        level = [folder for folder in level if folder not in with_models]


def _folders_in(path: str) -> list[str]:
    try:
        paths = [os.path.join(path, name) for name in names_in(path)]
    except CheckpointError:
        return []  # A folder that only others may read.
    return [folder for folder in paths if tf.io.gfile.isdir(folder)]


def _holds_graph(path: str) -> bool:
    try:
        return any(n.endswith((naming.META_SUFFIX, *GRAPH_SUFFIXES)) for n in names_in(path))
    except CheckpointError:
        return False


# The checkpoint that a path stands for, where a graph is given variables of another's.

# Of a SavedModel, the checkpoint's prefix in its folder.
SAVED_MODEL_VARIABLES = os.path.join("variables", "variables")
# `.index`, `.data-00000-of-00001`, and `-00000-of-00001` of the format V1.
_PART = re.compile(r"(\.index|\.manifest|\.meta|(\.data)?-\d{5}-of-\d{5})$")


def prefix_of(path: str) -> str:
    """The prefix of the checkpoint that a file is of; of another path, the path itself."""
    return _PART.sub("", path)


def find_variables(path: str) -> str:
    """The prefix of the checkpoint that `path` stands for.

    Args:
      path: a prefix, any file of a checkpoint, or a folder for its newest one; a SavedModel's
        folder for its variables.

    Raises:
      CheckpointError: there is none, or a folder has several and does not say which is the newest.
    """
    prefix = prefix_of(path)
    place, base = os.path.split(prefix)
    parts = names_in(place) if tf.io.gfile.isdir(place or ".") else []
    # A base may be empty, as that of `model/.index`; of `model/` it is the folder that is meant.
    if (base or path != prefix) and base + naming.INDEX_SUFFIX in parts:
        return prefix
    if tf.io.gfile.isdir(path):
        return _newest_in(path)
    if base and any(name == base or prefix_of(name) == base for name in parts):
        return prefix
    raise CheckpointError(
        f"--ckpt={path}: there is no {prefix}{naming.INDEX_SUFFIX}"
        f"{beside(prefix, (naming.INDEX_SUFFIX,))}"
    )


def _newest_in(path: str) -> str:
    """The prefix of a folder's newest checkpoint."""
    names = names_in(path)
    if any(name in names for name in SAVED_MODEL_FILES):
        return os.path.join(path, SAVED_MODEL_VARIABLES)
    steps = folder.usable_steps(path)
    if steps:
        return naming.checkpoint_prefix(path, steps[-1])
    found = [prefix_of(name) for name in names if name.endswith(naming.INDEX_SUFFIX)]
    if len(found) > 1:
        named = named_checkpoint(os.path.join(path, naming.STATE_FILE))
        found = [name for name in found if name == named] or found
    if len(found) == 1:
        return os.path.join(path, found[0])
    what = f"{len(found)} checkpoints; name one: {first_few(found, _MAX_NAMED)}"
    raise CheckpointError(f"--ckpt={path}: it holds {what if found else 'no checkpoint'}")


# Opens the model that a path stands for, in whichever of its files or folders that is.
#
# A path is a `.meta` file, the prefix of a checkpoint or another of its files, a frozen graph, a
# SavedModel, or a folder that holds one of them. The state file `checkpoint` is never trusted: at
# most, it chooses among the files that are there.
#
# Formats: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/framework/graph.proto`.


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
