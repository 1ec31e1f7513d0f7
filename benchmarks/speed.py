"""Speed against a bare loop, a minimal script, Keras and plain TensorFlow, in one run.

  python -m benchmarks.speed
  python -m benchmarks.speed --part=commands

prints, for each comparison, our figure, the other's and their ratio; about 25 minutes for all. The
figures are of this machine and this hour; the ratios are what to compare. Each part is a process of
its own, as the number of threads is: training has as many as train_cnn.py gives it, and so has what
it is compared with.
"""

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchmarks import measuring, peers
from benchmarks.measuring import Figure, compare, rate, training_speed
from cli.fields import flag
from cli.run import run
from cli.terminal import ONEDNN_VARIABLE

if TYPE_CHECKING:
    from metagraph.session import InferenceGraph

Array: TypeAlias = np.ndarray[Any, Any]

_NUM_IMAGES = 20_000
_IMAGES = "images.npz"
_STEPS_BY_BATCH_SIZE = {10: 1000, 128: 200}  # about two seconds each
_PEER_STEPS, _PEER_TRIALS = 60, 3  # of a batch of 128, for which JAX takes a fifth of a second
_PREDICT_BATCH_SIZES = (32, 256)  # the defaults of Keras and of predict.py
# Of an image in a step, forward and backward, but for the gradient of the images.
_CONV1, _CONV2 = 1024 * 27 * 32, 121 * 288 * 64
_DENSE = 1024 * 128 + 128 * measuring.NUM_CLASSES
_FLOPS = 2 * (2 * _CONV1 + 3 * _CONV2 + 3 * _DENSE)
_RATED_TRAINING, _RATED_PREDICTION = (10, 32, 128), (1, 256, 4096)
_BYTES, _TENSORS = 500_000_000, 25  # of the checkpoint that is read
_TOOL = ("-m", "tools.inspect_checkpoint")
# What is measured, and the command, in whose arguments {run} is the folder of a default run of
# train_linear.py and {new} one that is not there yet.
COMMANDS: Mapping[str, Sequence[str]] = {
    "list of a folder's checkpoints": (*_TOOL, "{run}"),
    "tensors of a checkpoint": (*_TOOL, "{run}/my-model-300"),
    "values of a tensor": (*_TOOL, "{run}/my-model-300", "--tensor=w"),
    "verify a folder": ("-m", "tools.verify", "{run}"),
    "diff of two checkpoints": ("-m", "tools.diff", "{run}/my-model-290", "{run}/my-model-300"),
    "edit of variables": ("-m", "tools.edit", "{run}", "--output={new}/m", "--cast=float16"),
    "signatures of a graph": ("-m", "tools.inspect_graph", "{run}", "--part=signatures"),
    "predict.py on one row": ("predict.py", "{run}", "--feed=x=[0.5]"),
    "train_linear.py, its default run": ("train_linear.py", "--ckpt_dir={new}"),
}


def main(request: "Request") -> None:
    """Prints all comparisons, each as soon as it is measured."""
    if request.part is None:
        measuring.run_parts("speed", _PARTS, ("ours", "theirs"))
        return
    if request.part not in ("torch", "jax", "commands"):  # PyTorch beside TensorFlow crashes.
        measuring.start(10 if request.part in ("train-10", "row-sizes", "exact") else 0)
    measuring.run_part({**_PARTS, **_FIGURES}[request.part])


def _images(folder: Path) -> tuple[Array, Array]:
    """Makes random images, x float32 [N, 32, 32, 3] in [0, 1), y int64 [N], and a file of them."""
    generator = np.random.default_rng(0)
    x = generator.random((_NUM_IMAGES, 32, 32, 3), np.float32)
    y = generator.integers(0, measuring.NUM_CLASSES, _NUM_IMAGES)
    np.savez(folder / _IMAGES, X=x, Y=y)
    return x, y


def _trained_meta(folder: Path) -> str:
    """The .meta file of a network that was trained for one step."""
    with open(os.devnull, "w") as log, redirect_stderr(log):
        flags = measuring.speed_flags(folder / _IMAGES, 10, 1)
        return measuring.CNN.train(folder / "one-step", *flags).prefix + ".meta"


