"""Values to try a graph on that nobody has given any data for, made up of its inputs' dtypes."""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf

from checkpoints.reader import Array
from errors import CheckpointError, ToolError
from metagraph.meta import TensorInfo

_SEED = 0
# Of integers the limit, as numbers of rows or words are below one that is not known; then what
# stands for a first size, a rank and another size that are not known. The likeliest are first.
_BELOW, _ROWS = (2, 1), (2, 1, 3, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256)
_RANKS, _WIDTHS = (1, 2, 4, 0, 3), (8, 1, 28, 32, 64, 224, 256)
_MOST = 300  # Trials.
_LEVELS = 256  # Of a pixel.
Result = TypeVar("Result")


def try_batches(
    infos: Sequence[TensorInfo], run: Callable[[Sequence[Array]], Result]
) -> tuple[list[Array], Result]:
    """Makes up a batch that a graph takes: the same one each time.

    Floating numbers are in [0, 1), bytes in [0, 256), other integers 0 or 1, texts empty. A single
    bool is False, as it is most often a switch for training.

    Args:
      infos: the inputs. Sizes that are not known are guessed.
      run: runs the graph with a value for each input, in their order.

    Returns the values, and what the graph has made of them. Raises CheckpointError, with the reason
    of the first, where it takes none of the batches; ToolError where a dtype has no values.
    """
    first, tried = CheckpointError("there is nothing to try"), set[object]()
    counts = any(info.dtype.is_integer for info in infos)
    for below, rows, rank, width in itertools.product(_BELOW, _ROWS, _RANKS, _WIDTHS):
        shapes = tuple(_shape(info, rows, rank, width) for info in infos)
        trial = (shapes, below if counts else None)
        if trial in tried or len(tried) == _MOST:
            continue
        tried.add(trial)
        rng = np.random.default_rng(_SEED)
        pairs = zip(infos, shapes, strict=True)
        values = [_value(info, shape, below, rng) for info, shape in pairs]
        try:
            return values, run(values)
        except CheckpointError as refused:
            first = refused if len(tried) == 1 else first
    raise first


def _shape(info: TensorInfo, rows: int, rank: int, width: int) -> tuple[int, ...]:
    """Of a bool that may have any shape, that of a single one."""
    sizes = info.shape
    if sizes is None:
        sizes = () if info.dtype.is_bool else (None,) * rank
    defaults = (rows, *(width,) * len(sizes[1:]))
    return tuple(
        default if size is None else size for size, default in zip(sizes, defaults, strict=False)
    )


def _value(info: TensorInfo, shape: Sequence[int], below: int, rng: np.random.Generator) -> Array:
    """A value of the tensor's very dtype."""
    dtype = info.dtype
    if dtype == tf.string:
        return np.full(shape, b"", object)
    if dtype.is_bool:
        return np.asarray(rng.random(shape) < 0.5 if shape else False)
    if dtype.is_integer:
        most = _LEVELS if dtype == tf.uint8 and below > 1 else below
        return np.asarray(rng.integers(0, most, shape)).astype(dtype.as_numpy_dtype)
    if not (dtype.is_floating or dtype.is_complex):
        raise ToolError(f"{info.name} is a {dtype.name}, of which no value can be made up")
    numbers = rng.random(shape) + (1j * rng.random(shape) if dtype.is_complex else 0)
    return np.asarray(numbers).astype(dtype.as_numpy_dtype)
