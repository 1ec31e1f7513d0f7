"""The manifest of a checkpoint: what its files are, and that they are all there.

`my-model-<step>.manifest` is JSON: `format` 1, `step`, `saved_at` (seconds since 1970),
`environment` (the TensorFlow version and the machine that wrote it), `config` (what the run was
asked for), `files` (the size in bytes and the SHA-256 of each), where it was measured
`test_accuracy` (in [0, 1], of these very weights), unless it is a run's first `previous` (the step
and the SHA-256 of the manifest before it), and `sha256`, the hash of the manifest itself without
that entry. A checkpoint is committed when its manifest is in place. A later version may add
entries, or count up `format`.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import file_io
from checkpoints import naming
from errors import CheckpointError, DamagedError, LaterVersionError, reason

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


def encode(manifest: Manifest) -> bytes:
    """The manifest as it stands in its file."""
    files = {name: digest._asdict() for name, digest in manifest.files.items()}
    before = manifest.previous and manifest.previous._asdict()
    given = {"format": _FORMAT, **manifest._asdict(), "files": files, "previous": before}
    record = {name: value for name, value in given.items() if value is not None}
    return _to_json({**record, "sha256": _hash_of(record)})


def link(folder: str, step: int) -> Previous | None:
    """What the next manifest says of that of a step; None where the step has none."""
    path = naming.checkpoint_prefix(folder, step) + naming.MANIFEST_SUFFIX
    content = file_io.content_of(path)
    return None if content is None else Previous(step, digest(content).sha256)


def read(folder: str, step: int) -> Manifest | None:
    """The manifest of a checkpoint, or None where it has none.

    Raises CheckpointError where it is damaged, LaterVersionError where a later version wrote it.
    """
    name = naming.checkpoint_name(step) + naming.MANIFEST_SUFFIX
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


def read_of(prefix: str) -> Manifest | None:
    """As `read`, of the checkpoint at a prefix; None also where its name is none of ours."""
    folder, name = os.path.split(prefix)
    named = naming.split_name(name + naming.MANIFEST_SUFFIX)
    return read(folder, named[0]) if named else None


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
    before = record.pop("previous", None)
    if before is not None:
        before = Previous(int(before["step"]), str(before["sha256"]))
    return Manifest(**record, files=files, test_accuracy=accuracy, previous=before)


def _to_json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, sort_keys=True) + "\n").encode()


def _hash_of(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_to_json(record)).hexdigest()


def verify_files(
    folder: str, manifest: Manifest, suffixes: Sequence[str] = naming.CONTENT_SUFFIXES
) -> None:
    """CheckpointError unless each file, or those with some suffixes, is as the manifest says."""
    for suffix in suffixes:
        name = naming.checkpoint_name(manifest.step) + suffix
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


def verify_checkpoint(prefix: str, suffixes: Sequence[str] = naming.CONTENT_SUFFIXES) -> None:
    """As `verify_files`, of the checkpoint at a prefix, where it has a manifest of ours."""
    found = read_of(prefix)
    if found is not None:
        try:
            verify_files(os.path.dirname(prefix), found, suffixes)
        except CheckpointError as error:
            raise DamagedError(f"{prefix} cannot be used: {error}") from error
