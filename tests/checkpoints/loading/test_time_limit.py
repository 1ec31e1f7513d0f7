"""What is said of a run without an end; the limit itself is tested on whole predictions."""

import pytest
import tensorflow as tf

from checkpoints.loading.time_limit import milliseconds, overrun

v1 = tf.compat.v1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, 0), (0, 0), (0.0001, 1), (0.25, 250), (60.0, 60_000), (1e300, 0)],
)
def test_milliseconds(seconds: float | None, expected: int) -> None:
    assert milliseconds(seconds) == expected


def test_a_reader_waits_for_its_queue() -> None:
    with tf.Graph().as_default() as graph:
        queue = v1.FIFOQueue(1, [tf.string], [[]])
        v1.WholeFileReader().read(queue, name="read")
    assert "it waits for read (ReaderReadV2)" in overrun(graph, 1)


def test_what_waits_is_named_with_what_to_feed() -> None:
    with tf.Graph().as_default() as graph:
        queue = v1.FIFOQueue(1, [tf.int32, tf.int32], [[], []])
        queue.dequeue(name="first")
    assert overrun(graph, 1.5) == (
        "one run took longer than --time_limit=1.5 seconds: it waits for first (QueueDequeueV2), "
        "which nobody fills; feed first:0, first:1 in its place"
    )


def test_what_waits_is_not_listed_without_an_end() -> None:
    with tf.Graph().as_default() as graph:
        queue = v1.FIFOQueue(1, [tf.int32], [[]])
        for _ in range(9):
            queue.enqueue(1)
    assert "and 6 more, which nobody fills; feed what comes after it" in overrun(graph, 1)


def test_what_computes_is_not_said_to_wait() -> None:
    with tf.Graph().as_default() as graph:
        tf.constant(1)
    assert overrun(graph, 60) == (
        "one run took longer than --time_limit=60 seconds: give it more (0 is no limit), or fewer "
        "rows a run with --batch_size"
    )
