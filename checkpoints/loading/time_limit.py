"""How long a graph may take, and what is said where it takes longer."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tensorflow as tf

from checkpoints.errors import first_few
from checkpoints.loading.op_list import RISKS, WAIT

GRACE_SECONDS = 5.0  # After the limit, for a session to end by itself.
_SHOWN = 3
_YEAR_SECONDS = 365 * 24 * 3600
RUN = "one run"  # Of the fetched tensors, for some rows.


@dataclass(frozen=True)
class TimeLimit:
    """What each thing may take that TensorFlow is made to do with a graph: its import, a run.

    A session cancels queues and loops when its time is over. A kernel that computes is waited for,
    and an import, which folds constants, cannot be cancelled at all: nothing in a process can stop
    those but its end.

    Attributes:
      seconds: 0 for no limit. More than a year, for which no clock here is made, counts as none.
      end_after: ends the process with a line, so many seconds from now; each call stands in place
        of the one before, and 0 is for never. None to wait for whatever does not end.
    """

    seconds: float = 60.0
    end_after: Callable[[float, str], None] | None = None

    @property
    def milliseconds(self) -> int:
        """As `RunOptions.timeout_in_ms` takes it: 0 is no limit, and all below 1 counts as 1."""
        return max(1, round(self.seconds * 1000)) if self._is_limit else 0

    def start(self, what: str) -> None:
        """Has the process ended where `what`, such as `RUN`, does not `stop` in time."""
        if self.end_after is not None and self._is_limit:
            line = f"{self._took(what)}, and does not end: {_more_time(what)}"
            self.end_after(self.seconds + GRACE_SECONDS, line)

    def stop(self) -> None:
        """Ends what `start` began."""
        if self.end_after is not None and self._is_limit:
            self.end_after(0.0, "")

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """From `start` to `stop`; not to be nested."""
        self.start(what)
        try:
            yield
        finally:
            self.stop()

    def overrun(self, what: str, graph: tf.Graph) -> str:
        """One line on why a run of `graph` may have taken longer than it may.

        The session does not tell what it was doing, the graph does: where it has operations that
        wait for others, they are named, since a queue that nobody fills is nearly always the cause.
        """
        waiting = [op for op in graph.get_operations() if _may_wait(op.type)]
        if not waiting:
            return f"{self._took(what)}: {_more_time(what)}"
        described = first_few([f"{op.name} ({op.type})" for op in waiting], _SHOWN)
        return (
            f"{self._took(what)}: it waits for {described}, which nobody fills; {_advice(waiting)}"
        )

    @property
    def _is_limit(self) -> bool:
        return 0 < self.seconds <= _YEAR_SECONDS

    def _took(self, what: str) -> str:
        return f"{what} took longer than --time_limit={self.seconds:g} seconds"


def _more_time(what: str) -> str:
    more = "give it more (0 is no limit)"
    return f"{more}, or fewer rows a run with --batch_size" if what == RUN else more


def _may_wait(kind: str) -> bool:
    """Whether such an operation waits for others; a reader does so for a queue of file names."""
    return RISKS.get(kind) == WAIT or kind.startswith("ReaderRead")


def _advice(waiting: Iterable[tf.Operation]) -> str:
    """The tensors that can be fed in place of those that never come."""
    tensors = [output.name for op in waiting for output in op.outputs][:_SHOWN]
    return f"feed {', '.join(tensors)} in its place" if tensors else "feed what comes after it"
