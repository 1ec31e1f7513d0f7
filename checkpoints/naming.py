"""The names of a checkpoint: of its files, and of what its meta graph says beside the graph.

The files are `<folder>/my-model-<step>.<suffix>`. Which there are tells a step's state, whatever
was interrupted:

- `.manifest`: committed. It is renamed into place last, and away first.
- `.manifest.tmp` alone: being written or deleted; the rest of its files are leftovers.
- neither, but an `.index`: written by someone else, such as a stock Saver.
- neither, and no `.index`: what someone has left of a checkpoint. Nothing of it is deleted.
"""

import os
import re

BASENAME = "my-model"
INDEX_SUFFIX = ".index"
DATA_SUFFIX = ".data-00000-of-00001"
META_SUFFIX = ".meta"
MANIFEST_SUFFIX = ".manifest"
PENDING_SUFFIX = MANIFEST_SUFFIX + ".tmp"
# The files a manifest vouches for, in the order they are written.
CONTENT_SUFFIXES = (DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX)
STATE_FILE = "checkpoint"
FLAGS_FILE = "run.flags"  # What the run was asked for, as --flagfile takes it.
SIDE_FILES = (STATE_FILE, FLAGS_FILE)  # Each put in place as a whole.
# What a save writes, and the names under which TensorFlow writes the variables at first. All else
# is someone else's file, such as my-model-100.npz or my-model-0100.meta.
_SUFFIXES = "|".join(map(re.escape, (*CONTENT_SUFFIXES, MANIFEST_SUFFIX, PENDING_SUFFIX)))
_UNFINISHED = rf"(?:{re.escape(DATA_SUFFIX)}|{re.escape(INDEX_SUFFIX)})\.tempstate\d+"
_CHECKPOINT_FILE = re.compile(rf"{BASENAME}-(0|[1-9]\d*)({_SUFFIXES}|{_UNFINISHED})", re.ASCII)

AVERAGE = "/ExponentialMovingAverage"  # After the name of the variable that it is of.

# Of a meta graph: its collections and its signature.
PREDICT_COLLECTION = "predict"
CLASS_NAMES_COLLECTION = "class_names"
INPUT_SCALE_COLLECTION = "input_scale"
IMAGE_SHAPE_COLLECTION = "image_shape"
TRAINED_ON_COLLECTION = "trained_on"
SIGNATURE = "serving_default"


def checkpoint_name(step: int) -> str:
    """`my-model-<step>`, the checkpoint after `step` updates."""
    return f"{BASENAME}-{step}"


def checkpoint_prefix(folder: str, step: int) -> str:
    """`<folder>/my-model-<step>`: what TensorFlow restores from."""
    return os.path.join(folder, checkpoint_name(step))


def split_name(file_name: str) -> tuple[int, str] | None:
    """The step and the suffix of a checkpoint's file; None for any other file."""
    match = _CHECKPOINT_FILE.fullmatch(file_name)
    return (int(match[1]), match[2]) if match else None


def is_committed(suffixes: set[str]) -> bool:
    """Whether files with these suffixes are a checkpoint of ours that was written to its end."""
    return MANIFEST_SUFFIX in suffixes


def is_leftover(suffixes: set[str]) -> bool:
    """Whether files with these suffixes were left by a save or a deletion that was cut short."""
    return MANIFEST_SUFFIX not in suffixes and PENDING_SUFFIX in suffixes


def is_usable(suffixes: set[str]) -> bool:
    """Whether files with these suffixes are a checkpoint, ours or not, whatever is in them."""
    return is_committed(suffixes) or (INDEX_SUFFIX in suffixes and PENDING_SUFFIX not in suffixes)
