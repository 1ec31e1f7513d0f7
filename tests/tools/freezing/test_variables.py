"""Each way in which graphs take their variables, by reference and by handle."""

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
BY_HANDLE = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape"}


def _x() -> tf.Tensor:
    return v1.placeholder(tf.float32, [None, 3], name="x")


def _weights(resource: bool, shape: tuple[int, ...] = (3, 3)) -> tf.Variable:
    initial = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return v1.get_variable("w", initializer=initial, use_resource=resource)


def _plain(resource: bool) -> tf.Tensor:
    return tf.matmul(_x(), _weights(resource))


def _partitioned(resource: bool) -> tf.Tensor:
    w = v1.get_variable(
        "w",
        [3, 4],
        initializer=v1.glorot_uniform_initializer(seed=1),
        partitioner=v1.fixed_size_partitioner(2),
        use_resource=resource,
    )
    return tf.matmul(_x(), tf.convert_to_tensor(w))


def _old_loop(resource: bool) -> tf.Tensor:
    v1.disable_control_flow_v2()
    x, w = _x(), _weights(resource)
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.matmul(y, w)), [0, x])[1]


def _old_conditional(resource: bool) -> tf.Tensor:
    v1.disable_control_flow_v2()
    x, w = _x(), _weights(resource)
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, w), lambda: x)


def _new_loop(resource: bool) -> tf.Tensor:
    v1.enable_control_flow_v2()
    x, w = _x(), _weights(resource)
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.matmul(y, w)), [0, x])[1]


def _new_conditional(resource: bool) -> tf.Tensor:
    v1.enable_control_flow_v2()
    x, w = _x(), _weights(resource)
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, w), lambda: x)


def _switch_case(resource: bool) -> tf.Tensor:
    v1.enable_control_flow_v2()
    x, w = _x(), _weights(resource)
    choice = tf.cast(tf.reduce_sum(x) > 0, tf.int32)
    return tf.switch_case(choice, [lambda: x, lambda: tf.matmul(x, w), lambda: -x])


def _function(resource: bool) -> tf.Tensor:
    w = _weights(resource)

    @tf.function  # type: ignore[untyped-decorator]
    def inner(rows: tf.Tensor) -> tf.Tensor:
        return tf.matmul(rows, w)

    @tf.function  # type: ignore[untyped-decorator]
    def outer(rows: tf.Tensor) -> tf.Tensor:
        return inner(rows) + tf.gather(w, [0, 1])

    return tf.concat([outer(_x()), inner(_x_again())], axis=0)


def _x_again() -> tf.Tensor:
    return v1.get_default_graph().get_tensor_by_name("x:0")


def _rows_in_function(resource: bool) -> tf.Tensor:
    w = _weights(resource)

    @tf.function  # type: ignore[untyped-decorator]
    def rows(x: tf.Tensor) -> tf.Tensor:
        numbers = tf.cast(x[:, 0], tf.int32) % 3
        return tf.gather(w, numbers) + tf.gather_nd(w, numbers[:, None])

    return rows(_x())


def _rows_in_old_loop(resource: bool) -> tf.Tensor:
    v1.disable_control_flow_v2()
    x, w = _x(), _weights(resource)
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y + tf.gather(w, i)), [0, x])[1]


def _rows_by_batch(resource: bool) -> tf.Tensor:
    x, w = _x(), _weights(resource, (2, 3, 3))
    numbers = tf.stack([tf.range(2), tf.range(2)])
    return tf.gather(w, numbers, batch_dims=1) + tf.reduce_sum(x)


def _initialised(resource: bool) -> tf.Tensor:
    """As `tf.Variable.initialized_value` has it."""
    v1.disable_control_flow_v2()
    x, w = _x(), _weights(resource)
    known = v1.is_variable_initialized(w)
    return tf.matmul(x, tf.cond(known, w.read_value, lambda: tf.zeros([3, 3])))


