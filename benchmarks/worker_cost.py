"""What shards and workers cost: processor time and time of a step, side by side.

  python -m benchmarks.worker_cost

Each of two that are compared is in processes of its own, which run steps in turn, on made-up images
of a batch of 128. Medians of pairs; quote the ratios.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks import measuring
from cli.fields import flag
from cli.run import run
from cli.terminal import INTRA_OP_THREADS_VARIABLE, import_tensorflow
from training.launch import free_ports
from training.place import Place

if TYPE_CHECKING:
    from models.blocks import ModelGraph
    from training.task import Batch, GraphSession

SHARDS = 4
_BATCH_SIZE = 128
_WARM_UP = 5


@dataclass(frozen=True)
class Request:
    """What is measured."""

    steps: int = flag("Steps of each measurement.", 40, low=1)


class Runner(NamedTuple):
    """How steps are run."""

    model: str
    shards: int = SHARDS
    workers: int = 1
    threads: int = 1  # Of an operation in a plain step; shards at once in one of shards.


class Cost(NamedTuple):
    """Of one step."""

    wall: float  # Milliseconds.
    cpu: float  # Milliseconds of processor time, over all workers.


def main(request: Request) -> int:
    """Prints a line for each comparison."""
    import_tensorflow()
    for model in ("cnn", "mlp"):
        plain, sharded = Runner(model, shards=1), Runner(model)
        two = Runner(model, workers=2)
        _compare(f"{model}: 4 shards / plain, one thread", sharded, plain, "cpu", 1.15, request)
        _compare(f"{model}: 4 shards, 2 workers / 1 worker", two, sharded, "cpu", 1.25, request)
        threads = (sharded._replace(threads=2), plain._replace(threads=2))
        _compare(f"{model}: 4 shards / plain, two threads", *threads, "wall", 1.0, request)
        _tell_exchange(model, request.steps)
    return 0


def _compare(
    name: str, ours: Runner, theirs: Runner, what: str, most: float, request: Request
) -> None:
    with _running(ours) as mine, _running(theirs) as other:
        line = measuring.compare(
            name,
            lambda: getattr(_cost(mine, request.steps), what),
            lambda: getattr(_cost(other, request.steps), what),
            "ms cpu" if what == "cpu" else "ms",
            f"at most {most:g}",
        )
    print(line, flush=True)


def _tell_exchange(model: str, steps: int) -> None:
    """The time and the bytes of what two workers bring together in a step."""
    with _running(Runner(model, workers=2)) as workers:
        for worker in workers:
            worker.send(-steps)
        found = [worker.recv() for worker in workers]
    (cost, size), *_ = found
    print(f"{model}: exchange between 2 workers: {cost.wall:.2f} ms, {size:,} bytes", flush=True)


def _cost(workers: list[Connection], steps: int) -> Cost:
    for worker in workers:
        worker.send(steps)
    costs = [worker.recv() for worker in workers]
    return Cost(statistics.mean(cost.wall for cost in costs), sum(cost.cpu for cost in costs))


@contextmanager
def _running(runner: Runner) -> Iterator[list[Connection]]:
    """The processes of a runner, each told how many steps to run, and answering their cost."""
    context: ForkContext = multiprocessing.get_context("fork")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(runner.workers)]
    pipes = [context.Pipe() for _ in addresses]
    processes = [
        context.Process(target=_work, args=(runner, addresses, rank, pipe[1]), daemon=True)
        for rank, pipe in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    workers = [pipe[0] for pipe in pipes]
    for worker in workers:
        worker.recv()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.send(0)
        for process in processes:
            process.join()


def _work(runner: Runner, addresses: list[str], rank: int, told: Connection) -> None:
    """Runs steps as one worker, as often as it is told to; a number below 0 only exchanges."""
    os.environ[INTRA_OP_THREADS_VARIABLE] = str(runner.threads if runner.shards == 1 else 1)
    session, batch = _session(runner, addresses, rank)
    session.initialize({})
    for _ in range(_WARM_UP):
        session.train_step(batch)
    told.send(None)
    while steps := told.recv():
        began, began_cpu, size = time.perf_counter(), time.process_time(), 0
        for _ in range(abs(steps)):
            if steps > 0:
                session.train_step(batch)
            else:
                size = _exchange(session)
        each = 1e3 / abs(steps)
        cpu = (time.process_time() - began_cpu) * each
        cost = Cost((time.perf_counter() - began) * each, cpu)
        told.send(cost if steps > 0 else (cost, size))
    os._exit(0)


def _exchange(session: "GraphSession") -> int:
    """Brings together rows of zeros; returns the bytes of one."""
    from training.shards import ShardedSession

    if not isinstance(session, ShardedSession):
        raise TypeError("a plain session exchanges nothing")
    row = np.zeros(session.row_size, np.float32)
    session.exchange(row)
    return row.nbytes


def _session(runner: Runner, addresses: list[str], rank: int) -> "tuple[GraphSession, Batch]":
    """The session of a worker, and its part of the batch."""
    from training.shards import ShardedSession, Share
    from training.task import GraphSession
    from training.team import Team

    model, batch = _model_and_batch(runner.model)
    if runner.shards == 1:
        return GraphSession(model), batch
    place = Place(rank, (*addresses,) if runner.workers > 1 else (), is_launched=True)
    session = ShardedSession(model, Share(SHARDS, place.shards(SHARDS), runner.threads))
    if runner.workers > 1:
        team = Team(place, lambda: None, 60.0, 60.0)
        team.greet({}, session.row_size)
        session.exchange = team.exchange
    size = len(batch[0]) // runner.workers
    return session, tuple(column[rank * size : (rank + 1) * size] for column in batch)


def _model_and_batch(name: str) -> "tuple[ModelGraph, Batch]":
    from models import cnn, mlp

    draw = np.random.default_rng(0)
    labels = np.arange(_BATCH_SIZE) % 4
    if name == "cnn":
        images = draw.random((_BATCH_SIZE, *cnn.IMAGE_SHAPE), np.float32)
        return cnn.build(num_classes=4, learning_rate=1e-3, seed=0), (images, labels)
    rows = draw.random((_BATCH_SIZE, mlp.NUM_PIXELS), np.float32)
    shares = np.eye(mlp.NUM_CLASSES, dtype=np.float32)[labels]
    return mlp.build(learning_rate=1e-3, seed=0), (rows, shares)


if __name__ == "__main__":
    run(main, Request, __doc__)
