"""The tensors of a checkpoint that is edited, read one by one, and the files of the new one.

The tensors are written a few at a time, so that they need not all fit in memory. The files are made
aside, moved into place when all is well, or gone.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from checkpoints import file_io, naming
from checkpoints.bundle import MAX_BYTES, BundleWriter, VariableSpec, table_entries
from checkpoints.file_io import read_bounded
from checkpoints.folder import names_in
from checkpoints.lock import FolderLock
from checkpoints.naming import INDEX_SUFFIX
from checkpoints.reader import Array, CheckpointReader
from errors import ToolError, reason
from metagraph.opening import prefix_of
from tools.folder_entries import EDITED_SUFFIX


class Contents(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      reader: of its values.
      keys: of its tensors, in the order in which their values are in its files.
      in_slices: those of them that are saved in slices, as partitioned variables are.
    """

    reader: CheckpointReader
    keys: list[str]
    in_slices: frozenset[str]


class Tensor(NamedTuple):
    """A tensor of a checkpoint and what becomes of it.

    Attributes:
      old: its key.
      new: its key in the new checkpoint.
      shape: its sizes.
      dtype: its tf.DType.
      stored: that in the new checkpoint.
    """

    old: str
    new: str
    shape: tuple[int, ...]
    dtype: tf.DType
    stored: tf.DType

    @property
    def bytes(self) -> int:
        """Of its value in the new checkpoint; of strings, of which nobody knows, none."""
        return self._bytes_of(self.stored)

    @property
    def bytes_read(self) -> int:
        """Of its value in the old one."""
        return self._bytes_of(self.dtype)

    def _bytes_of(self, dtype: tf.DType) -> int:
        count = tf.TensorShape(self.shape).num_elements() or 0
        return 0 if dtype == tf.string else int(count * dtype.size)


def read_contents(prefix: str) -> Contents:
    """Opens a checkpoint of any format; no value is read.

    Raises:
      CheckpointError: a file is missing or damaged.
    """
    reader = CheckpointReader(prefix)
    reader.check_sizes(reader.shapes)
    places: dict[str, tuple[int, int]] = {}
    in_slices = set[str]()
    if reader.version == "V2":
        content = read_bounded(prefix + INDEX_SUFFIX, MAX_BYTES)
        for key, value in table_entries(content):
            entry = BundleEntryProto.FromString(value)
            name = key.decode("utf-8", errors="replace")
            places[name] = (entry.shard_id, entry.offset)
            if entry.slices:
                in_slices.add(name)
    keys = sorted(reader.shapes, key=lambda key: (places.get(key, (0, 0)), key))
    return Contents(reader, keys, frozenset(in_slices & reader.shapes.keys()))


def plan_tensors(
    contents: Contents, names: Mapping[str, str], cast: tf.DType | None
) -> list[Tensor]:
    """What becomes of the tensors that are kept.

    Args:
      contents: the checkpoint.
      names: old key -> new key, of those that are kept.
      cast: what numbers of any floating type become; None where they stay.

    Raises:
      ToolError: one is of a kind that cannot be read as a value.
    """
    tensors = []
    for key in (key for key in contents.keys if key in names):
        dtype = contents.reader.dtypes[key]
        if dtype in (tf.variant, tf.resource):
            raise ToolError(f"{key} is a {dtype.name}, which only its graph can read: --drop it")
        stored = cast if cast is not None and is_number(dtype) else dtype
        shape = tuple(contents.reader.shapes[key])
        tensors.append(Tensor(key, names[key], shape, dtype, stored))
    return tensors


def is_number(dtype: tf.DType) -> bool:
    """Whether --cast is for it."""
    return dtype in (tf.float16, tf.bfloat16, tf.float32, tf.float64)


# Writes the tensors of a new checkpoint, a few at a time, so that they need not all fit in memory.
#
# TensorFlow's own operation takes all tensors at once. What is larger than GROUP_BYTES is written
# as several checkpoints, which are then made one: their data files become its shards.

GROUP_BYTES = 128 << 20


