"""Tensors of a checkpoint of any format that a Saver has written, read with bounds.

Also how they lie in its files: their sizes there, their shards, their slices.

`restore_newest` finds and reads the newest checkpoint of a folder that is whole and fits a model.
"""

import math
import os
import re
import struct
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from checkpoints import folder, manifest, naming
from checkpoints.bundle import MAX_BYTES, VariableSpec, check_index, table_entries
from checkpoints.file_io import (
    HEAD_BYTES,
    check_fetched,
    kind_of,
    read_bounded,
    read_head,
    readable_prefix,
)
from checkpoints.folder import names_in
from checkpoints.manifest import Manifest
from checkpoints.naming import INDEX_SUFFIX
from errors import CheckpointError, LaterVersionError, reason

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")
# The format of 2016 compresses its values with Snappy (at most 64 bytes out of 3) and writes
# integers in as little as one byte out of eight.
_MAX_RATIO_OF_V1 = 256
# What TensorFlow's reader of checkpoints raises. A file that is cut short is an IndexError, a
# missing index a ValueError.
_READER_ERRORS = (
    *(tf.errors.OpError, IndexError, OverflowError, RuntimeError),
    *(SystemError, TypeError, ValueError),
)
Array = np.ndarray[Any, Any]


class CheckpointReader:
    """The checkpoint at a prefix.

    Attributes:
      version: of its format, `V1` or `V2`.
      files: the paths of those that hold values, by rising number; `sizes` has their bytes.
      shapes: key -> shape of each tensor; of one that was saved in slices, that of the whole.
      dtypes: key -> tf.DType.
    """

    def __init__(self, prefix: str) -> None:
        """Opens the checkpoint; no value is read.

        Raises:
          CheckpointError: a file is missing or damaged.
        """
        found = _files(prefix)
        self.prefix = prefix
        self.files: Sequence[str] = found.values
        self.version = "V2" if found.ratio == 1 else "V1"
        for file in self.files:
            check_fetched(file)
        try:
            self.sizes = [int(tf.io.gfile.stat(file).length) for file in self.files]
        except tf.errors.OpError as error:
            raise CheckpointError(f"a checkpoint's file cannot be read: {error.message}") from error
        self._max_bytes = found.ratio * sum(self.sizes)
        links = ExitStack()
        self._readable = links.enter_context(readable_prefix(prefix))
        weakref.finalize(self, links.close)
        self._pattern = self._readable + found.tail
        with self._one_line():
            # Not tf.train.load_checkpoint: given a folder of that name, it follows the state file.
            self._reader = tf.compat.v1.train.NewCheckpointReader(self._pattern)
            self.shapes: Mapping[str, list[int]] = self._reader.get_variable_to_shape_map()
            self.dtypes: Mapping[str, tf.DType] = self._reader.get_variable_to_dtype_map()

    @property
    def specs(self) -> dict[str, VariableSpec]:
        """Key -> shape and dtype of each tensor, by key."""
        return {
            key: VariableSpec(tuple(shape), self.dtypes[key].name)
            for key, shape in sorted(self.shapes.items())
        }

    def check_sizes(self, keys: Collection[str]) -> None:
        """CheckpointError where files are too small for the tensors that the index tells of."""
        sizes = {key: math.prod(self.shapes[key]) * self.dtypes[key].size for key in keys}
        if sum(sizes.values()) > self._max_bytes:
            key = max(sizes, key=lambda key: sizes[key])
            raise self._damage(
                "its files are smaller than the values that its index speaks of, such as "
                f"{key} {self.dtypes[key].name} {self.shapes[key]}"
            )

    def read(self, key: str) -> Array:
        """The value of a tensor that there is, of its dtype and shape.

        Raises:
          CheckpointError: it is damaged.
        """
        with self._one_line():
            try:
                # A single text comes as bytes, of which NumPy's own kind loses zeros at the end.
                kind = object if self.dtypes[key] == tf.string else None
                return np.asarray(self._reader.get_tensor(key), kind)
            except tf.errors.UnimplementedError:  # Of the format V1 it joins no slices.
                return _restored(self._pattern, key, self.dtypes[key])

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Makes a CheckpointError of whatever the reader's C++ side raises."""
        try:
            yield
        except _READER_ERRORS as error:
            line = (str(error).splitlines() or ["it cannot be read"])[0]
            raise self._damage(line.replace(self._readable, self.prefix)) from error

    def _damage(self, line: str) -> CheckpointError:
        """What to say of values that make no sense: that they are none, where they look so."""
        for file in self.files:
            if kind := kind_of(read_head(file, HEAD_BYTES)):
                return CheckpointError(f"{file} holds no values: it is {kind}")
        return CheckpointError(f"{self.prefix} is damaged: {line}")