def _shape_of_it(resource: bool) -> tf.Tensor:
    x, w = _x(), _weights(resource)
    return x * tf.cast(tf.shape(w), tf.float32)[0]


@pytest.fixture(autouse=True)
def _control_flow() -> Iterator[None]:
    """Restores the kind of control flow, which the models switch for the process."""
    yield
    v1.enable_control_flow_v2()


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "handle"])
@pytest.mark.parametrize(
    "build",
    [
        _plain,
        _partitioned,
        _old_loop,
        _old_conditional,
        _new_loop,
        _new_conditional,
        _switch_case,
        _function,
        _rows_in_function,
        _rows_in_old_loop,
        _rows_by_batch,
        _initialised,
        _shape_of_it,
    ],
)
def test_they_become_constants(
    build: Callable[[bool], tf.Tensor], resource: bool, tmp_path: Path
) -> None:
    meta = models.save(tmp_path, lambda: tf.identity(build(resource), name="y"))
    found = models.frozen(meta, "y").meta.graph_def
    assert not models.ops(found) & (VARIABLE_OPS | BY_HANDLE)
    (expected,) = stock.run(meta, ["y:0"], {"x:0": X})
    np.testing.assert_allclose(models.run(found, ["y:0"], {"x:0": X})[0], expected, rtol=1e-6)


def test_references_are_seen_through(tmp_path: Path) -> None:
    """Conditionals and loops of the oldest graphs pass on the references themselves."""

    def build() -> None:
        ref = _weights(resource=False)._ref()
        raw = tf.raw_ops
        raw.RefIdentity(input=ref, name="identity")
        chosen = raw.RefSwitch(data=ref, pred=tf.reduce_sum(_x()) > 0, name="switch")
        merged = raw.RefMerge(inputs=[chosen.output_true, chosen.output_false], name="merge")
        known = raw.IsVariableInitialized(ref=ref)
        tf.where(known, tf.matmul(_x_again(), merged.output), -1.0, name="y")

    meta = models.save(tmp_path, build)
    found = models.frozen(meta, "y").meta.graph_def
    assert not models.ops(found) & {"RefSwitch", "RefMerge", "RefIdentity", *VARIABLE_OPS}
    (expected,) = stock.run(meta, ["y:0"], {"x:0": X})
    np.testing.assert_array_equal(models.run(found, ["y:0"], {"x:0": X})[0], expected)


def test_a_variable_of_the_oldest_kind(tmp_path: Path) -> None:
    def edit(proto: MetaGraphDef) -> None:
        for node in proto.graph_def.node:
            node.op = "Variable" if node.op == "VariableV2" else node.op

    meta = models.save(tmp_path, lambda: tf.identity(_plain(resource=False), name="y"))
    stock.edit_meta(Path(meta), edit)
    assert not models.ops(models.frozen(meta, "y").meta.graph_def) & VARIABLE_OPS


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "handle"])
def test_what_writes_a_variable_cannot_be_frozen(resource: bool, tmp_path: Path) -> None:
    def build() -> None:
        x, w = _x(), _weights(resource)
        with tf.control_dependencies([v1.assign_add(w, tf.ones([3, 3]), name="count")]):
            tf.matmul(x, w, name="y")
        tf.matmul(x, w, name="z")

    meta = models.save(tmp_path, build)
    with pytest.raises(ToolError, match=r"cannot be frozen: .*Assign.* changes a variable.*--outp"):
        models.frozen(meta, "y")
    models.frozen(meta, "z")


def test_a_variable_can_be_cut_out(tmp_path: Path) -> None:
    meta = models.save(tmp_path, lambda: tf.identity(_plain(resource=True), name="y"))
    found = models.frozen(meta, "y", inputs=("w",))
    assert found.inputs == {"w": "w:0", "x": "x:0"}
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
    names = [f"{name}:0" for name in values]
    results = models.run(found.meta.graph_def, names, {})
    for name, value in zip(values, results, strict=True):
        assert value.dtype == values[name].dtype
        np.testing.assert_array_equal(value, values[name])