def write_tensors(
    reader: CheckpointReader,
    tensors: Sequence[Tensor],
    prefix: str,
    allow_overflow: bool,
    group_bytes: int = GROUP_BYTES,
) -> None:
    """Writes `<prefix>.index` and its data files.

    Args:
      reader: of the values.
      tensors: in the order in which they are written.
      prefix: in a folder that is there and has nothing of that name.
      allow_overflow: keep numbers that are too large for their new dtype, as infinities.
      group_bytes: of values that are in memory at once; a larger tensor alone is.

    Raises:
      CheckpointError: the source is damaged.
      ToolError: a number overflows, or the disk refused.
    """
    groups = list(_groups(tensors, group_bytes))
    parts = [f"{prefix}-{number}" for number in range(len(groups))] if groups[1:] else [prefix]
    try:
        for part, group in zip(parts, groups, strict=True):
            _write(reader, group, part, allow_overflow)
        if groups[1:]:
            _merge(parts, prefix)
    except tf.errors.OpError as error:
        folder = os.path.dirname(prefix)
        raise ToolError(f"could not write into {folder}: {reason(error)}") from error


def _groups(tensors: Iterable[Tensor], most: int) -> Iterator[list[Tensor]]:
    """The tensors in their order, as many together as have at most so many bytes."""
    group: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if group and size + tensor.bytes_read > most:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += tensor.bytes_read
    yield group


def _write(
    reader: CheckpointReader, group: Sequence[Tensor], prefix: str, allow_overflow: bool
) -> None:
    specs = {t.new: VariableSpec(t.shape, t.stored.name) for t in group}
    writer = BundleWriter(specs)
    try:
        writer.write(prefix, {t.new: _value(reader, t, allow_overflow) for t in group})
    finally:
        writer.close()


def _value(reader: CheckpointReader, tensor: Tensor, allow_overflow: bool) -> Array:
    """A tensor's value in its new dtype, rounded to the nearest."""
    value = reader.read(tensor.old)
    if tensor.stored == tensor.dtype:
        return value
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(tensor.stored.as_numpy_dtype)
    if not allow_overflow:
        lost = np.isfinite(value) & ~np.isfinite(cast)
        if lost.any():
            raise ToolError(
                f"{tensor.old} holds {value[lost].flat[0]:g}, too large for {tensor.stored.name} "
                f"({int(lost.sum())} such of {lost.size}): --cast to a wider one, or "
                "--allow_overflow to make infinities of them"
            )
    return cast


