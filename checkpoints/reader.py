"""Tensors of a checkpoint of any format that a Saver has written, read with bounds.

Also how they lie in its files, and the newest checkpoint of a folder that fits a model.
"""

import math
import os
import re
import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from checkpoints import file_io, manifest, naming
from checkpoints.bundle import VariableSpec, read_index
from checkpoints.folder import usable_steps
from checkpoints.manifest import Manifest
from checkpoints.naming import INDEX_SUFFIX
from errors import CheckpointError, LaterVersionError, first_few

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
      index: key -> entry of its index; empty in the format V1, which has none.
      shapes: key -> shape of each tensor; of one that was saved in slices, that of the whole.
      dtypes: key -> tf.DType.
    """

    def __init__(self, prefix: str) -> None:
        """Opens the checkpoint; no value is read.

        Raises:
          CheckpointError: a file is missing or damaged.
        """
        self.prefix = prefix
        tail, files = _files(prefix)
        self.files: Sequence[str] = files
        self.version = "V1" if tail is not None else "V2"
        for file in files:
            file_io.check_fetched(file)
        self.index: Mapping[bytes, BundleEntryProto] = {}
        if tail is None:
            file_io.check_fetched(prefix + INDEX_SUFFIX)
            self.index = read_index(prefix + INDEX_SUFFIX)
        try:
            self.sizes = [int(tf.io.gfile.stat(file).length) for file in files]
        except tf.errors.OpError as error:
            raise CheckpointError(f"a checkpoint's file cannot be read: {error.message}") from error
        links = ExitStack()
        self._readable = links.enter_context(file_io.readable_prefix(prefix))
        weakref.finalize(self, links.close)
        self._pattern = self._readable + (tail or "")
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
        ratio = _MAX_RATIO_OF_V1 if self.version == "V1" else 1
        if sum(sizes.values()) > ratio * sum(self.sizes):
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
            if kind := file_io.kind_of(file_io.read_head(file, file_io.HEAD_BYTES)):
                return CheckpointError(f"{file} holds no values: it is {kind}")
        return CheckpointError(f"{self.prefix} is damaged: {line}")


def _restored(pattern: str, key: str, dtype: tf.DType) -> Array:
    """The value of a tensor, by a restore operation of our own in a graph of our own."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        (value,) = tf.raw_ops.RestoreV2(
            prefix=pattern, tensor_names=[key], shape_and_slices=[""], dtypes=[dtype]
        )
        return np.asarray(session.run(value))


def _files(prefix: str) -> tuple[str | None, list[str]]:
    """What follows the prefix in what TensorFlow opens a checkpoint by, and its files of values.

    An index makes it the present format, whose tail is None. Without one, it is the format V1: a
    file at the prefix itself, or shards beside it. The shards are checked to be all there.
    """
    folder, base = os.path.split(prefix)
    names = set(file_io.names_in(folder))
    if base + INDEX_SUFFIX in names:
        shards = _shards(prefix, f"{base}.data", names)
        if not shards:
            raise CheckpointError(
                f"{prefix}.index is there, its data file {prefix}.data-00000-of-00001 is missing"
            )
        return None, [f"{prefix}.data{shard}" for shard in shards]
    if base in names and not tf.io.gfile.isdir(prefix):
        return "", [prefix]
    shards = _shards(prefix, base, names)
    if not shards:
        raise CheckpointError(
            f"{prefix} has no variables: expected {prefix}.index and {prefix}.data-00000-of-00001"
        )
    return shards[0].replace("00000", "?????", 1), [f"{prefix}{shard}" for shard in shards]


