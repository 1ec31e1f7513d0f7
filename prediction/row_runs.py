"""How rows run through a graph: batch by batch, and so that a row's result is its own.

A kernel sums in another order for another number of rows, and where its work is split among threads
in another one again. So each exact run has the same number of rows, the last one filled up, and
predict.py gives an operation one thread: what keeps all processors busy is runs side by side. That
a graph takes its rows one by one is tried on the first of them, not taken for granted.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from enum import Enum, auto
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from tqdm import tqdm

from cli.terminal import ONEDNN_VARIABLE, is_off, processors
from data.batches import read_ahead
from data.files import Indices
from errors import CheckpointError, PredictionError
from metagraph.description import Array, RunnableGraph, TensorInfo, as_numpy_dtype
from prediction.file_inputs import Rows

DEFAULT_BATCH_SIZE = 256
DEFAULT_BATCH_BYTES = 2**28  # The most of a batch whose size is not given.
# Rows a run: as many as are fast, but few where they are large, as the last run is filled up. At
# each of these all rows are treated alike by oneDNN's kernels (those for AVX2 do not at 8 or 32),
# and at the fewer ones by TensorFlow's own (docs/measurements.md).
_SIZES = (64, 16, 4, 1)
_SIZES_WITHOUT_ONEDNN = (16, 1)
_MOST_BYTES = 1 << 20  # of a run's rows
_TOLERANCE = 1e-3  # of the largest value: far above a float32's last bits
_SHARE = 0.9  # of the entries that are no floats: the last bits may turn a class


class Kind(Enum):
    """How a fetched tensor goes with the rows."""

    ROWS = auto()  # its first dimension is the row's
    CONSTANT = auto()  # it does not depend on the rows
    WHOLE = auto()  # one value over all rows, such as a mean


class Batching(NamedTuple):
    """How rows are cut into runs: so many a run, and whether the graph takes no other number."""

    size: int
    fixed: bool


def choose_batching(
    feeds: Sequence[tuple[TensorInfo, Rows | Array]],
    fetches: Sequence[tuple[TensorInfo, Kind]],
    asked: int | None,
) -> Batching:
    """Cuts rows as the graph takes them, or else as was `asked` for, or else into fast runs."""
    infos, rows = zip(*(pair for pair in feeds if isinstance(pair[1], Rows)), strict=True)
    num_rows = len(rows[0])
    if any(feed.columns for feed in rows):
        return Batching(num_rows, fixed=False)
    sizes = {info.shape[0]: info.name for info in infos if info.shape and info.shape[0]}
    if len(sizes) > 1:
        described = ", ".join(f"{name} {size}" for size, name in sizes.items())
        raise PredictionError(f"the graph takes different numbers of rows a run: {described}")
    for size, name in sizes.items():
        if asked not in (None, size):
            raise PredictionError(f"{name} takes {size} rows a run: leave out --batch_size")
        return Batching(size, fixed=True)
    whole = next((info.name for info, kind in fetches if kind is Kind.WHOLE), None)
    if whole is None:
        fewer = DEFAULT_BATCH_BYTES // max(1, _row_bytes(rows))  # Where rows are large.
        return Batching(asked or max(1, min(DEFAULT_BATCH_SIZE, fewer)), fixed=False)
    if asked is not None and asked < num_rows:
        raise PredictionError(
            f"{whole} is one value over all {num_rows} rows, not one a row: leave out "
            f"--batch_size, or give at least {num_rows}"
        )
    if num_rows > DEFAULT_BATCH_SIZE:
        logging.info("%s is one value over all %d rows: they run at once", whole, num_rows)
    return Batching(num_rows, fixed=False)


def _of_one_size(feeds: Sequence[Rows]) -> list[Indices]:
    """The numbers of the rows that may run together: images of one size, the largest first."""
    known = [feed.sizes for feed in feeds if feed.sizes]
    if not known:
        return [np.arange(len(feeds[0]))]
    groups: dict[Any, list[int]] = {}
    for row, sizes in enumerate(zip(*known, strict=True)):
        groups.setdefault(sizes, []).append(row)
    largest = sorted(groups, key=lambda sizes: -sum(map(math.prod, sizes)))
    return [np.array(groups[sizes]) for sizes in largest]


def _row_bytes(feeds: Sequence[Rows]) -> int:
    """What the first row of the largest images takes in all feeds."""
    first = _of_one_size(feeds)[0][:1]
    firsts = [feed.take(first) for feed in feeds]
    return sum(sum(map(len, f.flat)) if f.dtype.kind == "O" else f.nbytes for f in firsts)


def run_rows(
    graph: RunnableGraph,
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    batch_size: int | None = None,
    *,
    exact: bool = False,
) -> list[Any]:
    """Runs all rows through the graph; gives the rows of each fetch in order, or its one value.

    `feeds` has, for each of `graph.feeds`, rows to be fed a batch at a time, or an array to be fed
    as it is in every batch; at least one has rows, and all that have are of equal length. `kinds`
    are those of `graph.fetches`. Where the graph takes a fixed number of rows, the last run is
    filled up, and its results are cut back. Where it takes any number, and `exact` is asked for,
    a row's results do not depend on the rows that run beside it, see `ExactRuns`. Raises
    PredictionError where rows and results do not go together in such batches.
    """
    rows = [feed for feed in feeds if isinstance(feed, Rows)]
    fed = [*zip(graph.feeds, feeds, strict=False)]
    batching = choose_batching(fed, [*zip(graph.fetches, kinds, strict=True)], batch_size)
    if Kind.WHOLE in kinds and not batching.fixed and len(_of_one_size(rows)) > 1:
        whole = graph.fetches[kinds.index(Kind.WHOLE)].name
        raise PredictionError(f"{whole} is one value over all rows, and images differ in size")
    is_plain = not exact or batching.fixed or not graph.is_pure or Kind.WHOLE in kinds
    if is_plain or any(feed.columns for feed in rows):
        return _run_batches(graph, graph.run, feeds, kinds, batching)
    are_rows, are_results = [isinstance(f, Rows) for f in feeds], [k is Kind.ROWS for k in kinds]
    with closing(ExactRuns(graph, are_rows, are_results, _row_bytes(rows))) as runs:
        # Some runs for each thread, as all wait for the last of them.
        wanted = batch_size or max(batching.size, 4 * runs.size * runs.threads)
        rounded = max(runs.tried, -(-wanted // runs.size) * runs.size)
        with suppress(MixedRowsError):
            return _run_batches(graph, runs.run, feeds, kinds, Batching(rounded, fixed=False))
    return _run_batches(graph, graph.run, feeds, kinds, batching)


def _run_batches(
    graph: RunnableGraph,
    run: Callable[..., list[Array]],
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    batching: Batching,
) -> list[Any]:
    """Runs the rows batch by batch, with a progress bar; see `run_rows`."""
    given = [feed for feed in feeds if isinstance(feed, Rows)]
    num_rows, groups, (size, fixed) = len(given[0]), _of_one_size(given), batching
    several = len(groups) > 1
    runs = [group[at : at + size] for group in groups for at in range(0, len(group), size)]
    values: list[Any] = [None] * len(kinds)
    # The bar appears after a second, on a terminal only, and goes when it is full.
    with tqdm(
        total=num_rows, unit="row", file=sys.stderr, disable=None, leave=False, delay=1
    ) as progress:
        for step, batch in enumerate(_batches(feeds, batching, runs)):
            results, numbers = run(*batch), runs[step]
            rows = len(numbers)
            if step == 0:
                warn_if_random(graph, batch, results)
            if rows == num_rows and (rows == size or not fixed):
                return results  # One run of all rows: its values as they are.
            is_alone = (fixed and size == 1) or (several and rows == 1)
            for number, (info, kind) in enumerate(zip(graph.fetches, kinds, strict=True)):
                result, value = results[number], values[number]
                if kind is Kind.CONSTANT:
                    values[number] = result if value is None else value
                    continue
                is_whole = is_alone and result.shape[:1] != (1,)  # All of it is that row's.
                result = result[np.newaxis] if is_whole else result
                if value is None:
                    shape = (num_rows, *result.shape[1:])
                    value = values[number] = {} if several else np.empty(shape, result.dtype)
                expected = (size if fixed else rows, *(result if several else value).shape[1:])
                _check_shape(info.name, result, expected, batching, num_rows)
                if several:
                    value.update(zip(numbers, np.split(result[:rows], rows), strict=True))
                else:
                    value[numbers] = result[:rows]
            progress.update(rows)
    return [_in_order(value) if isinstance(value, dict) else value for value in values]


def _in_order(rows: Mapping[int, Array]) -> Array | list[Array]:
    """Rows [1, ...] as one array; each by itself where they are of several shapes."""
    ordered = [rows[number] for number in sorted(rows)]
    return np.concatenate(ordered) if len({row.shape for row in ordered}) == 1 else ordered


def _batches(
    feeds: Sequence[Rows | Array], batching: Batching, runs: Sequence[Indices]
) -> Iterator[list[Array]]:
    """What each run is fed, the rows of these numbers, read while the one before it runs."""

    def fed(feed: Rows | Array, numbers: Indices) -> Array:
        if not isinstance(feed, Rows):
            return feed
        rows = feed.take(numbers)
        return filled(rows, batching.size) if batching.fixed else rows

    return read_ahead(lambda step: [fed(feed, runs[step]) for feed in feeds], 0, len(runs))


def _check_shape(
    name: str, result: Array, expected: Sequence[int], batching: Batching, num_rows: int
) -> None:
    """Raises PredictionError where a result has not one entry a row."""
    if result.shape == expected:
        return
    found = f"{name} has shape {list(result.shape)} for"
    if batching.fixed:
        raise PredictionError(
            f"{found} the {batching.size} rows that the graph takes a run, and no row's own part "
            f"can be told in it: give exactly {batching.size} rows"
        )
    raise PredictionError(
        f"{found} {expected[0]} rows, not one entry a row: run all of them at once with "
        f"--batch_size={num_rows}"
    )


def warn_if_random(graph: RunnableGraph, fed: Sequence[Array], results: Sequence[Array]) -> None:
    """As `metagraph.session` has it, which only a graph of TensorFlow needs."""
    if graph.random_nodes:
        from metagraph import session

        session.warn_if_random(graph, fed, results)


# Runs in which a row's company does not matter.


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
