import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.batches import read_ahead
from errors import DataError

PROJECT = Path(__file__).resolve().parents[2]


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    assert not reading_threads()
    yield
    assert not reading_threads()


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_yields_every_step_in_order(depth: int) -> None:
    assert list(read_ahead(str, 3, 30, depth)) == [str(step) for step in range(3, 30)]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (7, 5)])
def test_no_steps_call_nothing(start: int, stop: int) -> None:
    calls: list[int] = []
    assert list(read_ahead(calls.append, start, stop)) == []
    assert calls == []


def test_assembles_in_one_other_thread() -> None:
    threads = set(read_ahead(lambda _: threading.get_ident(), 0, 20))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


@pytest.mark.parametrize("depth", [1, 3])
def test_runs_no_more_than_depth_ahead(depth: int) -> None:
    begun: list[int] = []
    allowed = threading.Semaphore(0)

    def batch(step: int) -> int:
        begun.append(step)
        allowed.release()
        return step

    batches = read_ahead(batch, 0, 100, depth)
    for step in range(10):
        assert next(batches) == step
        while len(begun) < step + 1 + depth:
            assert allowed.acquire(timeout=300)
        assert begun == list(range(step + 1 + depth))
    batches.close()


def test_exception_comes_at_its_step() -> None:
    def batch(step: int) -> int:
        if step == 5:
            raise LookupError("no batch 5")
        return step

    batches = read_ahead(batch, 0, 10)
    assert [next(batches) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(LookupError, match="no batch 5"):
        next(batches)
    assert list(batches) == []


def test_close_drops_what_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    in_the_making = threading.Event()
    go_on = threading.Event()

    def batch(step: int) -> int:
        calls.append(step)
        if step == 1:
            in_the_making.set()
            assert go_on.wait(300)
        return step

    batches = read_ahead(batch, 0, 100, depth=10)
    assert next(batches) == 0
    assert in_the_making.wait(300)

    def shutdown(executor: ThreadPoolExecutor, wait: bool = True, **options: bool) -> None:
        end(executor, wait=False, **options)
        go_on.set()
        end(executor, wait=wait)

    end = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown)
    batches.close()
    assert calls == [0, 1]


def test_forgotten_generator_ends_its_thread() -> None:
    batches = read_ahead(str, 0, 100)
    next(batches)
    assert len(reading_threads()) == 1
    del batches
    gc.collect()


def test_generator_that_is_never_used_starts_no_thread() -> None:
    read_ahead(str, 0, 100)
    assert not reading_threads()


def test_process_exits_while_a_generator_is_open() -> None:
    program = (
        "from data.batches import read_ahead\n"
        "batches = read_ahead(str, 0, 1000)\n"
        "print(next(batches))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, timeout=300, check=True
    )
    assert (done.stdout.decode().split(), done.stderr) == (["0"], b"")


def test_depth_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="depth"):
        next(read_ahead(str, 0, 10, depth=0))


@pytest.mark.parametrize("workers", [2, 5])
def test_several_workers_keep_the_order(workers: int) -> None:
    together = threading.Barrier(workers)

    def batch(step: int) -> int:
        together.wait(300)  # Passed only by as many at once.
        time.sleep((step * 7 % 5) / 1000)
        return step

    assert [*read_ahead(batch, 3, 3 + 6 * workers, depth=workers + 1, workers=workers)] == [
        *range(3, 3 + 6 * workers)
    ]


def test_an_error_comes_at_its_step_from_several_workers_too() -> None:
    def batch(step: int) -> int:
        if step in (6, 7):
            raise DataError(f"step {step}")
        time.sleep((10 - step) / 500)
        return step

    found = read_ahead(batch, 0, 10, depth=4, workers=3)
    assert [next(found) for _ in range(6)] == [*range(6)]
    with pytest.raises(DataError, match="step 6"):
        next(found)
