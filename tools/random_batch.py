"""Values to try a graph on that nobody has given any data for, made up of its inputs' dtypes."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf
from tensorflow.core.example.example_pb2 import Example

from checkpoints.reader import Array
from errors import CheckpointError, ToolError
from metagraph.graph import View, attribute_of, data_inputs, source, text_at
from metagraph.meta import MetaGraphFile, TensorInfo, node_of
from metagraph.usage import wiring_of

_SEED = 0
# Of integers the limit, as numbers of rows or words are below one that is not known; then what
# stands for a first size, a rank and another size that are not known.
_BELOW, _ROWS = (2, 1), (2, 1, 3, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256)
_RANKS, _WIDTHS = (1, 2, 4, 0, 3), (8, 1, 28, 32, 64, 224, 256)
_MOST = 300  # Trials.
_LEVELS = 256  # Of a pixel.
Result = TypeVar("Result")


def try_batches(
    meta: MetaGraphFile, infos: Sequence[TensorInfo], run: Callable[[Sequence[Array]], Result]
) -> tuple[list[Array], Result]:
    """Makes up a batch that a graph takes: the same one each time.

    Floating numbers are in [0, 1), bytes in [0, 256), other integers 0 or 1. A single bool is
    False, as it is most often a switch for training. A text is empty, or a serialized `tf.Example`
    of the features that are parsed from it.

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
    texts = {info.name: _example(meta, info.name) for info in infos if info.dtype == tf.string}
    first: CheckpointError | None = None
    for below, rows, rank, width in _trials(infos):
        rng = np.random.default_rng(_SEED)
        values = []
        for info in infos:
            sizes = _any_shape(info, rank) if info.shape is None else info.shape
            known = (size if size is not None else width for size in sizes[1:])
            shape = (sizes[0] if sizes[0] is not None else rows, *known) if sizes else ()
            values.append(_value(info, shape, below, rng, texts.get(info.name, b"")))
        try:
            return values, run(values)
        except CheckpointError as refused:
            first = first or refused
    assert first is not None  # noqa: S101 (there is always a trial)
    raise first


def _trials(infos: Sequence[TensorInfo]) -> Iterator[tuple[int, int, int, int]]:
    """The likeliest first; one or two where no size is unknown."""
    any_rank = any(info.shape is None for info in infos)
    any_rows = any_rank or any(None in info.shape[:1] for info in infos if info.shape)
    any_width = any_rank or any(None in info.shape[1:] for info in infos if info.shape)
    open_choices = {
        _BELOW: any(info.dtype.is_integer for info in infos),
        _ROWS: any_rows,
        _RANKS: any_rank,
        _WIDTHS: any_width,
    }
    tried = (choices if is_open else choices[:1] for choices, is_open in open_choices.items())
    below, rows, ranks, widths = tried
    return itertools.islice(itertools.product(below, rows, ranks, widths), _MOST)


def _any_shape(info: TensorInfo, rank: int) -> tuple[None, ...]:
    """Of a bool that may have any shape, that of a single one."""
    return () if info.dtype.is_bool else (None,) * rank


def _value(
    info: TensorInfo, shape: Sequence[int], below: int, rng: np.random.Generator, text: bytes
) -> Array:
    """A value of the tensor's very dtype."""
    dtype = info.dtype
    if dtype == tf.string:
        texts = np.empty(shape, object)
        texts.fill(text)  # By another way, NumPy drops zeros at its end.
        return texts
    if dtype.is_bool:
        return np.asarray(rng.random(shape) < 0.5 if shape else False)
    if dtype.is_integer:
        most = _LEVELS if dtype == tf.uint8 and below > 1 else below
        return np.asarray(rng.integers(0, most, shape)).astype(dtype.as_numpy_dtype)
    if not (dtype.is_floating or dtype.is_complex):
        raise ToolError(f"{info.name} is a {dtype.name}, of which no value can be made up")
    numbers = rng.random(shape) + (1j * rng.random(shape) if dtype.is_complex else 0)
    return np.asarray(numbers).astype(dtype.as_numpy_dtype)


def _example(meta: MetaGraphFile, tensor: str) -> bytes:
    """An example with a value for each dense feature that the takers of a tensor ask for.

    It is empty where nothing parses the tensor.

    Operations: `tensorflow/core/ops/parsing_ops.cc`.
    """
    example, wiring = Example(), wiring_of(meta)
    for name in wiring.takers.get(node_of(tensor), ()):
        node = wiring.nodes[name]
        types = attribute_of(node, "Tdense").list.type
        shapes = attribute_of(node, "dense_shapes").list.shape
        inputs, names = data_inputs(node), list[tuple[str, int]]()
        if node.op == "ParseExampleV2":  # One vector of all names.
            names = [(inputs[3], index) for index in range(len(types))]
        elif node.op == "ParseExample":  # A scalar each, after those of the sparse ones.
            names = [(text, 0) for text in inputs[2 + attribute_of(node, "Nsparse").i :]]
        for (text, index), dtype, shape in zip(names, types, shapes, strict=False):
            found = source(View(wiring.nodes), text)
            size = math.prod(max(1, dim.size) for dim in shape.dim)
            feature = example.features.feature[(found and text_at(found.node, index)) or ""]
            if dtype == tf.float32:
                feature.float_list.value.extend([0.5] * size)
            elif dtype == tf.int64:
                feature.int64_list.value.extend([0] * size)
            else:
                feature.bytes_list.value.extend([b""] * size)
    return bytes(example.SerializeToString(deterministic=True))
