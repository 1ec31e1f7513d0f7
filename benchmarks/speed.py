"""Speed against a bare loop, Keras, plain TensorFlow and others, in one run.

  python -m benchmarks.speed
  python -m benchmarks.speed --part=commands

prints, for each comparison, our figure, the other's and their ratio; 45 minutes for all, and
4 GB of disk. The figures are of this machine and this hour; the ratios are what to compare. Each
part is a process of its own, as the number of threads is: training has as many as train_cnn.py
gives it, and so has what it is compared with.
"""

import importlib.util
import os
import platform
import re
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
_Part: TypeAlias = Callable[[Path], Iterator[str]]  # Measures in a folder, a line at a time.

_CPUINFO = Path("/proc/cpuinfo")
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
_IMAGES_ON_DISK, _STEPS_ON_DISK = 1_000_000, 2000  # of batch 128
_FILES, _HALF_MB = 20_000, 31  # small ones, and what holds half of them
_BLOCK = 10_000  # images made at once
_LENGTHS = (20, 220)  # of two runs, in steps, whose difference is that of steps alone
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
        _run_all()
        return
    # PyTorch beside TensorFlow crashes; `memory` begins before TensorFlow is there.
    if request.part not in ("torch", "jax", "commands", "workers", "memory"):
        small = request.part in ("train-10", "data-10", "row-sizes", "exact")
        measuring.start(10 if small else 0)
    with tempfile.TemporaryDirectory() as folder:
        for line in {**_PARTS, **_FIGURES}[request.part](Path(folder)):
            print(line, flush=True)


def _run_all() -> None:
    """Runs each part in a process of its own.

    The first line says what the figures are of, so that those of two machines are not mixed.
    """
    measuring.start()
    from training import resume

    info = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    name = re.search(r"model name\s*: (.*)", info)
    described = (f"{key} {value}" for key, value in resume.environment().items())
    print(f"{name[1] if name else platform.processor()}, {', '.join(described)}")
    print(f"{'':<58} {'ours':>10} {'theirs':>10}", flush=True)
    for part in _PARTS:
        measuring.python("-m", "benchmarks.speed", f"--part={part}", capture_output=False)


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


def _commands(folder: Path) -> Iterator[str]:
    """CPU seconds of whole commands against a plain `import tensorflow`."""
    measuring.python("train_linear.py", f"--ckpt_dir={folder}/run")
    theirs = partial(_cost, folder, ("-c", "import tensorflow"))
    for name, command in COMMANDS.items():
        ours = partial(_cost, folder, command)
        yield compare(name, ours, theirs, "s", "CPU; theirs is `import tensorflow`")


