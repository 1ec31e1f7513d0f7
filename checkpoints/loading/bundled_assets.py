"""The files that a SavedModel brings along: those in its own folder of assets, and no others.

Format: `AssetFileDef` in `tensorflow/core/protobuf/meta_graph.proto`.
"""

import os
import re

import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.loading.graph_files import GRAPH_SUFFIXES
from checkpoints.loading.meta_graph_file import MetaGraphFile

_FOLDER = "assets"


def bundled_asset(meta: MetaGraphFile, name: str) -> str | None:
    """The path of a SavedModel's asset; None where it has none of that name.

    A link out of the model's folder is one too, for `check_inside` to refuse.

    Args:
      meta: the model.
      name: as the file has it. One that leads out of the folder is none.
    """
    if name != re.split(r"[/\\]", name)[-1] or name in ("", ".", "..") or "\0" in name:
        return None
    folder, file = os.path.split(meta.path)
    path = os.path.join(folder, _FOLDER, name)
    if not file.endswith(GRAPH_SUFFIXES):
        return None
    # Of a file that a link leads to elsewhere, not even whether it exists is asked.
    return path if not _is_inside(path) or tf.io.gfile.exists(path) else None


def check_inside(path: str, name: str) -> None:
    """Sees that an asset is no link to a file elsewhere, such as one that the user keeps secret.

    Args:
      path: what `bundled_asset` has returned.
      name: what the user may call the asset.

    Raises:
      CheckpointError: it is one; the message says how to read it all the same.
    """
    if not _is_inside(path):
        target = os.path.realpath(path)
        raise CheckpointError(
            f"{path} is a link out of the model's folder, to {target}: if that is the file, name "
            f"it with --asset {name}={target}"
        )


def _is_inside(path: str) -> bool:
    """Whether an asset, with its links followed, is in the model's folder."""
    model = os.path.dirname(os.path.dirname(path))
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(model), ""))