def _restored(pattern: str, key: str, dtype: tf.DType) -> Array:
    """The value of a tensor, by a restore operation of our own in a graph of our own."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        (value,) = tf.raw_ops.RestoreV2(
            prefix=pattern, tensor_names=[key], shape_and_slices=[""], dtypes=[dtype]
        )
        return np.asarray(session.run(value))


class _Files(NamedTuple):
    """The files of a checkpoint."""

    tail: str  # What comes after the prefix in what TensorFlow opens it by.
    values: list[str]  # Those that hold values.
    ratio: int  # The most bytes of values that a byte of them can hold.


def _files(prefix: str) -> _Files:
    """The files of the checkpoint at `prefix`.

    An index makes it the present format, whose data files are checked to be all there. Without
    one, it is the format V1: a file at the prefix itself, or shards beside it.
    """
    folder, base = os.path.split(prefix)
    names = set(names_in(folder))
    if base + INDEX_SUFFIX in names:
        shards = _shards(names, f"{base}.data")
        _check_shards(prefix, shards)
        check_fetched(prefix + INDEX_SUFFIX)
        check_index(prefix + INDEX_SUFFIX)
        return _Files("", [f"{prefix}.data-{n}-of-{of}" for n, of in shards], 1)
    if base in names and not tf.io.gfile.isdir(prefix):
        return _Files("", [prefix], _MAX_RATIO_OF_V1)
    shards = _shards(names, base)
    if not shards:
        raise CheckpointError(
            f"{prefix} has no variables: expected {prefix}.index and {prefix}.data-00000-of-00001"
        )
    _check_shards(prefix, shards)
    files = [f"{prefix}-{n}-of-{of}" for n, of in shards]
    return _Files(f"-?????-of-{shards[0][1]}", files, _MAX_RATIO_OF_V1)


def _shards(names: set[str], stem: str) -> list[tuple[str, str]]:
    """The numbers (shard, shards) of the files `<stem>-00000-of-00001` and so on, sorted."""
    tails = (name.removeprefix(stem) for name in names if name.startswith(stem))
    return sorted((m[1], m[2]) for tail in tails if (m := _SHARD.fullmatch(tail)))


def _check_shards(prefix: str, shards: list[tuple[str, str]]) -> None:
    """Raises CheckpointError unless each shard of one set is there."""
    if not shards:
        raise CheckpointError(
            f"{prefix}.index is there, its data file {prefix}.data-00000-of-00001 is missing"
        )
    total = shards[-1][1]
    have = {number for number, of in shards if of == total}
    missing = [n for n in range(int(total)) if f"{n:05d}" not in have]
    if missing:
        raise CheckpointError(
            f"{prefix} lacks shard {missing[0]:05d} of its {int(total)} data files"
        )


# How the tensors of a checkpoint lie in its files, as the index tells. The format is that of
# `tensorflow/core/util/tensor_bundle/tensor_bundle.h`, whose slices have keys of
# `tensorflow/core/util/saved_tensor_slice_util.cc`.

_OF_A_SLICE, _END_OF_NAME = b"\0", b"\0\1"
_ESCAPES = {b"\0\xff": b"\0", b"\xff\0": b"\xff"}


class StoredTensor(NamedTuple):
    """Where a tensor is."""

    files: tuple[str, ...]  # The paths of those that hold values of it.
    slices: int | None  # It was saved in; 0 where it was saved whole, None where that is unknown.
    disk_bytes: int | None  # It takes in the files; None in the format V1, which compresses.


def stored_tensors(reader: CheckpointReader) -> dict[str, StoredTensor]:
    """How each tensor of a checkpoint lies in its files; of the format V1, little is known.

    Raises:
      CheckpointError: the index is damaged, or a file is shorter than the index says.
    """
    found = _of_index(reader) if reader.version == "V2" else {}
    files = tuple(reader.files) if len(reader.files) == 1 else ()
    return {key: found.get(key, StoredTensor(files, None, None)) for key in reader.shapes}


def _of_index(reader: CheckpointReader) -> dict[str, StoredTensor]:
    try:
        content = read_bounded(reader.prefix + INDEX_SUFFIX, MAX_BYTES)
        entries = {k: BundleEntryProto.FromString(v) for k, v in table_entries(content)}
    except (DecodeError, ValueError, IndexError, struct.error) as error:
        raise CheckpointError(f"{reader.prefix} is damaged: {error}") from error
    parts: dict[str, list[BundleEntryProto]] = {}
    for key, entry in entries.items():
        if key.startswith(_OF_A_SLICE):
            parts.setdefault(_sliced_name(key), []).append(entry)
        elif not entry.slices:
            parts[key.decode(errors="replace")] = [entry]
    slices = {k.decode(errors="replace"): len(entry.slices) for k, entry in entries.items()}
    shards = _shard_files(reader, entries.values())
    return {
        name: StoredTensor(
            files=tuple(sorted({shards[entry.shard_id] for entry in held})),
            slices=slices.get(name),
            disk_bytes=sum(entry.size for entry in held),
        )
        for name, held in parts.items()
    }


def _sliced_name(key: bytes) -> str:
    """The tensor that a slice's key is of; after its name come its starts and its lengths."""
    name = key[len(_OF_A_SLICE) :].partition(_END_OF_NAME)[0]
    for escape, byte in _ESCAPES.items():
        name = name.replace(escape, byte)
    return name.decode(errors="replace")


