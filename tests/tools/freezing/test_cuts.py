"""Where a graph is cut, it keeps the names that it takes its inputs by."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from errors import ToolError
from tests.tools.freezing import models

v1 = tf.compat.v1
X = np.arange(12, dtype=np.float32).reshape(2, 6)


@pytest.fixture
def parts(tmp_path: Path) -> str:
    """The `.meta` of a split in three, and two sums of parts."""

    def build() -> None:
        w = v1.get_variable("w", initializer=np.full(6, 2, np.float32), use_resource=False)
        x = v1.placeholder(tf.float32, [None, 6], name="x")
        first, second, third = tf.split(x * w, 3, axis=1, name="parts")
        tf.add(first, third, name="ends")
        tf.add(first, second, name="starts")

    return models.save(tmp_path, build)


def test_several_outputs_of_one_node(parts: str) -> None:
    found = models.frozen(parts, "ends", inputs=("parts:0", "parts:2"))
    graph = found.meta.graph_def
    assert models.fed(found) == {"parts": "parts:0", "parts:2": "parts:2"}
    placeholders = sorted(f"{n.name}:0" for n in graph.node if n.op == "Placeholder")
    for names in (("parts:0", "parts:2"), placeholders):
        fed = dict(zip(names, (X[:, :2], X[:, 2:4]), strict=True))
        np.testing.assert_array_equal(models.run(graph, ["ends:0"], fed)[0], X[:, :2] + X[:, 2:4])


def test_an_output_may_be_an_input(parts: str) -> None:
    found = models.frozen(parts, "parts:1", "starts", inputs=("parts:0", "parts:1"))
    fed = {"parts:0": X[:, :2], "parts:1": X[:, 2:4]}
    (value,) = models.run(found.meta.graph_def, ["starts:0"], fed)
    np.testing.assert_array_equal(value, X[:, :2] + X[:, 2:4])


def test_a_node_cannot_be_cut_at_some_of_its_outputs(parts: str) -> None:
    with pytest.raises(ToolError, match=r"cut at parts:0 alone, as it needs other outputs of part"):
        models.frozen(parts, "ends", inputs=("parts:0",))


def test_a_queue_is_cut_by_itself(tmp_path: Path) -> None:
    def build() -> None:
        w = v1.get_variable("w", initializer=np.float32(3), use_resource=False)
        queue = tf.queue.FIFOQueue(4, [tf.float32, tf.int64], [[2], []], name="rows")
        images, labels = queue.dequeue_many(2, name="batch")
        tf.multiply(images, w, name="y")
        tf.identity(labels, name="labels")

    found = models.frozen(models.save(tmp_path, build), "y")
    assert models.fed(found) == {"batch": "batch:0"}
    (value,) = models.run(found.meta.graph_def, ["y:0"], {"batch:0": X[:, :2]})
    np.testing.assert_array_equal(value, X[:, :2] * 3)
