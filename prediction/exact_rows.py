"""Runs in which a row's result does not depend on its company: how many rows, which, and where.

A kernel sums in another order for another number of rows, and where its work is split among threads
in another one again. So each run here has the same number of rows, the last one filled up, and
predict.py gives an operation one thread: what keeps all processors busy is runs side by side.

That a graph takes its rows one by one is tried on the first of them, not taken for granted.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from cli.terminal import ONEDNN_VARIABLE, is_off, processors
from errors import CheckpointError
from metagraph.description import Array, RunnableGraph, as_numpy_dtype

# Rows a run: as many as are fast, but few where they are large, as the last run is filled up. At
# each of these all rows are treated alike by oneDNN's kernels (those for AVX2 do not at 8 or 32),
# and at the fewer ones by TensorFlow's own (docs/measurements.md).
_SIZES = (64, 16, 4, 1)
_SIZES_WITHOUT_ONEDNN = (16, 1)
_MOST_BYTES = 1 << 20  # of a run's rows
_TOLERANCE = 1e-3  # of the largest value: far above a float32's last bits
_SHARE = 0.9  # of the entries that are no floats: the last bits may turn a class


class MixedRowsError(Exception):
    """The graph is to run its rows as they come."""


class ExactRuns:
    """Runs rows of a graph, so many a run, on as many threads as there are processors."""

    def __init__(
        self,
        graph: RunnableGraph,
        are_rows: Sequence[bool],
        are_results: Sequence[bool],
        row_bytes: int,
    ) -> None:
        """Takes which feeds have rows, of so many bytes, and which fetches a result for each."""
        sizes = _SIZES_WITHOUT_ONEDNN if is_off(os.environ.get(ONEDNN_VARIABLE, "")) else _SIZES
        self.size = next((n for n in sizes if n * row_bytes <= _MOST_BYTES), 1)
        self.tried = max(2, self.size)  # Rows of the first call, if there are so many.
        self.threads = processors()
        self._is_tried = False
        self._graph, self._are_rows, self._are_results = graph, are_rows, are_results
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="exact-rows")

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def run(self, *values: Array) -> list[Array]:
        """As `RunnableGraph.run`; at first, MixedRowsError where rows do not go alone."""
        if not self._is_tried and not self._rows_go_alone(self._some(values, slice(0, self.tried))):
            raise MixedRowsError
        self._is_tried = True
        count = self._count(values)
        pieces = [self._filled(values, start) for start in range(0, count, self.size)]
        results = self._graph.run_each(pieces, self._pool)
        return self._join(results, count) or self._graph.run(*values)

    def _count(self, values: Sequence[Array]) -> int:
        return next(len(v) for v, are_rows in zip(values, self._are_rows, strict=True) if are_rows)

    def _filled(self, values: Sequence[Array], start: int) -> list[Array]:
        """The rows of one run, from `start` on."""
        rows = self._some(values, slice(start, start + self.size))
        pairs = zip(rows, self._are_rows, strict=True)
        return [filled(v, self.size) if are_rows else v for v, are_rows in pairs]

    def _some(self, values: Sequence[Array], rows: slice) -> list[Array]:
        """Some of the rows, with what else is fed."""
        pairs = zip(values, self._are_rows, strict=True)
        return [value[rows] if are_rows else value for value, are_rows in pairs]

    def _join(self, runs: Sequence[Sequence[Array]], count: int) -> list[Array]:
        """The results of `count` rows; none where one has not an entry of one shape for each."""
        joined = []
        for are_results, parts in zip(self._are_results, zip(*runs, strict=True), strict=True):
            shape = (self.size, *parts[0].shape[1:])
            if are_results and any(part.shape != shape for part in parts):
                return []
            joined.append(np.concatenate(parts)[:count] if are_results else parts[0])
        return joined

    def _rows_go_alone(self, first: Sequence[Array]) -> bool:
        """Whether the first rows have the same results in other company; says so where not.

        `first` is what is fed of up to `tried` rows. Their halves are run once more, backwards: in
        another number, order and company.
        """
        count = self._count(first)
        half = count // 2 if self.size > 1 else 0  # Of rows that run one by one, two run at once.
        backwards = self._some(first, slice(None, None, -1))
        parts = [slice(count - half, count)] if half else []
        parts += [slice(0, count - half)]
        try:
            runs = self._graph.run_each(
                [self._filled(first, start) for start in range(0, count, self.size)]
            )
            others = self._graph.run_each([self._some(backwards, part) for part in parts])
            last = self._graph.run(*self._filled(backwards, 0))
        except CheckpointError:
            return False  # The run of the rows as they come says what is wrong, if it is.
        if not (expected := self._join(runs, count)):
            return False
        for info, are_results, one, two, three in zip(
            self._graph.fetches,
            self._are_results,
            map(as_numpy_dtype, expected),
            zip(*others, strict=True),
            map(as_numpy_dtype, last),
            strict=True,
        ):
            apart = not _near(one, _forwards(two) if are_results else two[0])
            if apart or (count == 1 and self._graph.mixing(info.name)):  # One shows nothing.
                warn_of_mixing(self._graph, info.name, ", which run as they come")
                return False
            turned = one[::-1][: self.size]
            if are_results and turned.tobytes() != three[: len(turned)].tobytes():
                logging.info("%s: its last bits depend on the rows beside a row", info.name)
        return True


def warn_of_mixing(graph: RunnableGraph, name: str, effect: str = "") -> None:
    """Says of a fetched tensor that its rows depend on each other, and what may be the reason."""
    why = graph.mixing(name) or "as batch normalisation in training mode has it"
    told = "%s: what a row gives depends on the rows beside it%s: %s"
    logging.warning(told, name, effect, why)


def _forwards(parts: Sequence[Array]) -> Array:
    """The results of rows that ran backwards; empty where those of a part have another shape."""
    rows = [np.atleast_1d(part)[::-1] for part in parts]
    return np.concatenate(rows) if len({part.shape[1:] for part in rows}) == 1 else rows[0][:0]


def filled(rows: Array, size: int) -> Array:
    """So many rows: the last one again where there are too few.

    Not zeros: one may be divided by, and an empty string is no image that can be decoded.
    """
    missing = size - len(rows)
    return np.concatenate([rows, rows[-1:].repeat(missing, 0)]) if missing else rows


def _near(one: Array, two: Array) -> bool:
    """Whether values are the same but for last bits, NaN being NaN, or classes but for a few."""
    two = as_numpy_dtype(two)
    if one.shape != two.shape:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.mean(one == two) >= _SHARE) if one.size else True
    scale = np.abs(one[np.isfinite(one)]).max(initial=0)
    return np.allclose(one, two, rtol=0, atol=_TOLERANCE * scale, equal_nan=True)