def _cost(folder: Path, command: Sequence[str], *, is_wall: bool = False) -> float:
    """Seconds of processor time, or of time, of Python with these arguments, as COMMANDS has."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        filled = [text.format(run=folder / "run", new=f"{place}/new") for text in command]
        started, began = sum(os.times()[2:4]), time.perf_counter()
        ended = measuring.python(*filled, check=False)
        # `tools.diff` ends with 1, without a word, where it has found a difference.
        if ended.returncode not in (0, 1) or (ended.returncode and ended.stderr):
            raise OSError(f"{filled}: exit code {ended.returncode}: {ended.stderr}")
        if is_wall:
            return time.perf_counter() - began
        return sum(os.times()[2:4]) - started  # Of all that this process has waited for.


def _workers(folder: Path) -> Iterator[str]:
    """What shards and workers cost a step: what whole runs take for some more of them."""
    measuring.write_digits(folder / "digits", 128)
    quiet = ("--batch_size=128", "--log_every_steps=10000", "--save_every_steps=10000")

    def step(command: Sequence[str], is_wall: bool, flags: Sequence[str]) -> float:
        given = (*command, "--ckpt_dir={new}", *quiet, *flags)
        short, long = (
            _cost(folder, (*given, f"--train_steps={count}"), is_wall=is_wall) for count in _LENGTHS
        )
        return (long - short) * 1e3 / (_LENGTHS[1] - _LENGTHS[0])

    one, two, shards = "--intra_op_threads=1", "--intra_op_threads=2", "--shards=4"
    both = (shards, one, "--workers=2")  # on two processors, as 1 worker is on two threads
    digits = f"--data_dir={folder}/digits"
    for model, command in {"cnn": ("train_cnn.py",), "mlp": ("train_mlp.py", digits)}.items():
        for name, ours, theirs, is_wall, most in (
            ("4 shards / plain, one thread", (shards, one), (one,), False, 1.15),
            ("2 workers / 1, one thread", both, (shards, one), False, 1.25),
            ("2 workers / 1, two threads", both, (shards, two), False, 1.25),
            ("4 shards / plain, two threads", (shards, two), (two,), True, 1.0),
        ):
            mine, other = (partial(step, command, is_wall, flags) for flags in (ours, theirs))
            unit = "ms" if is_wall else "ms CPU"
            yield compare(f"{model}: {name}", mine, other, unit, f"at most {most:g}")


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
    from prediction.file_inputs import array_rows
    from prediction.row_runs import Kind, run_rows

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


def _make_images(path: Path, count: int) -> None:
    """Writes random images, uint8 [count, 32, 32, 3], and their labels beside them."""
    generator = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 32, 32, 3))
    for first in range(0, count, _BLOCK):
        block = images[first : first + _BLOCK]
        block[:] = generator.integers(0, 256, block.shape, np.uint8)
    images.flush()
    np.save(path.with_suffix(".labels.npy"), np.arange(count) % measuring.NUM_CLASSES)


def _memory(folder: Path) -> Iterator[str]:
    """The most memory while training at batch 128 on images that are read as they are needed."""

    def megabytes(key: str) -> float:
        found = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 / 1e6 if found else 0.0

    path = folder / "on_disk.npy"
    _make_images(path, _IMAGES_ON_DISK)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew.
    before = megabytes("RssAnon")  # Only of this process, as arrays and stacks are.
    measuring.start()
    code = megabytes("RssFile")  # At least so much of it is TensorFlow's code, mapped from files.
    with open(os.devnull, "w") as log, redirect_stderr(log):
        flags = measuring.speed_flags(path, 128, _STEPS_ON_DISK)
        measuring.CNN.train(folder / "run", *flags, "--data_memory_mb=0")
    most = megabytes("VmHWM") - code - before
    name = f"{_IMAGES_ON_DISK:,} images, at most so much memory above the start"
    yield f"{name:<58} {most:>10,.2f} MB (below 600)"


def _data(batch_size: int, folder: Path) -> Iterator[str]:
    """Training on images that are read as they are needed against training from memory."""
    _make_images(folder / "images.npy", _NUM_IMAGES)
    measuring.write_image_files(folder / "files", _FILES)
    steps = _STEPS_BY_BATCH_SIZE[batch_size]

    def speed(data: str, memory_mb: int) -> Figure:
        memory = f"--data_memory_mb={memory_mb}"
        return partial(training_speed, folder / data, batch_size, steps, memory)

    for data, memory_mb, bound in (
        ("images.npy", 0, "at least 0.95"),
        ("files", 0, "not asked for"),
        ("files", _HALF_MB, "not asked for"),
    ):
        held = ", half held" if memory_mb else ""
        name = f"training, batch {batch_size}: {data} on disk{held} / in memory"
        yield compare(name, speed(data, memory_mb), speed(data, 512), "images/s", bound)


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
        yield measuring.summary(f"{name}: oneDNN / without", figures, "images/s", "not asked for")


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


_PARTS: dict[str, _Part] = {
    "train-10": partial(_training, 10),
    "train-128": partial(_training, 128),
    "predict": _prediction,
    "row-sizes": _row_sizes,
    "onednn": _onednn,
    "processes": _processes,
    "memory": _memory,
    "data-128": partial(_data, 128),
    "data-10": partial(_data, 10),
    "commands": _commands,
    "workers": _workers,
    "reading": _reading,
}
_FIGURES: dict[str, _Part] = {
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
