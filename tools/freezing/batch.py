"""Values to try a graph on, made up from the dtypes and shapes of its inputs."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.tensor_info import TensorInfo
from prediction.wiring import wiring_of
from tools.freezing.examples import example_of

_SEED = 0
# Rows, what stands for other sizes that are not known, and the rank where that is not known. The
# first that the graph takes is used; a rank of None is that of the rows alone.
_ROWS = (2, 1, 3, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256)
_WIDTHS, _RANKS = (8, 1, 28, 32, 64, 224, 256), (1, 2, 4, 0, 3)
_INTEGERS_BELOW = (2, 1)  # Numbers of rows or of words are below a limit that is not known.
_MOST = 300


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


class ValueMaker:
    """Makes values for the inputs of a graph, the same ones for the same trial."""

    def __init__(self, meta: MetaGraphFile, infos: Sequence[TensorInfo]) -> None:
        """Takes the inputs.

        Args:
          meta: the file, in which it is looked up what a string is taken for.
          infos: the inputs.
        """
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
        dtype = info.dtype.as_numpy_dtype
        if info.dtype == tf.string:
            texts = np.empty(shape, object)
            texts.fill(self._examples[info.name])  # By another way, NumPy drops zeros at its end.
            return texts
        if info.dtype == tf.bool:
            return np.asarray(rng.random(shape) < 0.5)
        if info.dtype.is_integer:
            return np.asarray(rng.integers(0, trial.below, shape)).astype(dtype)
        if info.dtype.is_complex:
            return np.asarray(rng.random(shape) + 1j * rng.random(shape)).astype(dtype)
        return np.asarray(rng.random(shape)).astype(dtype)


def _shape(info: TensorInfo, trial: Trial) -> tuple[int, ...]:
    shape = info.shape if info.shape is not None else (None,) * trial.rank
    return tuple(
        size if size is not None else trial.rows if place == 0 else trial.width
        for place, size in enumerate(shape)
    )
