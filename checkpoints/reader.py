"""Tensors of a checkpoint of any format that a Saver has written, read with bounds.

The present format, V2, is read without TensorFlow; that of 2016, V1, only TensorFlow reads.
"""

import functools
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from google.protobuf.message import DecodeError

import file_io
from checkpoints import bundle, layout
from checkpoints.bundle import DType, Entry, VariableSpec
from checkpoints.folder import find_variables, graph_path, usable_steps
from checkpoints.layout import INDEX_SUFFIX, OBJECT_SUFFIX, SAVED_MODEL_VARIABLES, Manifest
from errors import (
    CheckpointError,
    DamagedError,
    LaterVersionError,
    NotInstalledError,
    first_few,
    reason,
)

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")
# The format V1 compresses its values with Snappy (at most 64 bytes out of 3) and writes integers in
# as little as one byte out of eight.
_MAX_RATIO_OF_V1 = 256
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # The key of what says which objects it is of.
# The key of a slice: a zero byte, the tensor's name, and an end before its starts and lengths.
_OF_A_SLICE, _END_OF_NAME = b"\0", b"\0\1"
Array = np.ndarray[Any, Any]


class CheckpointReader:
    """The checkpoint at a prefix, in the format `version`: `V1`, `V2`, or `none` without variables.

    `files` are the paths of those that hold values, by rising number, and `sizes` their bytes. By
    key there are the `shapes` and `dtypes` of whole tensors, and the entries of the `index`, which
    is empty in the format V1.
    """

    def __init__(self, prefix: str) -> None:
        """Reads no value yet; CheckpointError where a file is missing or damaged."""
        self.prefix = prefix
        self.index: Mapping[bytes, Entry] = {}
        self.shapes: dict[str, list[int]] = {}
        self.dtypes: dict[str, DType] = {}
        self.files: Sequence[str] = ()
        self.sizes: Sequence[int] = ()
        self._is_big_endian = False
        self._old: _OldReader | None = None
        folder, base = os.path.split(prefix)
        is_bare = prefix.endswith(SAVED_MODEL_VARIABLES) and graph_path(prefix) is not None
        names = set(file_io.names_in(folder) if file_io.is_folder(folder) or not is_bare else ())
        if base + INDEX_SUFFIX in names:
            self.version = "V2"
            self._open(f"{base}.data", names)
        elif is_bare and not names:
            self.version = "none"
        else:
            self.version = "V1"
            self._open_old(base, names)

    def _open(self, stem: str, names: Collection[str]) -> None:
        """Reads the index of a checkpoint whose data files' names begin with `stem`."""
        shards = _shards(self.prefix, stem, names)
        if not shards:
            raise DamagedError(
                f"{self.prefix}.index is there, its data file {self.prefix}.data-00000-of-00001 is "
                "missing"
            )
        file_io.check_fetched(self.prefix + INDEX_SUFFIX)
        found = bundle.read_index(self.prefix + INDEX_SUFFIX)
        tails = [f"-{n:05d}-of-{found.num_shards:05d}" for n in range(found.num_shards)]
        if missing := [tail for tail in tails if stem + tail not in names]:
            raise DamagedError(f"{self.prefix}.data{missing[0]} is missing")
        self._look_at([f"{self.prefix}.data{tail}" for tail in tails])
        self.index, self._is_big_endian = found.entries, found.is_big_endian
        whole = {k: entry for k, entry in self.index.items() if not k.startswith(_OF_A_SLICE)}
        try:
            by_name = {key.decode(): entry for key, entry in whole.items()}
        except UnicodeDecodeError as error:
            raise DamagedError(f"{self.prefix} is damaged: a name in it is no UTF-8") from error
        self.shapes = {key: list(entry.shape) for key, entry in by_name.items()}
        self.dtypes = {key: bundle.as_dtype(entry.dtype) for key, entry in by_name.items()}

    def _open_old(self, base: str, names: Collection[str]) -> None:
        """Has TensorFlow open a file at the prefix itself, or shards beside it."""
        tail = ""
        if base in names and not file_io.is_folder(self.prefix):
            self._look_at([self.prefix])
        elif shards := _shards(self.prefix, base, names):
            tail = shards[0].replace("00000", "?????", 1)
            self._look_at([f"{self.prefix}{shard}" for shard in shards])
        else:
            newest, place = "", os.path.dirname(self.prefix) or "."
            if not any(name.startswith(f"{base}.data") for name in names):
                with suppress(CheckpointError):
                    newest = f"; the newest beside it is --ckpt={find_variables(place)}"
            raise CheckpointError(
                f"{self.prefix} has no variables: expected {self.prefix}.index and "
                f"{self.prefix}.data-00000-of-00001{newest}"
            )
        with self._one_line():
            self._old = _OldReader(self.prefix, tail)
            self.shapes, self.dtypes = self._old.shapes, self._old.dtypes

    def _look_at(self, files: Sequence[str]) -> None:
        self.files = files
        for file in files:
            file_io.check_fetched(file)
        try:
            self.sizes = [file_io.stat(file).size for file in files]
        except OSError as error:
            raise CheckpointError(f"a checkpoint's file cannot be read: {reason(error)}") from error

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

    def check_place(self, entry: Entry) -> None:
        """CheckpointError where an entry's values are not inside of the file that it names."""
        if entry.shard_id >= len(self.files):
            raise DamagedError(f"{self.prefix} is damaged: it has no shard {entry.shard_id}")
        end = entry.offset + entry.size
        if self.sizes[entry.shard_id] < end:
            raise self._damage(
                f"{self.files[entry.shard_id]} has {self.sizes[entry.shard_id]} bytes, its index "
                f"speaks of {end}"
            )

    def read(self, key: str) -> Array:
        """The value of a tensor that there is; CheckpointError where it is damaged."""
        with self._one_line(f"{key}: "):
            if self._old is not None:
                return self._old.read(key)
            entry = self.index[key.encode()]
            return self._joined(key, entry) if entry.slices else self._stored(entry)

    def _stored(self, entry: Entry) -> Array:
        """The values of an entry without slices."""
        self.check_place(entry)
        return bundle.read_values(self.files[entry.shard_id], entry, self._is_big_endian)

    def _joined(self, key: str, entry: Entry) -> Array:
        """A tensor that was saved in slices, which have to fill it."""
        parts = {}
        for part in entry.slices:
            stored = self.index.get(bundle.slice_key(key.encode(), part))
            if stored is None or stored.dtype != entry.dtype or stored.slices:
                raise ValueError("it lacks a slice")
            place = tuple(
                slice(start, start + (size if length is None else length))
                for start, length, size in zip(*part, entry.shape, strict=True)
            )
            if stored.shape != tuple(each.stop - each.start for each in place):
                raise ValueError("a slice is not of its shape")
            self.check_place(stored)  # Before memory is taken for all of them.
            parts[part] = place, stored
        if sum(math.prod(s.shape) for _, s in parts.values()) != math.prod(entry.shape):
            raise ValueError("its slices do not fill it")
        value = np.empty(entry.shape, self.dtypes[key].as_numpy_dtype)
        filled = np.zeros(entry.shape, bool)
        for place, stored in parts.values():
            if filled[place].any():
                raise ValueError("its slices overlap")
            value[place], filled[place] = self._stored(stored), True
        return value

    @contextmanager
    def _one_line(self, of_what: str = "") -> Iterator[None]:
        """Makes a CheckpointError of what is raised where values make no sense."""
        try:
            yield
        except (ValueError, IndexError) as error:
            raise self._damage(f"{of_what}{error}") from error
        except OSError as error:
            raise CheckpointError(f"{self.prefix} cannot be read: {reason(error)}") from error

    def _damage(self, line: str) -> DamagedError:
        """What to say of values that make no sense: that they are none, where they look so."""
        for file in self.files:
            if kind := file_io.kind_of(file_io.read_head(file, file_io.HEAD_BYTES)):
                return DamagedError(f"{file} holds no values: it is {kind}")
        return DamagedError(f"{self.prefix} is damaged: {line}")

    @functools.cached_property
    def names(self) -> Mapping[str, str]:
        """Name -> key of each tensor; the key itself, but in a checkpoint of objects.

        There it is the variable's, or where several have it the path of its object. Format:
        `tensorflow/core/protobuf/trackable_object_graph.proto`.
        """
        named = defaultdict[str, set[str]](set)
        try:
            graph = self.read(OBJECT_GRAPH).item() if OBJECT_GRAPH in self.shapes else b""
            for node in bundle.fields_of(graph).get(1, ()):
                for attribute in map(bundle.fields_of, bundle.fields_of(node).get(2, ())):
                    name, key = (bundle.last_of(attribute, n, b"").decode() for n in (2, 3))
                    named[name].add(key)
        except (DecodeError, TypeError, ValueError) as error:
            raise self._damage(f"{OBJECT_GRAPH}: {error}") from error
        own = {key: name for name, (key, *others) in named.items() if name and not others}
        names = {key: own.get(key, key.removesuffix(OBJECT_SUFFIX)) for key in self.shapes}
        names.pop(OBJECT_GRAPH, None)
        found = {name: key for key, name in names.items() if name == key}
        for key, name in names.items():
            if name != key:
                found[key if name in found else name] = key
        return found


