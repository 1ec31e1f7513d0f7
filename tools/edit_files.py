"""The tensors of a checkpoint that is edited, read one by one, and the files of the new one.

The tensors are written a few at a time, so that they need not all fit in memory. The files are made
aside, moved into place when all is well, or gone.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from checkpoints import file_io, naming
from checkpoints.bundle import MAX_BYTES, BundleWriter, VariableSpec, table_entries
from checkpoints.file_io import names_in, read_bounded
from checkpoints.lock import FolderLock
from checkpoints.naming import INDEX_SUFFIX
from checkpoints.reader import Array, CheckpointReader
from errors import ToolError, reason
from metagraph.opening import prefix_of

_NUMBERS = (tf.float16, tf.bfloat16, tf.float32, tf.float64)


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
    """A tensor of a checkpoint, and its key and tf.DType in the new one."""

    old: str
    new: str
    shape: tuple[int, ...]
    dtype: tf.DType
    stored: tf.DType

    def bytes_as(self, dtype: tf.DType) -> int:
        """Of its value; of strings, of which nobody knows, none."""
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
        stored = cast if cast is not None and dtype in _NUMBERS else dtype
        shape = tuple(contents.reader.shapes[key])
        tensors.append(Tensor(key, names[key], shape, dtype, stored))
    return tensors


# TensorFlow's own operation writes all tensors at once. What is larger than GROUP_BYTES is written
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
    groups = _groups(tensors, group_bytes)
    parts = [f"{prefix}-{number}" for number in range(len(groups))] if groups[1:] else [prefix]
    try:
        for part, group in zip(parts, groups, strict=True):
            _write(reader, group, part, allow_overflow)
        if groups[1:]:
            with tf.Graph().as_default(), tf.compat.v1.Session() as session:
                session.run(
                    tf.raw_ops.MergeV2Checkpoints(
                        checkpoint_prefixes=parts, destination_prefix=prefix, delete_old_dirs=False
                    )
                )
    except tf.errors.OpError as error:
        folder = os.path.dirname(prefix)
        raise ToolError(f"could not write into {folder}: {reason(error)}") from error


def _groups(tensors: Iterable[Tensor], most: int) -> list[list[Tensor]]:
    """The tensors in their order, as many together as have at most so many bytes."""
    groups: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        bytes_read = tensor.bytes_as(tensor.dtype)
        if groups[-1] and size + bytes_read > most:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += bytes_read
    return groups


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


_BASE = "model"  # Of the files while they are aside.


class Target:
    """The files of a new checkpoint; a context whose end clears what was not kept.

    They are made in a folder of their own beside where they will be, which is locked meanwhile;
    what a process that was killed has left there, the next one clears. A checkpoint is read by its
    `.index`, which is moved last, and what is replaced loses its own first: whatever is interrupted
    leaves nothing that looks whole.
    """

    def __init__(self, prefix: str, sources: Iterable[str], overwrite: bool) -> None:
        """Looks whether there may be a checkpoint at `prefix`; nothing is written.

        Args:
          prefix: of the new one.
          sources: the prefixes of those that it is made from.
          overwrite: whether one that is there may be replaced.

        Raises:
          ToolError: it is no prefix, or is there, or is a source.
        """
        self.final = prefix
        self._folder, self._name = os.path.split(prefix)
        if self._name in ("", ".", "..", naming.STATE_FILE) or tf.io.gfile.isdir(prefix):
            raise ToolError(
                f"--output={prefix} is no prefix of a checkpoint: add a name to the folder, as in "
                f"{os.path.join(prefix, 'model')}"
            )
        if prefix_of(prefix) != prefix:
            raise ToolError(f"--output={prefix} is a file's name: expected {prefix_of(prefix)}")
        if any(_place(source) == _place(prefix) for source in sources):
            raise ToolError(f"--output={prefix} is the source, which is never touched")
        old = self._files()
        if old and not overwrite:
            raise ToolError(f"--output={prefix}: {old[0]} is there; --overwrite replaces it")
        self._aside = os.path.join(self._folder, f".{self._name}.being-edited")
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

    def __exit__(self, *_: object) -> None:
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
        index = _BASE + INDEX_SUFFIX
        ordered = sorted(self._made(), key=lambda name: name == index)
        moved = {name: self._name + name.removeprefix(_BASE) for name in ordered}
        state_file = os.path.join(self._folder, naming.STATE_FILE)
        with self._in_one_line():
            for name in ordered:
                file_io.flush(os.path.join(self._aside, name))
            for name in self._files():
                file_io.remove(os.path.join(self._folder, name))
            file_io.flush(self._folder or ".")
            for name, new in moved.items():
                file_io.rename(os.path.join(self._aside, name), os.path.join(self._folder, new))
            file_io.flush(self._folder or ".")
            if tf.io.gfile.exists(state_file):
                return sorted(moved.values())
            state = tf.compat.v1.train.generate_checkpoint_state_proto("", self._name)
            file_io.replace_file(state_file, str(state).encode())
        return sorted([*moved.values(), naming.STATE_FILE])

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
        first = [self._name + suffix for suffix in (naming.MANIFEST_SUFFIX, INDEX_SUFFIX)]
        names = names_in(self._folder)
        found = [n for n in names if n == pending or prefix_of(n) == self._name]
        return sorted(found, key=lambda name: first.index(name) if name in first else len(first))


def _place(prefix: str) -> str:
    """Where its files are, whatever links lead to their folder."""
    if "://" in prefix:
        return prefix
    folder, name = os.path.split(os.path.abspath(prefix))
    return os.path.join(os.path.realpath(folder), name)