def _loaded(
    meta: str, fetch: str = "fc2/add:0", *, side_by_side: bool = False
) -> "AbstractContextManager[InferenceGraph]":
    """The graph of a file as predict.py has it, which computes `fetch` of `x:0`."""
    from metagraph.meta import read_meta_graph
    from metagraph.session import load_inference_graph

    found = read_meta_graph(meta)
    return load_inference_graph(found, [fetch], ["x:0"], side_by_side=side_by_side)


def _process(folder: Path) -> Iterator[str]:
    """A run of train_cnn.py on the ramp against the shortest script for it."""
    figure = partial(_cost, folder, time.perf_counter)
    ours = partial(figure, ("train_cnn.py", "--data=ramp", "--ckpt_dir={new}"))
    theirs = partial(figure, ("benchmarks/minimal_tf1.py", "{new}"))
    yield compare(
        "train_cnn.py as a process / minimal TF1 script", ours, theirs, "s", "at most 1.05"
    )


def _commands(folder: Path) -> Iterator[str]:
    """CPU seconds of whole commands against a plain `import tensorflow`."""
    measuring.python("train_linear.py", f"--ckpt_dir={folder}/run")
    theirs = partial(_cost, folder, _cpu_seconds, ("-c", "import tensorflow"))
    for name, command in COMMANDS.items():
        ours = partial(_cost, folder, _cpu_seconds, command)
        yield compare(name, ours, theirs, "s", "CPU; theirs is `import tensorflow`")


