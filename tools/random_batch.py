"""Values to try a graph on that nobody has given any data for, made up of its inputs' dtypes.

A graph that takes a serialized `tf.Example` apart is given one.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.reader import Array
from errors import CheckpointError, ToolError
from metagraph.graph import View, attribute_of, data_inputs, source, text_at
from metagraph.meta import MetaGraphFile, TensorInfo, node_of
from metagraph.usage import Wiring, wiring_of

# A serialized `tf.Example` for a graph that takes such apart.
#
# Operations: `tensorflow/core/ops/parsing_ops.cc`. Format: `tensorflow/core/example/example.proto`.

_PARSERS = ("ParseExample", "ParseExampleV2")


def example_of(wiring: Wiring, tensor: str) -> bytes:
    """An example with a value for each dense feature that the takers of a tensor ask for.

    Args:
      wiring: of the graph.
      tensor: a tensor of strings, in full.

    Returns:
      An empty text, which is an empty example too, where nothing parses the tensor.
    """
    example = Example()
    for name in wiring.takers.get(node_of(tensor), ()):
        node = wiring.nodes[name]
        if node.op in _PARSERS:
            for key, dtype, size in _dense_features(wiring, node):
                _add_feature(example, key, dtype, size)
    return bytes(example.SerializeToString(deterministic=True))


def _dense_features(wiring: Wiring, node: NodeDef) -> Iterator[tuple[str, int, int]]:
    """The name, dtype and number of values of each feature."""
    types = attribute_of(node, "Tdense").list.type
    shapes = attribute_of(node, "dense_shapes").list.shape
    keys = _dense_keys(wiring, node, len(types))
    for key, dtype, shape in zip(keys, types, shapes, strict=False):
        yield key, dtype, math.prod(max(1, dim.size) for dim in shape.dim)


def _dense_keys(wiring: Wiring, node: NodeDef, count: int) -> Sequence[str]:
    """The names of the features; those that the graph computes are left out."""
    inputs = data_inputs(node)
    if node.op == "ParseExampleV2":  # One vector of all names.
        found = source(View(wiring.nodes), inputs[3]) if len(inputs) > 3 else None
        texts = [text_at(found.node, index) for index in range(count)] if found else []
    else:  # A scalar each, after the sparse ones.
        first = 2 + attribute_of(node, "Nsparse").i
        sources = [source(View(wiring.nodes), text) for text in inputs[first : first + count]]
        texts = [text_at(found.node, 0) if found else None for found in sources]
    return [text or "" for text in texts]


def _add_feature(example: Example, key: str, dtype: int, size: int) -> None:
    feature = example.features.feature[key]
    if dtype == tf.float32.as_datatype_enum:
        feature.float_list.value.extend([0.5] * size)
    elif dtype == tf.int64.as_datatype_enum:
        feature.int64_list.value.extend([0] * size)
    else:
        feature.bytes_list.value.extend([b""] * size)


# Values to try a graph on that nobody has given any data for, made up of its inputs' dtypes.

_SEED = 0
# Rows, what stands for other sizes that are not known, and the rank where that is not known. The
# first that the graph takes is used; a rank of None is that of the rows alone.
_ROWS = (2, 1, 3, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256)
_WIDTHS, _RANKS = (8, 1, 28, 32, 64, 224, 256), (1, 2, 4, 0, 3)
_INTEGERS_BELOW = (2, 1)  # Numbers of rows or of words are below a limit that is not known.
_LEVELS = 256  # Of a pixel.
_MOST = 300
Result = TypeVar("Result")


class Trial(NamedTuple):
    """How values are made up.

    Attributes:
      rows: the first size where it is not known.
      width: each other size that is not known.
      rank: the number of sizes where that is not known.
      below: integers are in [0, below).
    """

    rows: int
    width: int
    rank: int
    below: int


def try_batches(
    meta: MetaGraphFile, infos: Sequence[TensorInfo], run: Callable[[Sequence[Array]], Result]
) -> tuple[list[Array], Result]:
    """Makes up a batch that a graph takes: the same one each time.

    Floating numbers are in [0, 1), bytes in [0, 256), other integers 0 or 1. A single bool is
    False, as it is most often a switch for training. A text is empty, or an example of the features
    that are parsed from it.

    Args:
      meta: the file, in which it is looked up what a text is taken for.
      infos: the inputs. Sizes that are not known are guessed.
      run: runs the graph with a value for each input, in their order.

    Returns:
      The values, and what the graph has made of them.

    Raises:
      CheckpointError: it takes none of the batches that are tried; the reason is that of the first.
      ToolError: there are no values of an input's dtype.
    """
    maker = _ValueMaker(meta, infos)
    first: CheckpointError | None = None
    for trial in trials(infos):
        values = maker.values(trial)
        try:
            return values, run(values)
        except CheckpointError as refused:
            first = first or refused
    assert first is not None  # noqa: S101 (there is always a trial)
    raise first


def trials(infos: Sequence[TensorInfo]) -> Iterator[Trial]:
    """Ways to make values up, the likeliest first; one or two where no size is unknown."""
    yield from itertools.islice(_trials(infos), _MOST)


def _trials(infos: Sequence[TensorInfo]) -> Iterator[Trial]:
    ranks = _RANKS if any(info.shape is None for info in infos) else _RANKS[:1]
    inner = any(None in (info.shape or ())[1:] for info in infos) or len(ranks) > 1
    any_rows = len(ranks) > 1 or any(None in (info.shape or ())[:1] for info in infos)
    widths = _WIDTHS if inner else _WIDTHS[:1]
    integers = any(info.dtype.is_integer for info in infos)
    for below in _INTEGERS_BELOW if integers else _INTEGERS_BELOW[:1]:
        for rows in _ROWS if any_rows else _ROWS[:1]:
            for rank in ranks:
                for width in widths:
                    yield Trial(rows, width, rank, below)


class _ValueMaker:
    """Makes values for the inputs of a graph, the same ones for the same trial."""

    def __init__(self, meta: MetaGraphFile, infos: Sequence[TensorInfo]) -> None:
        self._infos = infos
        strings = [info.name for info in infos if info.dtype == tf.string]
        wiring = wiring_of(meta) if strings else None
        self._examples = {name: example_of(wiring, name) for name in strings if wiring}

    def values(self, trial: Trial) -> list[Array]:
        """A value for each input, in their order, of its very dtype."""
        rng = np.random.default_rng(_SEED)
        return [self._value(info, trial, rng) for info in self._infos]

    def _value(self, info: TensorInfo, trial: Trial, rng: np.random.Generator) -> Array:
        shape = _shape(info, trial)
        if info.dtype == tf.string:
            texts = np.empty(shape, object)
            texts.fill(self._examples[info.name])  # By another way, NumPy drops zeros at its end.
            return texts
        return _drawn(info, shape, trial.below, rng)


def _drawn(info: TensorInfo, shape: Sequence[int], below: int, rng: np.random.Generator) -> Array:
    dtype = info.dtype
    if dtype.is_bool:
        return np.asarray(rng.random(shape) < 0.5 if shape else False)
    if dtype.is_integer:
        most = _LEVELS if dtype == tf.uint8 and below > 1 else below
        return np.asarray(rng.integers(0, most, shape)).astype(dtype.as_numpy_dtype)
    if not (dtype.is_floating or dtype.is_complex):
        raise ToolError(f"{info.name} is a {dtype.name}, of which no value can be made up")
    numbers = rng.random(shape) + (1j * rng.random(shape) if dtype.is_complex else 0)
    return np.asarray(numbers).astype(dtype.as_numpy_dtype)


def _shape(info: TensorInfo, trial: Trial) -> tuple[int, ...]:
    """The shape of a value; of a bool that may have any, that of a single one."""
    if info.shape is None and info.dtype.is_bool:
        return ()
    shape = info.shape if info.shape is not None else (None,) * trial.rank
    return tuple(
        size if size is not None else trial.rows if place == 0 else trial.width
        for place, size in enumerate(shape)
    )
