"""Each way in which graphs take their variables, by reference and by handle; and their cuts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import ToolError
from metagraph.variables import VARIABLE_OPS
from tests.prediction import stock
from tests.tools.freezing import models

v1 = tf.compat.v1
X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
BY_HANDLE = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd"}
REFERENCES = {"RefSwitch", "RefMerge", "RefIdentity"}
Build = Callable[[tf.Tensor, tf.Variable], tf.Tensor]


@pytest.fixture(autouse=True)
def _control_flow() -> Iterator[None]:
    """Restores the kind of control flow, which the models switch for the process."""
    yield
    v1.enable_control_flow_v2()


def _x() -> tf.Tensor:
    return v1.placeholder(tf.float32, [None, 3], name="x")


def _weights(resource: bool) -> tf.Variable:
    initial = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    return v1.get_variable("w", initializer=initial, use_resource=resource)


def _partitioned(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    halves = v1.get_variable(
        "halves",
        [3, 3],
        initializer=v1.glorot_uniform_initializer(seed=1),
        partitioner=v1.fixed_size_partitioner(2),
    )
    return tf.matmul(x, tf.convert_to_tensor(halves)) + w[0]


def _loop(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    return tf.while_loop(
        lambda i, _: i < 3, lambda i, y: (i + 1, tf.matmul(y, w) + tf.gather(w, i)), [0, x]
    )[1]


def _conditional(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, w), lambda: x)


def _switch_case(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    choice = tf.cast(tf.reduce_sum(x) > 0, tf.int32)
    return tf.switch_case(choice, [lambda: x, lambda: tf.matmul(x, w), lambda: -x])


def _function(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    @tf.function  # type: ignore[untyped-decorator]
    def inner(rows: tf.Tensor) -> tf.Tensor:
        numbers = tf.cast(rows[:, 0], tf.int32) % 3
        return tf.matmul(rows, w) + tf.gather_nd(w, numbers[:, None])

    @tf.function  # type: ignore[untyped-decorator]
    def outer(rows: tf.Tensor) -> tf.Tensor:
        return inner(rows) + tf.gather(w, [0, 1])

    return tf.concat([outer(x), inner(x)], axis=0)


def _initialised(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    return tf.where(v1.is_variable_initialized(w), tf.matmul(x, w), x)


def _writing(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    with tf.control_dependencies([v1.assign_add(w, tf.ones([3, 3]), name="count")]):
        return tf.matmul(x, w)


def _save(folder: Path, build: Build, resource: bool, new: bool = True) -> str:
    (v1.enable_control_flow_v2 if new else v1.disable_control_flow_v2)()
    return models.save(folder, lambda: tf.identity(build(_x(), _weights(resource)), name="y"))


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "handle"])
@pytest.mark.parametrize(
    ("build", "new"),
    [
        (_partitioned, True),
        (_loop, True),
        (_loop, False),
        (_conditional, True),
        (_conditional, False),
        (_switch_case, True),
        (_function, True),
    ],
)
def test_they_become_constants(build: Build, new: bool, resource: bool, tmp_path: Path) -> None:
    meta = _save(tmp_path, build, resource, new)
    found = models.frozen(meta, "y").meta.graph_def
    assert not models.ops(found) & (VARIABLE_OPS | BY_HANDLE | REFERENCES)
    (expected,) = stock.run(meta, ["y:0"], {"x:0": X})
    np.testing.assert_allclose(models.run(found, ["y:0"], {"x:0": X})[0], expected, rtol=1e-6)


def test_references_are_seen_through(tmp_path: Path) -> None:
    """Conditionals and loops of the oldest graphs pass on the references themselves."""

    def build(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
        raw, ref = tf.raw_ops, w._ref()
        raw.RefIdentity(input=ref)
        chosen = raw.RefSwitch(data=ref, pred=tf.reduce_sum(x) > 0)
        merged = raw.RefMerge(inputs=[chosen.output_true, chosen.output_false])
        return tf.matmul(x, merged.output)

    def make_older(proto: MetaGraphDef) -> None:
        for node in proto.graph_def.node:
            node.op = "Variable" if node.op == "VariableV2" else node.op

    meta = _save(tmp_path, build, resource=False)
    (expected,) = stock.run(meta, ["y:0"], {"x:0": X})
    stock.edit_meta(Path(meta), make_older)
    found = models.frozen(meta, "y").meta.graph_def
    assert not models.ops(found) & (REFERENCES | VARIABLE_OPS)
    np.testing.assert_array_equal(models.run(found, ["y:0"], {"x:0": X})[0], expected)


def _out_of_a_function(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    handle = tf.function(lambda: w.handle)()
    return tf.matmul(x, tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32))


@pytest.mark.parametrize(
    ("build", "resource", "named"),
    [
        (_writing, False, "count"),
        (_writing, True, "AssignAddVariableOp"),
        (_out_of_a_function, True, "ret types identity"),
        (_initialised, False, "IsVariableInitialized"),
        (_initialised, True, "VarIsInitializedOp"),
    ],
)
def test_what_does_not_just_read_a_variable_cannot_be_frozen(
    build: Build, resource: bool, named: str, tmp_path: Path
) -> None:
    meta = _save(tmp_path, build, resource)
    with pytest.raises(ToolError, match=rf"^frozen, .*{named}.*; a frozen graph has .*--fetch$"):
        models.frozen(meta, "y")
    models.frozen(meta, "w")


def test_a_variable_can_be_cut_out(tmp_path: Path) -> None:
    found = models.frozen(_save(tmp_path, tf.matmul, resource=True), "y", "w", inputs=("w",))
    assert models.fed(found) == {"w": "w:0", "x": "x:0"}
    (value,) = models.run(found.meta.graph_def, ["y:0"], {"x:0": X, "w:0": 2 * np.eye(3)})
    np.testing.assert_array_equal(value, 2 * X)


def test_values_of_every_dtype(tmp_path: Path) -> None:
    values = {
        "half": np.array([0.5, -1], np.float16),
        "bfloat": np.array([0.5, -1], tf.bfloat16.as_numpy_dtype),
        "long": np.array([2**60, -1]),
        "yes": np.array([True, False]),
        "complex": np.array([1 + 2j], np.complex64),
        "text": np.array([b"a\x00b", b""], object),
        "none": np.zeros([0, 3], np.float32),
        "one": np.array(7, np.uint8),
    }

    def build() -> None:
        for name, value in values.items():
            v1.get_variable(name, initializer=tf.constant(value), use_resource=False)

    found = models.frozen(models.save(tmp_path, build), *values)
    results = models.run(found.meta.graph_def, [f"{name}:0" for name in values], {})
    for name, value in zip(values, results, strict=True):
        assert value.dtype == values[name].dtype
        np.testing.assert_array_equal(value, values[name])


# Where a graph is cut, it keeps the names that it takes its inputs by.

ROWS = np.arange(12, dtype=np.float32).reshape(2, 6)


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
        fed = dict(zip(names, (ROWS[:, :2], ROWS[:, 2:4]), strict=True))
        (value,) = models.run(graph, ["ends:0"], fed)
        np.testing.assert_array_equal(value, ROWS[:, :2] + ROWS[:, 2:4])


def test_an_output_may_be_an_input(parts: str) -> None:
    found = models.frozen(parts, "parts:1", "starts", inputs=("parts:0", "parts:1"))
    fed = {"parts:0": ROWS[:, :2], "parts:1": ROWS[:, 2:4]}
    (value,) = models.run(found.meta.graph_def, ["starts:0"], fed)
    np.testing.assert_array_equal(value, ROWS[:, :2] + ROWS[:, 2:4])


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
    (value,) = models.run(found.meta.graph_def, ["y:0"], {"batch:0": ROWS[:, :2]})
    np.testing.assert_array_equal(value, ROWS[:, :2] * 3)
