"""Assembles the next batches while the present one is trained on."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(
    batch_of_step: Callable[[int], T],
    start: int,
    stop: int,
    depth: int | None = None,
    workers: int = 1,
) -> Generator[T, None, None]:
    """Yields batch_of_step(k) for k in [start, stop), in this order, assembled in other threads.

    The threads start with the first batch that is asked for and end with the last one, with an
    exception, or when the generator is closed; a batch in the making is waited for, one that is
    not begun is dropped. An interpreter that exits ends them too.

    Args:
      batch_of_step: called in those threads, begun for one step after the other.
      start: the first step.
      stop: one more than the last step.
      depth: how many batches, 1 or more, are in memory or in the making besides the one that was
        yielded last; None for one more than there are workers.
      workers: how many threads, 1 or more; more than `depth` of them never work at once.

    Raises:
      Exception: what batch_of_step raised, at the step it was raised for.
    """
    if depth is None:
        depth = workers + 1
    if depth < 1:
        raise ValueError(f"depth must be 1 or more, not {depth}")
    executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read-ahead")
    try:
        first_ones = range(start, min(start + depth, stop))
        pending = deque(executor.submit(batch_of_step, step) for step in first_ones)
        for step in range(start + depth, stop + depth):
            batch = pending.popleft().result()
            if step < stop:
                pending.append(executor.submit(batch_of_step, step))
            yield batch
    finally:
        executor.shutdown(cancel_futures=True)
