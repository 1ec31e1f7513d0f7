"""What stands beside the values of a checkpoint: its meta graph and its manifest.

The meta graph says what predict needs to know; the manifest says what the files are, and that they
are all there.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from checkpoints import file_io, naming
from errors import CheckpointError, LaterVersionError, reason

# The meta graph. Format: `tensorflow/core/protobuf/meta_graph.proto`.

PREDICT_COLLECTION = "predict"
CLASS_NAMES_COLLECTION = "class_names"
INPUT_SCALE_COLLECTION = "input_scale"
IMAGE_SHAPE_COLLECTION = "image_shape"
TRAINED_ON_COLLECTION = "trained_on"
SIGNATURE = "serving_default"


class Description(NamedTuple):
    """What a meta graph says of its model beside the graph.

    Attributes:
      inputs: argument name -> tensor, of the signature `serving_default`; so are the `outputs`.
      class_names: in label order; empty where there are none.
      input_scale: what uint8 values are multiplied by before they are fed to the signature's
        input; None where the input is no image.
      trained_on: the name of a built-in data set, where the model was trained on one.
      image_shape: height, width and channels (1 or 3) of the image that a row of the input holds,
        where that is a row of numbers.
    """

    inputs: Mapping[str, tf.Tensor]
    outputs: Mapping[str, tf.Tensor]
    class_names: Sequence[str] = ()
    input_scale: float | None = None
    trained_on: str | None = None
    image_shape: tuple[int, int, int] | None = None


def export_meta_graph(graph: tf.Graph, description: Description) -> bytes:
    """Adds a stock Saver to `graph`, for stock clients, and returns its MetaGraphDef, serialized.

    The bytes are the same at every call with an equal graph, and hold no device.
    """
    with graph.as_default():
        saver = tf.compat.v1.train.Saver()
        meta_graph = tf.compat.v1.train.export_meta_graph(
            graph=graph,
            saver_def=saver.as_saver_def(),
            clear_devices=True,
            strip_default_attrs=True,
        )
        saved_model = tf.compat.v1.saved_model
        inputs, outputs = (
            {name: saved_model.build_tensor_info(tensor) for name, tensor in tensors.items()}
            for tensors in (description.inputs, description.outputs)
        )
    signature = saved_model.build_signature_def(  # As TensorFlow Serving reads it.
        inputs, outputs, saved_model.signature_constants.PREDICT_METHOD_NAME
    )
    meta_graph.signature_def[SIGNATURE].CopyFrom(signature)
    collections = meta_graph.collection_def
    if description.class_names:
        names = [name.encode() for name in description.class_names]
        collections[CLASS_NAMES_COLLECTION].bytes_list.value.extend(names)
    if description.input_scale is not None:
        collections[INPUT_SCALE_COLLECTION].float_list.value.append(description.input_scale)
    if description.image_shape is not None:
        collections[IMAGE_SHAPE_COLLECTION].int64_list.value.extend(description.image_shape)
    if description.trained_on is not None:
        collections[TRAINED_ON_COLLECTION].bytes_list.value.append(description.trained_on.encode())
    content: bytes = meta_graph.SerializeToString(deterministic=True)
    return content


# The manifest.
#
# `my-model-<step>.manifest` is JSON: `format` 1, `step`, `saved_at` (seconds since 1970),
# `environment` (the TensorFlow version and the machine that wrote it), `config` (what the run was
# asked for), `files` (the size in bytes and the SHA-256 of each), where it was measured
# `test_accuracy` (in [0, 1], of these very weights), and `sha256`, the hash of the manifest itself
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


class Manifest(NamedTuple):
    """What a manifest says; see the module's description."""

    step: int
    saved_at: float
    environment: Mapping[str, Any]
    config: Mapping[str, Any]
    files: Mapping[str, FileDigest]
    test_accuracy: float | None = None


def digest(content: bytes) -> FileDigest:
    """The size and hash of a file with this content."""
    return FileDigest(len(content), hashlib.sha256(content).hexdigest())


def digest_file(path: str) -> FileDigest:
    """Reads a file and returns its size and hash."""
    hashed, size = hashlib.sha256(), 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hashed.update(block)
            size += len(block)
    return FileDigest(size, hashed.hexdigest())


def encode(manifest: Manifest) -> bytes:
    """The manifest as it stands in its file."""
    files = {name: digest._asdict() for name, digest in manifest.files.items()}
    record = {"format": _FORMAT, **manifest._asdict(), "files": files}
    if manifest.test_accuracy is None:
        del record["test_accuracy"]
    return _to_json({**record, "sha256": _hash_of(record)})


def read(folder: str, step: int) -> Manifest | None:
    """The manifest of a checkpoint, or None where it has none.

    Raises:
      CheckpointError: the file is there and is no manifest of this step.
      LaterVersionError: a later version wrote it.
    """
    path = naming.checkpoint_prefix(folder, step) + naming.MANIFEST_SUFFIX
    try:
        content = file_io.content_of(path)
    except tf.errors.OpError as error:
        raise CheckpointError(
            f"{os.path.basename(path)} cannot be read: {reason(error)}"
        ) from error
    if content is None:
        return None
    try:
        manifest = _decode(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{os.path.basename(path)} is damaged: {error}") from error
    except LaterVersionError as error:
        raise LaterVersionError(
            f"{path} was made by a later version of this program ({error}): use that one, or "
            "another folder"
        ) from error
    if manifest.step != step:
        raise CheckpointError(f"{os.path.basename(path)} is of another checkpoint")
    return manifest


def _decode(content: bytes) -> Manifest:
    """The inverse of `encode`; ValueError, KeyError, TypeError, AttributeError on other bytes."""
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
    return Manifest(**record, files=files, test_accuracy=accuracy)


def _to_json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, sort_keys=True) + "\n").encode()


def _hash_of(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_to_json(record)).hexdigest()


def verify_files(
    folder: str, manifest: Manifest, suffixes: Sequence[str] = naming.CONTENT_SUFFIXES
) -> None:
    """Compares each file, or only those with some suffixes, with its digest.

    Raises:
      CheckpointError: a file is missing, or its size or content is another.
    """
    for suffix in suffixes:
        name = naming.checkpoint_name(manifest.step) + suffix
        if name not in manifest.files:
            raise CheckpointError(f"the manifest does not name {name}")
        try:
            found = digest_file(os.path.join(folder, name))
        except tf.errors.NotFoundError as error:
            raise CheckpointError(f"{name} is missing") from error
        except tf.errors.OpError as error:
            raise CheckpointError(f"{name} cannot be read: {reason(error)}") from error
        if found != manifest.files[name]:
            raise CheckpointError(
                f"{name} is damaged: {found.size} bytes with SHA-256 {found.sha256[:8]}..., "
                f"the manifest says {manifest.files[name].size} with "
                f"{manifest.files[name].sha256[:8]}..."
            )


def verify_checkpoint(prefix: str, suffixes: Sequence[str] = naming.CONTENT_SUFFIXES) -> None:
    """Compares files of the checkpoint at a prefix with its manifest, where it has one of ours.

    Raises:
      CheckpointError: the manifest or a file is damaged or missing.
    """
    folder, name = os.path.split(prefix)
    named = naming.split_name(name + naming.MANIFEST_SUFFIX)
    found = read(folder, named[0]) if named else None
    if found is not None:
        try:
            verify_files(folder, found, suffixes)
        except CheckpointError as error:
            raise CheckpointError(f"{prefix} cannot be used: {error}") from error