def _merge(parts: Sequence[str], prefix: str) -> None:
    """Makes one checkpoint of several; theirs are gone."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        merge = tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=parts, destination_prefix=prefix, delete_old_dirs=False
        )
        session.run(merge)


# The files of a new checkpoint: made aside, moved into place when all is well, or gone.
#
# They are made in a folder of their own beside where they will be, which is locked meanwhile; what
# a process that was killed has left there, the next one clears. A checkpoint is read by its
# `.index`, which is moved last, and what is replaced loses its own first: whatever is interrupted
# leaves nothing that looks whole.

_BASE = "model"  # Of the files while they are aside.


class Target:
    """A new checkpoint; a context whose end clears what was not kept."""

    def __init__(self, prefix: str, sources: Iterable[str], overwrite: bool) -> None:
        """Looks whether there may be a checkpoint; nothing is written.

        Args:
          prefix: of the new one.
          sources: the prefixes of those that it is made from.
          overwrite: whether one that is there may be replaced.

        Raises:
          ToolError: it is no prefix, or is there, or is a source.
        """
        self._folder, self._name = os.path.split(prefix)
        self.final = prefix
        _check_prefix(prefix)
        for source in sources:
            if _same(source, prefix):
                raise ToolError(f"--output={prefix} is the source, which is never touched")
        self._old = self._files()
        if self._old and not overwrite:
            raise ToolError(f"--output={prefix}: {self._old[0]} is there; --overwrite replaces it")
        self._aside = os.path.join(self._folder, f".{self._name}{EDITED_SUFFIX}")
        self._lock = FolderLock(self._aside, "take another --output", keeps_file=False)

    @property
    def prefix(self) -> str:
        """Of the files while they are aside."""
        return os.path.join(self._aside, _BASE)

    def __enter__(self) -> "Target":
        """Makes the folder aside.

        Raises:
          CheckpointError: another process is making the same checkpoint.
          ToolError: the file system refused.
        """
        with self._in_one_line():
            tf.io.gfile.makedirs(self._aside)
            try:
                self._lock.__enter__()
            except OSError:  # A full disk may have no place for it.
                if not names_in(self._aside):
                    tf.io.gfile.rmtree(self._aside)
                raise
            for name in self._made():
                file_io.remove(os.path.join(self._aside, name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if tf.io.gfile.exists(self._aside):
            tf.io.gfile.rmtree(self._aside)
        self._lock.__exit__()

    def write_graph(self, content: bytes) -> str:
        """Writes the file of the graph, aside, and returns its path.

        Raises:
          ToolError: the file system refused.
        """
        path = self.prefix + naming.META_SUFFIX
        with self._in_one_line():
            file_io.write_file(path, content)
        return path

    def commit(self) -> list[str]:
        """Flushes the files, moves them into place and returns their names.

        A state file is written where the folder has none.

        Raises:
          ToolError: the file system refused.
        """
        names = self._made()
        index = _BASE + naming.INDEX_SUFFIX
        ordered = [*(name for name in names if name != index), index]
        with self._in_one_line():
            for name in ordered:
                file_io.flush(os.path.join(self._aside, name))
            for name in self._files():
                file_io.remove(os.path.join(self._folder, name))
            file_io.flush(self._folder or ".")
            moved = [self._name + name.removeprefix(_BASE) for name in ordered]
            for name, new in zip(ordered, moved, strict=True):
                file_io.rename(os.path.join(self._aside, name), os.path.join(self._folder, new))
            file_io.flush(self._folder or ".")
            return sorted([*moved, *self._state_file()])

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Makes a ToolError of what the file system says."""
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            raise ToolError(f"--output={self.final}: {reason(error)}") from error

    def _made(self) -> list[str]:
        """The files that are aside."""
        return [name for name in names_in(self._aside) if name.startswith(_BASE)]

    def _files(self) -> list[str]:
        """The files of a checkpoint that is there, in the order in which they are to go."""
        if not tf.io.gfile.isdir(self._folder or "."):
            return []
        pending = self._name + naming.MANIFEST_SUFFIX + ".tmp"
        first = [self._name + suffix for suffix in (naming.MANIFEST_SUFFIX, naming.INDEX_SUFFIX)]
        names = names_in(self._folder)
        found = [n for n in names if n == pending or prefix_of(n) == self._name]
        return sorted(found, key=lambda name: first.index(name) if name in first else len(first))

    def _state_file(self) -> Sequence[str]:
        """Writes the file that names the newest checkpoint of a folder, unless there is one."""
        path = os.path.join(self._folder, naming.STATE_FILE)
        if tf.io.gfile.exists(path):
            return ()
        state = tf.compat.v1.train.generate_checkpoint_state_proto("", self._name)
        file_io.replace_file(path, str(state).encode())
        return (naming.STATE_FILE,)


def _check_prefix(prefix: str) -> None:
    name = os.path.basename(prefix)
    if name in ("", ".", "..", naming.STATE_FILE) or tf.io.gfile.isdir(prefix):
        raise ToolError(
            f"--output={prefix} is no prefix of a checkpoint: add a name to the folder, as in "
            f"{os.path.join(prefix, 'model')}"
        )
    if prefix_of(prefix) != prefix:
        raise ToolError(f"--output={prefix} is a file's name: expected {prefix_of(prefix)}")


def _same(prefix: str, other: str) -> bool:
    """Whether two prefixes are of the same files, whatever links lead to their folders."""
    if "://" in prefix + other:
        return prefix == other
    places = [os.path.split(os.path.abspath(path)) for path in (prefix, other)]
    return len({os.path.join(os.path.realpath(folder), name) for folder, name in places}) == 1
