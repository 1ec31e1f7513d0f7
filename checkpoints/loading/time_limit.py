"""What is said of a run that took longer than it may."""

from collections.abc import Iterable

import tensorflow as tf

from checkpoints.errors import first_few
from checkpoints.loading.op_list import RISKS, WAIT

_SHOWN = 3
_YEAR_SECONDS = 365 * 24 * 3600


def milliseconds(time_limit: float | None) -> int:
    """A limit in seconds as `RunOptions.timeout_in_ms` takes it: 0 is no limit.

    Args:
      time_limit: seconds, 0 or None for no limit. Below a millisecond counts as one, and more
        than a year, for which the session's own clock is not made, as no limit.
    """
    if not time_limit or time_limit > _YEAR_SECONDS:
        return 0
    return max(1, round(time_limit * 1000))


def overrun(graph: tf.Graph, time_limit: float) -> str:
    """One line on why a run of `graph` may have taken longer than `time_limit` seconds.

    The session does not tell what it was doing, the graph does: where it has operations that wait
    for others, they are named, since a queue that nobody fills is nearly always the cause.
    """
    took = f"one run took longer than --time_limit={time_limit:g} seconds"
    waiting = [op for op in graph.get_operations() if _may_wait(op.type)]
    if not waiting:
        return f"{took}: give it more (0 is no limit), or fewer rows a run with --batch_size"
    described = first_few([f"{op.name} ({op.type})" for op in waiting], _SHOWN)
    return f"{took}: it waits for {described}, which nobody fills; {_advice(waiting)}"


def _may_wait(kind: str) -> bool:
    """Whether such an operation waits for others; a reader does so for a queue of file names."""
    return RISKS.get(kind) == WAIT or kind.startswith("ReaderRead")


def _advice(waiting: Iterable[tf.Operation]) -> str:
    """The tensors that can be fed in place of those that never come."""
    tensors = [output.name for op in waiting for output in op.outputs][:_SHOWN]
    return f"feed {', '.join(tensors)} in its place" if tensors else "feed what comes after it"