class _OldReader:
    """The tensors of a checkpoint of the format V1; what it raises for damage is a ValueError."""

    def __init__(self, prefix: str, tail: str) -> None:
        """Opens the files that TensorFlow finds by a pattern: the prefix and `tail`."""
        try:
            import tensorflow as tf

            self._tf: Any = tf
            new_reader = tf.compat.v1.train.NewCheckpointReader
        except (ImportError, NotInstalledError) as error:
            raise NotInstalledError(
                f"{prefix} is of the format V1, of 2016, which only TensorFlow reads: pip install "
                "tensorflow"
            ) from error
        self._prefix, plain = prefix, prefix
        if os.name != "nt":  # There, a backslash escapes nothing.
            plain = re.sub(r"[*?\[\\]", r"\\\g<0>", prefix)
        self._escaped, self._pattern = plain, plain + tail
        with self._one_error():
            # Not tf.train.load_checkpoint: given a folder of that name, it follows the state file.
            self._reader = new_reader(self._pattern)
            self.shapes: dict[str, list[int]] = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
            self.dtypes = {key: DType(dtype.name) for key, dtype in dtypes.items()}

    def read(self, key: str) -> Array:
        """The value of a tensor."""
        tf, dtype = self._tf, self.dtypes[key]
        with self._one_error():
            try:
                value = self._reader.get_tensor(key)
            except tf.errors.OpError:  # A restore operation is slow, but joins slices.
                with tf.Graph().as_default(), tf.compat.v1.Session() as session:
                    restored = tf.raw_ops.Restore(
                        file_pattern=self._pattern, tensor_name=key, dt=dtype
                    )
                    value = session.run(restored)
            # A single text comes as bytes, of which NumPy's own kind loses zeros at the end.
            return np.asarray(value, dtype.as_numpy_dtype)

    @contextmanager
    def _one_error(self) -> Iterator[None]:
        """Makes a ValueError of whatever TensorFlow raises, in its line the prefix as it is."""
        of_python = (IndexError, OverflowError, RuntimeError, SystemError, TypeError, ValueError)
        try:
            yield
        except (self._tf.errors.OpError, *of_python) as error:
            line = reason(error) or "it cannot be read"
            raise ValueError(line.replace(self._escaped, self._prefix)) from error


