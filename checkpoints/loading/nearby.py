"""What to say where a path stands for no model: what is there in its place, or beside it."""

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from checkpoints import naming
from checkpoints.bounded_file import read_head
from checkpoints.errors import CheckpointError, first_few
from checkpoints.file_kinds import HEAD_BYTES, kind_of
from checkpoints.folder import names_in
from checkpoints.loading.graph_files import GRAPH_SUFFIXES, SAVED_MODEL_FILES
from checkpoints.loading.nearest_names import nearest_names

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
