"""Watches a run that does not heed its time limit.

A session cancels queues and loops when the limit is over; a kernel that computes is waited for,
and so are those after it. Nothing in a process can stop them but the end of the process.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from checkpoints.loading.inference_graph import InferenceGraph

GRACE_SECONDS = 5.0  # After the limit, for a session to end by itself.
_CHECK_SECONDS = 0.2


@contextmanager
def watched(
    graph: InferenceGraph, time_limit: float, end: Callable[[str], None] | None
) -> Iterator[None]:
    """Calls `end` where a run inside is still going on `GRACE_SECONDS` after its time limit.

    Args:
      graph: its runs are watched.
      time_limit: seconds; 0 for none, and then nothing is watched.
      end: called once, in another thread, with one line on what happened: it is to end the
        process. None to watch nothing.
    """
    if end is None or not time_limit:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(graph, time_limit, end, done), name="overtime", daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def _watch(
    graph: InferenceGraph, time_limit: float, end: Callable[[str], None], done: threading.Event
) -> None:
    while not done.wait(_CHECK_SECONDS):
        started = graph.running_since
        if started is not None and time.monotonic() - started > time_limit + GRACE_SECONDS:
            end(
                f"one run took longer than --time_limit={time_limit:g} seconds, and does not end: "
                "give it more (0 is no limit), or fewer rows a run with --batch_size"
            )
            return
