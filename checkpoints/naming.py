"""The names of a checkpoint: of its files, its tensors, and what its meta graph says.

The files are `<folder>/my-model-<step>.<suffix>`. Which there are tells a step's state, whatever
was interrupted:

- `.manifest`: committed. It is renamed into place last, and away first.
- `.manifest.tmp` alone: being written or deleted; the rest of its files are leftovers.
- neither, but an `.index`: written by someone else, such as a stock Saver.
- neither, and no `.index`: what someone has left of a checkpoint. Nothing of it is deleted.
"""

import os
import re
from collections.abc import Collection

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
# `.index`, `.data-00000-of-00001`, and `-00000-of-00001` of the format V1.
_PART = re.compile(r"(\.index|\.manifest|\.meta|(\.data)?-\d{5}-of-\d{5})$")
# The number at the end of any checkpoint's name; the rest tells one run from another.
_STEP = re.compile(r"-(\d{1,18})\Z")
# What browsers, desktops and synchronisers add to the name of a second file of the same name.
_COPY = re.compile(
    r"^Copy of | - Copy| copy( \d+)?| ?\(\d+\)|\.sync-conflict-[\w-]+"
    r"| \([^()]*conflicted copy[^()]*\)"
)
# A SavedModel's graph, and the prefix of its variables, in its folder.
SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
SAVED_MODEL_VARIABLES = os.path.join("variables", "variables")

OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # Of the keys that tf.train.Checkpoint writes.

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


def stem_and_step(name: str) -> tuple[str, int | None]:
    """`model.ckpt` and 7 of `model.ckpt-7`; None where there is no such number."""
    found = _STEP.search(name)
    return (name[: found.start()], int(found[1])) if found else (name, None)


def prefix_of(path: str) -> str:
    """The prefix of the checkpoint that a file is of; of another path, the path itself."""
    return _PART.sub("", path)


def is_copy(name: str, names: Collection[str]) -> bool:
    """Whether a file's name is that of another of `names` with the mark of a copy."""
    plain = _COPY.sub("", name)
    return plain != name and plain in names


def is_committed(suffixes: set[str]) -> bool:
    """Whether files with these suffixes are a checkpoint of ours that was written to its end."""
    return MANIFEST_SUFFIX in suffixes


def is_leftover(suffixes: set[str]) -> bool:
    """Whether files with these suffixes were left by a save or a deletion that was cut short."""
    return MANIFEST_SUFFIX not in suffixes and PENDING_SUFFIX in suffixes


def is_usable(suffixes: set[str]) -> bool:
    """Whether files with these suffixes are a checkpoint, ours or not, whatever is in them."""
    return is_committed(suffixes) or (INDEX_SUFFIX in suffixes and PENDING_SUFFIX not in suffixes)


# Which tensors of a checkpoint only an optimizer needs: its slots, powers and counters. The name
# tells, as the optimizers of TensorFlow and of Keras make it, and copies of Adafactor and AdamW:
#
#   conv1/w/Adam, train/conv1/w/Adam_1    slots of conv1/w
#   beta1_power, train/beta2_power_1      of Adam and its kin
#   training/Adam/conv1/w/m, Adam/iter    Keras in graph mode
#   w/.OPTIMIZER_SLOT/optimizer/m/...     object-based, as is all of an object called optimizer
#   w_slot_vr, w/adam_m                   Adafactor, AdamW
#
# A moving average of a variable (`w/ExponentialMovingAverage`) is none of these: it predicts.
# Sources: `tensorflow/python/training/slot_creator.py`,
# `tensorflow/core/protobuf/trackable_object_graph.proto`.

_MAX_LENGTH = 1000  # Of a name that is looked into; a hostile one may have any.
_OPTIMIZER = re.compile(
    r"ada(m|grad|delta|factor|shift|bound)|momentum|rms_?prop|ftrl|optimi[sz]er|nesterov|yogi"
    r"|(power|add)sign|(^|_)(lamb|lars|sgd|lion|shampoo)(_|$)",
    re.IGNORECASE,
)
_UNMISTAKABLE = re.compile(
    r"(.+/)?beta[12]_power(_\d+)?"
    r"|.+/(Adam|AdaMax|Nadam|Momentum|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl)(_\d+)?"
    r"|.*/\.OPTIMIZER_SLOT/.*"
)
_OBJECT = re.compile(r"(.+/)?(\w*optimi[sz]er\w*|opt)/.+", re.IGNORECASE)
# An optimizer of Keras 3 lists the model's variables too; the shortest path is what they go by.
_TRAINED = re.compile(r"(.+/)?_trainable_variables/.+")
_ADAFACTOR = re.compile(r"(.+)_slot_(v|vr|vc|m)")
_OF_KERAS = re.compile(
    r"(iter|iterations|beta_[12]|decay|learning_rate|lr|momentum|rho|Variable(_\d+)?)"
)
_SLOT_OF_KERAS = re.compile(
    r"m|v|vhat|momentum|rms|mg|accumulator|accum_grad|accum_var|linear|velocity"
)


def is_slot(key: str, held: Collection[str]) -> bool:
    """Whether a key, one of those that are held, is an optimizer's by its name."""
    if len(key) > _MAX_LENGTH:
        return False
    before, _, last = key.rpartition("/")
    adafactor = _ADAFACTOR.fullmatch(key)
    if (
        _UNMISTAKABLE.fullmatch(key)
        or (adafactor and adafactor[1] in held)
        or (_OF_KERAS.fullmatch(last) and _is_optimizer(before))
    ):
        return True
    if key.endswith(OBJECT_SUFFIX):
        path = key.removesuffix(OBJECT_SUFFIX)
        return bool(_OBJECT.fullmatch(path)) and not _TRAINED.fullmatch(path)
    parts = before.split("/")  # Cut in two before each: the scopes in front, and a variable.
    scopes = ["/".join(parts[:i]) for i in range(len(parts)) if "/".join(parts[i:]) in held]
    if _OPTIMIZER.search(last):
        return bool(scopes)
    return bool(_SLOT_OF_KERAS.fullmatch(last)) and any(map(_is_optimizer, scopes))


def _is_optimizer(scope: str) -> bool:
    return _OPTIMIZER.search(scope.rpartition("/")[2]) is not None
