"""Running a stranger's graph as data against import_meta_graph and session.run, in one run.

  python -m benchmarks.foreign_speed

prints, for each comparison, our figure, plain TensorFlow's and their ratio; about two minutes. The
figures are of this machine and this hour; the ratios are what to compare.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from benchmarks.measuring import Comparison, compare
from cli.run import run
from cli.terminal import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

    from benchmarks.reference import Array

_ROWS = {"cnn": 16_384, "perceptron": 65_536}
_BATCH_SIZES = (256, 4096)
_NODES = 12_000
_PAIRS = 9


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    flags.DEFINE_enum("part", None, ["rows", "start"], "Measures this alone.", flag_values=values)


def main(values: flags.FlagValues) -> None:
    """Prints all comparisons, each as soon as it is measured."""
    import_tensorflow()
    logging.get_absl_logger().setLevel("ERROR")
    print(f"{'':<58} {'ours':>10} {'theirs':>10}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if values.part != "start":
            for comparison in _rows(Path(folder)):
                print(comparison, flush=True)
        if values.part != "rows":
            print(_start(Path(folder)), flush=True)


def _rows(folder: Path) -> Iterator[Comparison]:
    """Rows a second through the CNN and through a small perceptron, once all is loaded."""
    from benchmarks.reference import write_cnn, write_perceptron

    for name, write in (("cnn", write_cnn), ("perceptron", write_perceptron)):
        meta, output, rows = write(folder / name, _ROWS[name])
        for batch_size in _BATCH_SIZES:
            yield _rows_a_second(f"{name}, batch {batch_size}", meta, output, rows, batch_size)


def _rows_a_second(name: str, path: str, output: str, rows: "Array", batch_size: int) -> Comparison:
    import numpy as np

    from benchmarks.reference import rows_a_second
    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    session = _restored(path)
    fetch = session.graph.get_tensor_by_name(output)
    feed = session.graph.get_tensor_by_name("x:0")
    with session, load_inference_graph(read_meta_graph(path), [output], ["x:0"]) as graph:

        def theirs() -> float:
            started = time.perf_counter()
            starts = range(0, len(rows), batch_size)
            np.concatenate([session.run(fetch, {feed: rows[i : i + batch_size]}) for i in starts])
            return len(rows) / (time.perf_counter() - started)

        return compare(
            f"predict, {name} / session.run",
            lambda: rows_a_second(graph, rows, batch_size),
            theirs,
            pairs=_PAIRS,
            unit="rows/s",
            bound="at least 1.0",
        )


def _restored(path: str) -> "tf.compat.v1.Session":
    """A session as a stock client makes it: import_meta_graph and Saver.restore."""
    import tensorflow as tf

    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        saver = tf.compat.v1.train.import_meta_graph(path)
        saver.restore(session, path.removesuffix(".meta"))
    return session


def _start(folder: Path) -> Comparison:
    """Seconds from the file to the first row of a graph with some 12,000 nodes."""
    from benchmarks.reference import write_deep
    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    path, output, rows = write_deep(folder / "deep", _NODES)
    nodes = len(read_meta_graph(path).proto.graph_def.node)

    def ours() -> float:
        started = time.perf_counter()
        with load_inference_graph(read_meta_graph(path), [output], ["x:0"]) as graph:
            graph.run(rows)
            return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        with _restored(path) as session:
            session.run(output, {"x:0": rows})
            return time.perf_counter() - started

    return compare(
        f"ready to run and one row, {nodes:,} nodes / plain import",
        ours,
        theirs,
        pairs=_PAIRS,
        unit="s",
        bound="at most 1.0",
    )


if __name__ == "__main__":
    run(main, define_flags, __doc__)