def _shards(prefix: str, stem: str, names: set[str]) -> list[str]:
    """What follows `stem` in the names of its shards: `-00000-of-00001` and so on, all there."""
    tails = (name.removeprefix(stem) for name in names if name.startswith(stem))
    found = sorted((m[1], m[2]) for tail in tails if (m := _SHARD.fullmatch(tail)))
    if not found:
        return []
    _, of = found[-1]
    missing = [n for n in range(int(of)) if (f"{n:05d}", of) not in found]
    if missing:
        raise CheckpointError(f"{prefix} lacks shard {missing[0]:05d} of its {int(of)} data files")
    return [f"-{number:05d}-of-{of}" for number in range(int(of))]


# How the tensors of a checkpoint lie in its files, as the index tells. Slices have entries of their
# own, whose keys are of `tensorflow/core/util/saved_tensor_slice_util.cc`: a zero byte, the name,
# and an end after which come their starts and lengths.

_OF_A_SLICE, _END_OF_NAME = b"\0", b"\0\1"


class StoredTensor(NamedTuple):
    """How a tensor is stored; in the format V1, which compresses, neither is known."""

    slices: int | None = None  # It was saved in; 0 where it was saved whole.
    disk_bytes: int | None = None  # It takes in the files.


def stored_tensors(reader: CheckpointReader) -> dict[str, StoredTensor]:
    """How each tensor of a checkpoint lies in its files.

    Raises:
      CheckpointError: a file is shorter than the index says.
    """
    sizes: dict[str, int] = defaultdict(int)
    slices: dict[str, int] = {}
    for key, entry in reader.index.items():
        _check_place(reader, entry)
        is_slice = key.startswith(_OF_A_SLICE)
        stored = key[1:].partition(_END_OF_NAME)[0] if is_slice else key
        name = stored.decode(errors="replace")
        sizes[name] += entry.size
        if not is_slice:
            slices[name] = len(entry.slices)
    return {
        key: StoredTensor(slices[key], sizes[key]) if key in slices else StoredTensor()
        for key in reader.shapes
    }


def _check_place(reader: CheckpointReader, entry: BundleEntryProto) -> None:
    """CheckpointError where an entry's values are not inside of the file that it names."""
    if not entry.size:
        return
    if entry.shard_id >= len(reader.files):
        raise CheckpointError(f"{reader.prefix} is damaged: it has no shard {entry.shard_id}")
    size, end = reader.sizes[entry.shard_id], entry.offset + entry.size
    if size < end:
        raise CheckpointError(
            f"{reader.prefix} is damaged: {reader.files[entry.shard_id]} has {size} bytes, its "
            f"index speaks of {end}"
        )


# The newest checkpoint of a folder that is whole and fits the model.

_MOST_NAMED = 4


class Restored(NamedTuple):
    """A checkpoint that has passed every check; `manifest` is None where it has none."""

    step: int
    prefix: str
    values: Mapping[str, np.ndarray[Any, Any]]
    manifest: Manifest | None


def restore_newest(
    folder: str,
    expected: Mapping[str, VariableSpec],
    check: Callable[[str, Manifest], None] = lambda _, __: None,
) -> Restored | None:
    """Reads the newest checkpoint that is complete, undamaged and fits.

    What is stepped over is logged, a line each.

    Args:
      folder: where it has no checkpoint, the result is None.
      expected: name -> shape and dtype of every variable of the model.
      check: is given the prefix and the manifest, where there is one, of an undamaged checkpoint
        before its variables are looked at; what it raises ends the search.

    Raises:
      CheckpointError: there are checkpoints and none of them is good.
      LaterVersionError: a later version made the newest.
    """
    reasons = []
    for step in reversed(usable_steps(folder)):
        prefix = naming.checkpoint_prefix(folder, step)
        try:
            found = manifest.read(folder, step)
            if found is None:
                logging.warning("%s has no manifest: TensorFlow's own checksums have to do", prefix)
            else:
                manifest.verify_files(folder, found)
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
            f"none of the {len(reasons)} checkpoints in {folder} is good (the newest: "
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
        raise CheckpointError(first_few(differences, _MOST_NAMED, "; "))
    return {name: reader.read(name) for name in expected}
