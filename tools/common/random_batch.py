"""Values to try a graph on that nobody has given any data for, made up of its inputs' dtypes."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.tensor_info import TensorInfo
from prediction.wiring import wiring_of
from tools.common.errors import ToolError
from tools.common.tf_example import example_of

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
