"""What is said of a run without an end; the limit itself is tested on whole predictions."""

import pytest
import tensorflow as tf

from metagraph.safety import GRACE_SECONDS, TimeLimit

v1 = tf.compat.v1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 0), (0.0001, 1), (0.25, 250), (60.0, 60_000), (1e300, 0)],
)
def test_milliseconds(seconds: float, expected: int) -> None:
    assert TimeLimit(seconds).milliseconds == expected


def _calls(seconds: float) -> list[tuple[float, str]]:
    """What ends the process is told when something takes its time."""
    calls: list[tuple[float, str]] = []
    limit = TimeLimit(seconds, lambda after, line: calls.append((after, line)))
    with limit.over("the import"):
        calls.append((-1, "works"))
    return calls


def test_what_does_not_stop_in_time_ends_the_process() -> None:
    begun, work, stopped = _calls(2.5)
    assert (begun[0], work[0], stopped[0]) == (2.5 + GRACE_SECONDS, -1, 0)
    assert begun[1] == (
        "the import took longer than --time_limit=2.5 seconds, and does not end: give it more (0 "
        "is no limit)"
    )


def test_an_error_stops_the_clock() -> None:
    calls: list[float] = []
    limit = TimeLimit(1, lambda after, _: calls.append(after))
    with pytest.raises(ZeroDivisionError), limit.over("the import"):
        raise ZeroDivisionError
    assert calls[-1] == 0


@pytest.mark.parametrize("seconds", [0, 1e300])
def test_without_a_limit_nothing_is_ended(seconds: float) -> None:
    assert _calls(seconds) == [(-1, "works")]


def test_a_reader_waits_for_its_queue() -> None:
    with tf.Graph().as_default() as graph:
        queue = v1.FIFOQueue(1, [tf.string], [[]])
        v1.WholeFileReader().read(queue, name="read")
    assert "it waits for read (ReaderReadV2)" in TimeLimit(1).overrun("one run", graph)


def test_what_waits_is_named_with_what_to_feed() -> None:
    with tf.Graph().as_default() as graph:
        queue = v1.FIFOQueue(1, [tf.int32, tf.int32], [[], []])
        queue.dequeue(name="first")
    assert TimeLimit(1.5).overrun("one run", graph) == (
        "one run took longer than --time_limit=1.5 seconds: it waits for first (QueueDequeueV2), "
        "which nobody fills; feed first:0, first:1 in its place"
    )


def test_what_waits_is_not_listed_without_an_end() -> None:
    with tf.Graph().as_default() as graph:
        queue = v1.FIFOQueue(1, [tf.int32], [[]])
        for _ in range(9):
            queue.enqueue(1)
    assert "and 6 more, which nobody fills; feed what comes after it" in TimeLimit(1).overrun(
        "one run", graph
    )


def test_what_computes_is_not_said_to_wait() -> None:
    with tf.Graph().as_default() as graph:
        tf.constant(1)
    assert TimeLimit(60).overrun("one run", graph) == (
        "one run took longer than --time_limit=60 seconds: give it more (0 is no limit), or fewer "
        "rows a run with --batch_size"
    )
