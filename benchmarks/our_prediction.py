"""The rows a second of predict.py's own loop, for whatever they are compared with."""

import time

from benchmarks.reference import Array
from checkpoints.loading.inference_graph import InferenceGraph
from prediction.collected import Kind
from prediction.rows import ArrayRows
from prediction.runner import run_rows


def rows_a_second(graph: InferenceGraph, rows: Array, batch_size: int) -> float:
    """Runs all rows through a graph with one feed and one fetch that has an entry a row."""
    started = time.perf_counter()
    run_rows(graph, [ArrayRows(rows, graph.feeds[0], "rows")], [Kind.ROWS], batch_size)
    return len(rows) / (time.perf_counter() - started)