def _cost(folder: Path, clock: Callable[[], float], command: Sequence[str]) -> float:
    """How far a clock goes on while Python runs with these arguments; COMMANDS has the names."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        filled = [text.format(run=folder / "run", new=f"{place}/new") for text in command]
        started = clock()
        ended = measuring.python(*filled, check=False)
        # `tools.diff` ends with 1, without a word, where it has found a difference.
        if ended.returncode not in (0, 1) or (ended.returncode and ended.stderr):
            raise OSError(f"{filled}: exit code {ended.returncode}: {ended.stderr}")
        return clock() - started


def _cpu_seconds() -> float:
    """User and system time of all processes so far that this one has waited for."""
    return sum(os.times()[2:4])


def _training(batch_size: int, folder: Path) -> Iterator[str]:
    """Training against the same network trained by others, and against itself with less to do."""
    steps, title = _STEPS_BY_BATCH_SIZE[batch_size], f"training, batch {batch_size}"
    ours = partial(training_speed, folder / _IMAGES, batch_size, steps)
    given = (*_images(folder), batch_size)
    bare = partial(peers.session_run(*given), steps)
    keras = partial(peers.keras_fit(*given), steps)
    stock, flushed = (
        partial(peers.session_run(*given, folder, fsync=fsync), steps) for fsync in (False, True)
    )
    every, once = (partial(ours, f"--save_every_steps={n}") for n in (10, 10**9))
    dense = "at least 0.9" if batch_size == 10 else "not asked for"
    sides: list[tuple[str, Figure, Figure, str]] = [
        ("ours / bare session.run", ours, bare, "at least 0.97"),
        ("ours / Keras fit", ours, keras, "at least 1.1"),
        ("save every 10 / only at the end", every, once, dense),
        ("augmented / not", partial(ours, "--augment"), ours, "not asked for"),
        ("save every 10 / stock Saver", every, stock, "at least 1.0"),
        ("stock Saver / bare session.run", stock, bare, "not asked for"),
        ("save every 10 / stock, flushed", every, flushed, "not asked for"),
        ("stock, flushed / bare session.run", flushed, bare, "not asked for"),
    ]
    if batch_size == 128:
        sides.append(("bf16 / float32", partial(ours, "--precision=bf16"), ours, "at least 1.15"))
    for name, one, other, bound in sides:
        yield compare(f"{title}: {name}", one, other, "images/s", bound)
    if batch_size == 128:
        step = lambda: bare() * _FLOPS / 1e9  # noqa: E731 (a figure, as the others are)
        bound = "0.60 to 0.75"
        yield compare(
            f"{title}: step / a matrix product", step, peers.matrix_product(), "GFLOP/s", bound
        )


def _prediction(folder: Path) -> Iterator[str]:
    """predict.py's own loop against Keras, and against a stock client's `session.run`."""
    x, _ = _images(folder)
    model, meta = peers.keras_model(), _trained_meta(folder)

    def run_stock(size: int) -> None:
        starts = range(0, len(x), size)
        np.concatenate([session.run("fc2/add:0", {"x:0": x[i : i + size]}) for i in starts])

    sides: dict[str, Callable[[int], object]] = {
        "Keras predict": lambda size: model.predict(x, batch_size=size, verbose=0),
        "session.run": run_stock,
    }
    # To enter the session would end eager mode, as Keras needs it.
    with closing(peers.restored(meta)) as session, _loaded(meta) as graph:
        for name, work in sides.items():
            for size in _PREDICT_BATCH_SIZES:
                title = f"predict, {len(x):,} images, batch {size} / {name}"
                ours = partial(rate, len(x), partial(_run_ours, graph, x, size))
                theirs = partial(rate, len(x), partial(work, size))
                yield compare(title, ours, theirs, "images/s", "at least 1.0")


def _run_ours(graph: "InferenceGraph", x: Array, batch_size: int, exact: bool = False) -> None:
    from prediction.evaluation import Kind, run_rows
    from prediction.file_inputs import array_rows

    run_rows(graph, [array_rows(x, graph.feeds[0], "rows")], [Kind.ROWS], batch_size, exact=exact)


def _row_sizes(folder: Path) -> Iterator[str]:
    """Of 128 images, those whose logits change when all move up by one, for sizes of a run."""
    x = _images(folder)[0][:128]
    with _loaded(_trained_meta(folder)) as graph:

        def logits(images: Array, size: int) -> Array:
            starts = range(0, len(images), size)
            return np.concatenate([graph.run(images[i : i + size])[0] for i in starts])

        for size in (64, 32, 16, 8, 4):
            moved = np.roll(logits(np.roll(x, 1, axis=0), size), -1, axis=0)
            changed = (moved != logits(x, size)).any(axis=1).sum()
            yield f"{size} rows a run: {changed} of {len(x)} depend on their place"


def _start(folder: Path) -> Iterator[str]:
    """Seconds from the file to the first row of a graph with some 12,000 nodes."""
    from metagraph.meta import read_meta_graph

    path, row = peers.write_deep(folder), np.ones((1, 16), np.float32)
    nodes = len(read_meta_graph(path).proto.graph_def.node)

    def ours() -> float:
        started = time.perf_counter()
        with _loaded(path, "y:0") as graph:
            graph.run(row)
            return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        with peers.restored(path) as session:
            session.run("y:0", {"x:0": row})
            return time.perf_counter() - started

    name = f"ready to run and one row, {nodes:,} nodes / plain import"
    yield compare(name, ours, theirs, "s", "at most 1.0")


def _reading(folder: Path) -> Iterator[str]:
    """Reading 500 MB, which the page cache holds, with all checksums."""
    import tensorflow as tf

    from checkpoints.bundle import write_bundle
    from checkpoints.reader import CheckpointReader

    generator = np.random.default_rng(0)
    shape = (1000, _BYTES // _TENSORS // 4000)
    values = {f"w{i}": generator.random(shape, np.float32) for i in range(_TENSORS)}
    prefix = str(folder / "large")
    write_bundle(prefix, values)

    def figure(clock: Callable[[], float], open_reader: Callable[[], Any]) -> float:
        started, read = clock(), open_reader()
        for name in values:
            read(name)
        return clock() - started

    for name, clock in (("CPU", time.process_time), ("wall", time.perf_counter)):
        ours = partial(figure, clock, lambda: CheckpointReader(prefix).read)
        theirs = partial(figure, clock, lambda: tf.train.load_checkpoint(prefix).get_tensor)
        yield compare(f"reading 500 MB, {name} seconds", ours, theirs, "s", "TensorFlow's reader")


# What cannot share a process: other threads, other kernels, or another framework. Each of _FIGURES
# is a process that prints numbers.


def _numbers_of(part: str, onednn: str = "1") -> list[float]:
    """The numbers that a part prints."""
    environment = {**os.environ, ONEDNN_VARIABLE: onednn}
    ended = measuring.python("-m", "benchmarks.speed", f"--part={part}", env=environment)
    return [float(number) for number in ended.stdout.split()]


def _processes(_: Path) -> Iterator[str]:
    """Exact rows against others, and training against frameworks that may not be installed."""

    def figure(part: str) -> Figure:
        return lambda: _numbers_of(part)[0]

    title = f"predict, {_NUM_IMAGES:,} images, batch 256: exact rows / not"
    yield compare(title, figure("exact"), figure("not-exact"), "images/s", "at least 0.95")
    for name, module in (("PyTorch eager", "torch"), ("JAX jit", "jax")):
        title = f"training, batch 128: ours / {name}"
        if importlib.util.find_spec(module):
            yield compare(title, figure("ours"), figure(module), "images/s", "not asked for")
        else:
            yield f"{title}: {module} is not installed"


def _onednn(_: Path) -> Iterator[str]:
    """The rates of `session.run` with oneDNN's kernels against those without, in turn."""
    pairs = [(_numbers_of("rates", "1"), _numbers_of("rates", "0")) for _ in range(3)]
    names = [f"training, batch {n}" for n in _RATED_TRAINING]
    names += [f"predict, batch {n}" for n in _RATED_PREDICTION]
    for number, name in enumerate(names):
        figures = [(on[number], off[number]) for on, off in pairs]
        yield measuring.summary(f"{name}: oneDNN / without", figures, "images/s", "")


