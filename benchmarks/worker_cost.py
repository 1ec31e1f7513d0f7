"""What shards and workers cost: processor time and time of a step, side by side.

  python -m benchmarks.worker_cost

Each of two that are compared is in processes of its own, which run steps in turn, on made-up images
of a batch of 128. Medians of pairs; quote the ratios.
"""

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.measuring import CNN, MLP, Trainer, compare, write_digits
from cli.fields import flag
from cli.run import run
from cli.terminal import INTRA_OP_THREADS_VARIABLE, import_tensorflow
from training.launch import free_ports
from training.place import LAUNCHED, TF_CONFIG

_WARM_UP = 5


@dataclass(frozen=True)
class Request:
    """What is measured."""

    steps: int = flag("Steps of each measurement.", 40, low=1)


class Runner(NamedTuple):
    """How steps are run."""

    trainer: Trainer
    shards: int = 4
    workers: int = 1
    threads: int = 1  # Of an operation in a plain step; shards at once in one of shards.


class Cost(NamedTuple):
    """Of one step, or of one exchange."""

    wall: float  # Milliseconds.
    cpu: float  # Milliseconds of processor time, over all workers.
    row_bytes: int  # Of what a worker gives in an exchange, and gets from each other one.


def main(request: Request) -> None:
    """Prints a line for each comparison."""
    import_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder), 128)
        _compare("cnn", CNN._replace(flags=("--batch_size=128",)), request.steps)
        digits = ("--batch_size=128", f"--data_dir={folder}")
        _compare("mlp", MLP._replace(flags=digits), request.steps)


def _compare(model: str, trainer: Trainer, steps: int) -> None:
    plain, sharded = Runner(trainer, shards=1), Runner(trainer)
    two = sharded._replace(workers=2)
    threads = (sharded._replace(threads=2), plain._replace(threads=2))
    for name, ours, theirs, what, unit, most in (
        ("4 shards / plain, one thread", sharded, plain, "cpu", "ms cpu", 1.15),
        ("4 shards, 2 workers / 1 worker", two, sharded, "cpu", "ms cpu", 1.25),
        ("4 shards / plain, two threads", *threads, "wall", "ms", 1.0),
    ):
        with _running(ours) as mine, _running(theirs) as other:
            one, another = (partial(_figure, side, what, steps) for side in (mine, other))
            line = compare(f"{model}: {name}", one, another, unit, f"at most {most:g}")
        print(line, flush=True)
    with _running(two) as workers:
        cost = _cost(workers, "exchange", steps)
    told = f"{cost.wall:.2f} ms, {cost.row_bytes:,} bytes"
    print(f"{model}: exchange between 2 workers: {told}", flush=True)


def _figure(workers: list[Connection], what: str, steps: int) -> float:
    return float(getattr(_cost(workers, "step", steps), what))


def _cost(workers: list[Connection], work: str, times: int) -> Cost:
    """Has all workers do a work so often, at once."""
    for worker in workers:
        worker.send((work, times))
    costs: list[Cost] = [worker.recv() for worker in workers]
    wall = statistics.mean(cost.wall for cost in costs)
    return Cost(wall, sum(cost.cpu for cost in costs), costs[0].row_bytes)


@contextmanager
def _running(runner: Runner) -> Iterator[list[Connection]]:
    """The processes of a runner, each told what to do and how often, and answering its cost."""
    context = multiprocessing.get_context("fork")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(runner.workers)]
    pipes = [context.Pipe() for _ in addresses]
    workers = [pipe[0] for pipe in pipes]
    processes = [
        context.Process(target=_work, args=(runner, addresses, rank, pipe[1]), daemon=True)
        for rank, pipe in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for worker in workers:
        worker.recv()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.send(None)
        for process in processes:
            process.join()


def _work(runner: Runner, addresses: list[str], rank: int, pipe: Connection) -> None:
    """Runs steps or exchanges as one worker, as often as it is told to."""
    with _works(runner, addresses, rank) as (works, row_bytes):
        for _ in range(_WARM_UP):
            works["step"]()
        pipe.send(None)
        while told := pipe.recv():
            work, times = told
            began, began_cpu = time.perf_counter(), time.process_time()
            for _ in range(times):
                works[work]()
            wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
            pipe.send(Cost(wall * 1e3 / times, cpu * 1e3 / times, row_bytes))
        os._exit(0)


@contextmanager
def _works(
    runner: Runner, addresses: list[str], rank: int
) -> Iterator[tuple[dict[str, Callable[[], object]], int]]:
    """What a worker may be told to do, by name, and the bytes of what it exchanges."""
    from training.loop import open_session
    from training.shards import ShardedSession

    if runner.workers > 1:
        task = {"type": "worker", "index": rank}
        told = {"cluster": {"worker": addresses}, "task": task, LAUNCHED: {}}
        os.environ[TF_CONFIG] = json.dumps(told)
    flags = (f"--shards={runner.shards}", f"--intra_op_threads={runner.threads}")
    config = runner.trainer.config("nowhere", *flags)
    os.environ[INTRA_OP_THREADS_VARIABLE] = str(config.run.threads(small_steps=False))
    task = runner.trainer.script.make_task(config)
    with open_session(task, config.run, lambda: None) as (session, _):
        session.initialize({})
        step = partial(session.train_step, next(task.batches(0, 1)))
        if not isinstance(session, ShardedSession):  # A plain one exchanges nothing.
            yield {"step": step}, 0
            return
        row = np.zeros(session.row_size, np.float32)
        yield {"step": step, "exchange": lambda: session.exchange(row)}, row.nbytes


if __name__ == "__main__":
    run(main, Request, __doc__)