def _shards(prefix: str, stem: str, names: Collection[str]) -> list[str]:
    """What follows `stem` in the names of its shards: `-00000-of-00001` and so on, all there."""
    tails = (name.removeprefix(stem) for name in names if name.startswith(stem))
    found = sorted((m[1], m[2]) for tail in tails if (m := _SHARD.fullmatch(tail)))
    if not found:
        return []
    _, of = found[-1]
    missing = [n for n in range(int(of)) if (f"{n:05d}", of) not in found]
    if missing:
        raise DamagedError(f"{prefix} lacks shard {missing[0]:05d} of its {int(of)} data files")
    return [f"-{number:05d}-of-{of}" for number in range(int(of))]


# How the tensors of a checkpoint lie in its files, as the index tells.


class StoredTensor(NamedTuple):
    """How a tensor is stored; in the format V1, which compresses, neither is known."""

    slices: int | None = None  # It was saved in; 0 where it was saved whole.
    disk_bytes: int | None = None  # It takes in the files.


def stored_tensors(reader: CheckpointReader) -> dict[str, StoredTensor]:
    """How each tensor lies in its files; CheckpointError where one is shorter than it should be."""
    sizes: dict[str, int] = defaultdict(int)
    slices: dict[str, int] = {}
    for key, entry in reader.index.items():
        reader.check_place(entry)
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


# The newest checkpoint of a folder that is whole and fits the model.

_MOST_NAMED = 4


class Restored(NamedTuple):
    """A checkpoint that has passed every check; `manifest` is None where it has none."""

    step: int
    prefix: str
    values: Mapping[str, Array]
    manifest: Manifest | None


def restore_newest(
    folder: str,
    expected: Mapping[str, VariableSpec],
    check: Callable[[str, Manifest], None] = lambda _, __: None,
) -> Restored | None:
    """Reads the newest checkpoint that is complete, undamaged and has the `expected` variables.

    It is None where the folder has none. What is stepped over is logged, a line each. `check` is
    given the prefix and the manifest of what is undamaged, before its variables are looked at; what
    it raises, but a CheckpointError, ends the search. CheckpointError where none is good,
    LaterVersionError where a later version made one.
    """
    reasons = []
    for step in reversed(usable_steps(folder)):
        try:
            return restore(folder, step, expected, check)
        except LaterVersionError:
            raise
        except CheckpointError as error:
            prefix = layout.checkpoint_prefix(folder, step)
            logging.warning("stepping over %s: %s", prefix, error)
            reasons.append(str(error))
    if reasons:
        raise CheckpointError(
            f"none of the {len(reasons)} checkpoints in {folder} is good (the newest: "
            f"{reasons[0]}): train into another folder with --ckpt_dir"
        )
    return None


def restore(
    folder: str,
    step: int,
    expected: Mapping[str, VariableSpec],
    check: Callable[[str, Manifest], None] = lambda _, __: None,
) -> Restored:
    """Reads one checkpoint; CheckpointError unless it is as `restore_newest` wants it."""
    prefix = layout.checkpoint_prefix(folder, step)
    found = layout.read_manifest(folder, step)
    if found is None:
        logging.warning("%s has no manifest: TensorFlow's own checksums have to do", prefix)
    else:
        layout.verify_files(folder, found)
        check(prefix, found)
    values = read_variables(prefix, expected)
    if values.get("global_step", step) != step:
        raise CheckpointError(f"it is of step {values['global_step']}, whatever its name says")
    return Restored(step, prefix, values, found)


def read_variables(prefix: str, expected: Mapping[str, VariableSpec]) -> dict[str, Array]:
    """Reads exactly the expected variables, each checked before any is read.

    CheckpointError where a file is missing or damaged, or variables are missing, too many or of
    another shape or dtype; the first such are named.
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