def _rates(folder: Path) -> Iterator[str]:
    """Images a second of training and prediction at some sizes of a batch."""
    x, y = _images(folder)
    for size in _RATED_TRAINING:
        loop, steps = peers.session_run(x, y, size), max(20, 2000 // size)
        yield str(max(loop(steps) for _ in range(3)))
    with closing(peers.restored(_trained_meta(folder))) as session:
        run_some = session.make_callable("fc2/add:0", ["x:0"])
        for size in _RATED_PREDICTION:
            count = max(1, 4096 // size // 4)
            same = [x[:size]] * count
            work = lambda: [*map(run_some, same)]  # noqa: B023, E731 (it runs at once)
            yield str(max(rate(count * size, work) for _ in range(3)))


def _rows_a_second(exact: bool, folder: Path) -> Iterator[str]:
    """The best of a few, with the threads that predict.py has."""
    x, _ = _images(folder)
    with _loaded(_trained_meta(folder), side_by_side=exact) as graph:
        work = partial(_run_ours, graph, x, 256, exact)
        yield str(max(rate(len(x), work) for _ in range(measuring.PAIRS)))


def _images_a_second(make: Callable[..., peers.Loop] | None, folder: Path) -> Iterator[str]:
    """The best of a few trainings at batch 128, by us where nothing else is named."""
    given, steps = _images(folder), _PEER_STEPS
    ours = partial(training_speed, folder / _IMAGES, 128, steps)
    work = ours if make is None else partial(make(*given, 128), steps)
    yield str(max(work() for _ in range(_PEER_TRIALS)))


_PARTS: dict[str, measuring.Part] = {
    "process": _process,
    "train-10": partial(_training, 10),
    "train-128": partial(_training, 128),
    "predict": _prediction,
    "row-sizes": _row_sizes,
    "onednn": _onednn,
    "processes": _processes,
    "start": _start,
    "commands": _commands,
    "reading": _reading,
}
_FIGURES: dict[str, measuring.Part] = {
    "exact": partial(_rows_a_second, True),
    "not-exact": partial(_rows_a_second, False),
    "ours": partial(_images_a_second, None),
    "torch": partial(_images_a_second, peers.torch_eager),
    "jax": partial(_images_a_second, peers.jax_jit),
    "rates": _rates,
}


@dataclass(frozen=True)
class Request:
    """What is measured."""

    part: str | None = flag(
        "Measures this alone; all by default.", None, choices=[*_PARTS, *_FIGURES]
    )


if __name__ == "__main__":
    run(main, Request, __doc__)