def _shard_files(
    reader: CheckpointReader, entries: Collection[BundleEntryProto]
) -> Mapping[int, str]:
    """Shard number -> data file, of those that have values; CheckpointError if one is too short."""
    ends: dict[int, int] = {}
    for entry in entries:
        if entry.offset < 0 or entry.size < 0:
            raise CheckpointError(f"{reader.prefix} is damaged: a place in its files is negative")
        end = entry.offset + entry.size if entry.size else 0
        ends[entry.shard_id] = max(ends.get(entry.shard_id, 0), end)
    of = reader.files[-1].rpartition("-")[2]
    shards = {number: f"{reader.prefix}.data-{number:05d}-of-{of}" for number in ends}
    for number, end in ends.items():
        try:
            length = int(tf.io.gfile.stat(shards[number]).length)
        except tf.errors.OpError as error:
            raise CheckpointError(f"{shards[number]} cannot be read: {reason(error)}") from error
        if length < end:
            raise CheckpointError(
                f"{reader.prefix} is damaged: {shards[number]} has {length} bytes, its index "
                f"speaks of {end}"
            )
    return shards


# The newest checkpoint of a folder that is whole and fits the model.

_MOST_NAMED = 4


class Restored(NamedTuple):
    """A checkpoint that has passed every check; `manifest` is None where it has none."""

    step: int
    prefix: str
    values: Mapping[str, np.ndarray[Any, Any]]
    manifest: Manifest | None


def restore_newest(
    path: str,
    expected: Mapping[str, VariableSpec],
    check: Callable[[str, Manifest], None] = lambda _, __: None,
) -> Restored | None:
    """Reads the newest checkpoint that is complete, undamaged and fits.

    What is stepped over is logged, a line each.

    Args:
      path: the folder; where it has no checkpoint, the result is None.
      expected: name -> shape and dtype of every variable of the model.
      check: is given the prefix and the manifest, where there is one, of an undamaged checkpoint
        before its variables are looked at; what it raises ends the search.

    Raises:
      CheckpointError: there are checkpoints and none of them is good.
      LaterVersionError: a later version made the newest.
    """
    reasons = []
    for step in reversed(folder.usable_steps(path)):
        prefix = naming.checkpoint_prefix(path, step)
        try:
            found = manifest.read(path, step)
            if found is None:
                logging.warning("%s has no manifest: TensorFlow's own checksums have to do", prefix)
            else:
                manifest.verify_files(path, found)
                check(prefix, found)
            values = read_variables(prefix, expected)
            if values.get("global_step", step) != step:
                raise CheckpointError(
                    f"it is of step {values['global_step']}, whatever its name says"
                )
            return Restored(step, prefix, values, found)
        except LaterVersionError:
            raise
        except CheckpointError as error:
            logging.warning("stepping over %s: %s", prefix, error)
            reasons.append(str(error))
    if reasons:
        raise CheckpointError(
            f"none of the {len(reasons)} checkpoints in {path} fits this model (the newest: "
            f"{reasons[0]}): train into another folder with --ckpt_dir"
        )
    return None


def read_variables(
    prefix: str, expected: Mapping[str, VariableSpec]
) -> dict[str, np.ndarray[Any, Any]]:
    """Reads exactly the expected variables, each checked before any is read.

    Raises:
      CheckpointError: a file is missing or damaged, a variable is missing or is one too many, or
        its shape or dtype is another; the first such variables are named.
    """
    reader = CheckpointReader(prefix)
    found = reader.specs
    differences = [f"{name} is missing" for name in expected if name not in found]
    differences += [f"{name} is not in this model" for name in found if name not in expected]
    differences += [
        f"{name} is {found[name]}, this model has {spec}"
        for name, spec in expected.items()
        if name in found and found[name] != spec
    ]
    if differences:
        more = len(differences) - _MOST_NAMED
        raise CheckpointError(
            "; ".join(differences[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        )
    return {name: reader.read(name) for name in expected}
