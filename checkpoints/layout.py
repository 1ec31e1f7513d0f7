"""What a checkpoint of ours is: the names of its files and tensors, and its manifest.

The files are `<folder>/my-model-<step>.<suffix>`. Which there are tells a step's state, whatever
was interrupted:

- `.manifest`: committed. It is renamed into place last, and away first.
- `.manifest.tmp` alone: being written or deleted; the rest of its files are leftovers.
- neither, but an `.index`: written by someone else, such as a stock Saver.
- neither, and no `.index`: what someone has left of a checkpoint. Nothing of it is deleted.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import file_io
from errors import CheckpointError, DamagedError, LaterVersionError, reason

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


def is_leftover(suffixes: set[str]) -> bool:
    """Whether files with these suffixes were left by a save or a deletion that was cut short."""
    return MANIFEST_SUFFIX not in suffixes and PENDING_SUFFIX in suffixes


def is_usable(suffixes: set[str]) -> bool:
    """Whether files with these suffixes are a checkpoint, ours or not, whatever is in them."""
    is_foreign = INDEX_SUFFIX in suffixes and PENDING_SUFFIX not in suffixes
    return MANIFEST_SUFFIX in suffixes or is_foreign


# The manifest: what a checkpoint's files are, and that they are all there.
#
# `my-model-<step>.manifest` is JSON: `format` 1, `step`, `saved_at` (seconds since 1970),
# `environment` (what the last bits depend on: TensorFlow, threads, processor), `config` (what the
# run's result follows from), `files` (the size in bytes and the SHA-256 of each), where it was
# measured `test_accuracy` (in [0, 1], of these very weights), unless it is a run's first `previous`
# (step and SHA-256 of the manifest before it), and `sha256`, the hash of the manifest itself
# without that entry. A checkpoint is committed when its manifest is in place. A later version may
# add entries, or count up `format`.

_FORMAT = 1
# Small enough to stay in a processor's cache, and for the allocator to hand out again: fresh pages
# for each block would cost a third of the hashing.
_BLOCK_BYTES = 1 << 18


class FileDigest(NamedTuple):
    """The size in bytes and the SHA-256, in hex, of one file."""

    size: int
    sha256: str


class Previous(NamedTuple):
    """The manifest before one: of the checkpoint that its run has gone on from."""

    step: int
    sha256: str  # Of the whole file, in hex.


class Manifest(NamedTuple):
    """What a manifest says, as described above."""

    step: int
    saved_at: float
    environment: Mapping[str, Any]
    config: Mapping[str, Any]
    files: Mapping[str, FileDigest]
    test_accuracy: float | None = None
    previous: Previous | None = None


def digest(content: bytes) -> FileDigest:
    """The size and hash of a file with this content."""
    return FileDigest(len(content), hashlib.sha256(content).hexdigest())


def digest_file(path: str) -> FileDigest:
    """The size and hash of a file that is there, which is read."""
    hashed, size = hashlib.sha256(), 0
    with file_io.opened(path) as file:
        while block := file.read(_BLOCK_BYTES):
            hashed.update(block)
            size += len(block)
    return FileDigest(size, hashed.hexdigest())


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as it stands in its file."""
    files = {name: digest._asdict() for name, digest in manifest.files.items()}
    before = manifest.previous and manifest.previous._asdict()
    given = {"format": _FORMAT, **manifest._asdict(), "files": files, "previous": before}
    record = {name: value for name, value in given.items() if value is not None}
    return _to_json({**record, "sha256": _hash_of(record)})


def previous_manifest(folder: str, step: int) -> Previous | None:
    """What the next manifest says of that of a step; None where the step has none."""
    path = checkpoint_prefix(folder, step) + MANIFEST_SUFFIX
    content = file_io.content_of(path)
    return None if content is None else Previous(step, digest(content).sha256)


def read_manifest(folder: str, step: int) -> Manifest | None:
    """The manifest of a checkpoint, or None where it has none.

    CheckpointError where it is damaged, LaterVersionError where a later version wrote it.
    """
    name = checkpoint_name(step) + MANIFEST_SUFFIX
    path = os.path.join(folder, name)
    try:
        content = file_io.content_of(path)
        if content is None:
            return None
        manifest = _decode(content)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {reason(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{name} is damaged: {error}") from error
    except LaterVersionError as error:
        raise LaterVersionError(
            f"{path} was made by a later version of this program ({error}): use that one, or "
            "another folder"
        ) from error
    if manifest.step != step:
        raise CheckpointError(f"{name} is of another checkpoint")
    return manifest


def manifest_at(prefix: str) -> Manifest | None:
    """The manifest of the checkpoint at a prefix; None also where its name is none of ours."""
    folder, name = os.path.split(prefix)
    named = split_name(name + MANIFEST_SUFFIX)
    return read_manifest(folder, named[0]) if named else None


def _decode(content: bytes) -> Manifest:
    """The manifest in these bytes; ValueError, KeyError, TypeError, AttributeError in others."""
    record = json.loads(content)
    is_whole = record.pop("sha256") == _hash_of({**record, "format": _FORMAT})
    found = record.pop("format")
    # Of a damaged number, all else is what this version writes.
    if isinstance(found, int) and found > _FORMAT and not is_whole:
        raise LaterVersionError(f"format {found}")
    if not is_whole or found != _FORMAT:
        raise ValueError("its own hash does not match")
    if unknown := record.keys() - {*Manifest._fields}:
        raise LaterVersionError(f"with {', '.join(sorted(unknown))}")
    files = {
        n: FileDigest(int(d["size"]), str(d["sha256"])) for n, d in record.pop("files").items()
    }
    if not math.isfinite(record["saved_at"]):
        raise ValueError(f"a time of {record['saved_at']}")
    if not all(isinstance(record[name], dict) for name in ("environment", "config")):
        raise ValueError("what its writer says is no mapping")
    accuracy = record.pop("test_accuracy", None)
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise ValueError(f"a test accuracy of {accuracy}")
    before = record.pop("previous", None)
    if before is not None:
        before = Previous(int(before["step"]), str(before["sha256"]))
    return Manifest(**record, files=files, test_accuracy=accuracy, previous=before)


def _to_json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, sort_keys=True) + "\n").encode()


def _hash_of(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_to_json(record)).hexdigest()


def verify_files(
    folder: str, manifest: Manifest, suffixes: Sequence[str] = CONTENT_SUFFIXES
) -> None:
    """CheckpointError unless each file, or those with some suffixes, is as the manifest says."""
    for suffix in suffixes:
        name = checkpoint_name(manifest.step) + suffix
        if name not in manifest.files:
            raise CheckpointError(f"the manifest does not name {name}")
        try:
            found = digest_file(os.path.join(folder, name))
        except FileNotFoundError as error:
            raise CheckpointError(f"{name} is missing") from error
        except OSError as error:
            raise CheckpointError(f"{name} cannot be read: {reason(error)}") from error
        if found != manifest.files[name]:
            size, sha256 = manifest.files[name]
            raise CheckpointError(
                f"{name} is damaged: {found.size} bytes with SHA-256 {found.sha256[:8]}..., "
                f"the manifest says {size} with {sha256[:8]}..."
            )


def verify_checkpoint(prefix: str, suffixes: Sequence[str] = CONTENT_SUFFIXES) -> None:
    """As `verify_files`, of the checkpoint at a prefix, where it has a manifest of ours."""
    found = manifest_at(prefix)
    if found is not None:
        try:
            verify_files(os.path.dirname(prefix), found, suffixes)
        except CheckpointError as error:
            raise DamagedError(f"{prefix} cannot be used: {error}") from error


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
