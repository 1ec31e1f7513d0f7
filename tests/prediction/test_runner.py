"""Running rows in batches, on a graph that is written in NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from errors import PredictionError
from metagraph.meta import TensorInfo
from metagraph.session import InferenceGraph
from prediction.batching import DEFAULT_BATCH_SIZE, Kind, kind_of
from prediction.evaluation import run_rows
from prediction.rows import ArrayRows

X = np.arange(10, dtype=np.float32)
INFO = TensorInfo("x:0", tf.float32, (None,))

Function = Callable[..., Any]


class _Graph:
    """Looks like an InferenceGraph; computes by functions, and keeps the batch sizes it saw."""

    def __init__(self, *functions: Function) -> None:
        self.feeds = (INFO,)
        self.fetches = [TensorInfo(f"f{i}:0", tf.float32, None) for i in range(len(functions))]
        self.sizes: list[int] = []
        self._functions = functions

    def run(self, *values: Any) -> list[Any]:
        self.sizes.append(len(values[0]))
        return [np.asarray(function(*values)) for function in self._functions]


def _run(graph: Any, kinds: Sequence[Kind], batch_size: int | None, *constants: Any) -> list[Any]:
    stand_in: InferenceGraph = graph
    return run_rows(stand_in, [ArrayRows(X, INFO, "here"), *constants], kinds, batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 9, 10, 11, None])
def test_rows_come_back_in_order_whatever_the_batch(batch_size: int | None) -> None:
    graph = _Graph(lambda x: x * 2, lambda x: np.stack([x, -x], axis=1).astype(np.int64))
    doubled, pairs = _run(graph, [Kind.ROWS, Kind.ROWS], batch_size)
    np.testing.assert_array_equal(doubled, X * 2)
    np.testing.assert_array_equal(pairs, np.stack([X, -X], axis=1))
    assert pairs.dtype == np.int64
    assert sum(graph.sizes) == len(X)
    assert max(graph.sizes) == min(batch_size or DEFAULT_BATCH_SIZE, len(X))


def test_the_last_batch_is_simply_shorter() -> None:
    graph = _Graph(lambda x: x)
    _run(graph, [Kind.ROWS], 4)
    assert graph.sizes == [4, 4, 2]


def test_other_values_are_fed_whole_in_each_batch() -> None:
    graph = _Graph(lambda x, a: x + a.sum())
    (found,) = _run(graph, [Kind.ROWS], 4, np.array([1.0, 2.0]))
    np.testing.assert_array_equal(found, X + 3)


def test_what_does_not_depend_on_the_rows_is_taken_once() -> None:
    graph = _Graph(lambda x: x, lambda _: np.array([7, 8, 9]))
    _, constant = _run(graph, [Kind.ROWS, Kind.CONSTANT], 4)
    np.testing.assert_array_equal(constant, [7, 8, 9])


def test_a_value_over_all_rows_takes_them_at_once() -> None:
    graph: Any = _Graph(np.mean)
    many = np.arange(DEFAULT_BATCH_SIZE + 1, dtype=np.float32)
    (mean,) = run_rows(graph, [ArrayRows(many, INFO, "here")], [Kind.WHOLE])
    assert mean == many.mean()
    assert graph.sizes == [len(many)]


def test_a_value_over_all_rows_is_refused_in_batches() -> None:
    graph = _Graph(np.mean)
    with pytest.raises(PredictionError, match=r"f0:0 is one value over all 10 rows.*--batch_size"):
        _run(graph, [Kind.WHOLE], 4)
    assert _run(graph, [Kind.WHOLE], 10)[0] == np.float32(4.5)


@pytest.mark.parametrize(
    "function",
    [lambda x: np.repeat(x, 2), lambda x: np.zeros((len(x), len(x))), np.sum],
    ids=["longer", "square", "scalar"],
)
def test_what_turns_out_to_be_no_row_a_row_is_refused(function: Function) -> None:
    with pytest.raises(PredictionError, match=r"not one entry a row: .*--batch_size=10"):
        _run(_Graph(function), [Kind.ROWS], 4)
    np.testing.assert_array_equal(_run(_Graph(function), [Kind.ROWS], 10)[0], function(X))


def test_an_error_of_the_graph_or_of_a_batch_ends_it() -> None:
    def fail(_: Any) -> Any:
        raise PredictionError("no")

    with pytest.raises(PredictionError, match=r"^no$"):
        _run(_Graph(fail), [Kind.ROWS], 4)
    rows = ArrayRows(np.array([1.0, 1e39]), INFO, "here")
    stand_in: Any = _Graph(lambda x: x)
    with pytest.raises(PredictionError, match="cannot hold"):
        run_rows(stand_in, [rows], [Kind.ROWS], 1)


@pytest.mark.parametrize(
    ("shape", "depends", "kind"),
    [
        ((None, 4), True, Kind.ROWS),
        (None, True, Kind.ROWS),
        ((), True, Kind.WHOLE),
        ((3,), True, Kind.WHOLE),
        ((None, 4), False, Kind.CONSTANT),
        ((), False, Kind.CONSTANT),
    ],
)
def test_kinds(shape: tuple[int | None, ...] | None, depends: bool, kind: Kind) -> None:
    assert kind_of(TensorInfo("t:0", tf.float32, shape), depends) is kind


def test_a_fixed_batch_is_filled_up_by_its_last_row() -> None:
    seen: list[Any] = []

    def double(x: Any) -> Any:
        seen.append(x.tolist())
        return x * 2

    graph = _Graph(double)
    graph.feeds = (INFO._replace(shape=(4,)),)
    (found,) = _run(graph, [Kind.ROWS], None)
    np.testing.assert_array_equal(found, X * 2)
    tried = [[1, 1, 2, 3], [0, 1, 2, 0]]  # Whether a row changes its own result alone.
    assert seen == [[0, 1, 2, 3], *tried, [4, 5, 6, 7], [8, 9, 9, 9]]


def test_two_fixed_batches_that_differ() -> None:
    graph: Any = _Graph(lambda x, _: x)
    graph.feeds = (INFO._replace(shape=(4,)), TensorInfo("z:0", tf.float32, (5,)))
    rows = [ArrayRows(X, INFO, "here")] * 2
    with pytest.raises(PredictionError, match="different numbers of rows a run: x:0 4, z:0 5"):
        run_rows(graph, rows, [Kind.ROWS])


def test_the_first_run_is_shown() -> None:
    shown: list[Any] = []
    graph: Any = _Graph(lambda x: x + 1)
    rows = [ArrayRows(X, INFO, "here")]
    run_rows(graph, rows, [Kind.ROWS], 4, lambda *pair: shown.append(pair))
    ((fed, results),) = shown
    np.testing.assert_array_equal(fed[0], X[:4])
    np.testing.assert_array_equal(results[0], X[:4] + 1)
