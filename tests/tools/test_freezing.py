"""How graphs take their variables; where they are cut; what is off in them; what is the same."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import Array
from errors import CheckpointError, ToolError
from metagraph.description import RunnableGraph, TensorInfo
from metagraph.meta import read_meta_graph
from metagraph.safety import RANDOM_OPS, TimeLimit
from metagraph.session import InferenceGraph
from metagraph.variables import VARIABLE_OPS
from models import blocks
from prediction.chosen_model import with_model
from tests.metagraph.made import saved
from tests.prediction import stock
from tools.folding import Known
from tools.freeze import PartConfig
from tools.freezing import (
    Reference,
    freeze_and_compare,
    largest_difference,
    run_original,
    try_batches,
)
from tools.frozen_graph import FrozenGraph, plan_freeze

v1 = tf.compat.v1
X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
BY_HANDLE = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd"}
REFERENCES = {"RefSwitch", "RefMerge", "RefIdentity"}
Build = Callable[[tf.Tensor, tf.Variable], tf.Tensor]


def frozen(meta: str, *outputs: str, **asked: Any) -> FrozenGraph:
    """The frozen graph, which is found to compute what the original does."""
    config = PartConfig(meta, "none.pb", outputs=outputs, **asked)
    found, _, difference = with_model(config, lambda file, _: freeze_and_compare(file, config))
    assert difference == 0.0
    return found


def inputs_of(found: FrozenGraph) -> dict[str, str]:
    """The names of its inputs by their keys."""
    return {key: info.name for key, info in found.inputs.items()}


def ops_of(graph: GraphDef) -> set[str]:
    """All operations of a graph and of its functions."""
    functions = graph.library.function
    return {node.op for nodes in (graph.node, *(f.node_def for f in functions)) for node in nodes}


def run_alone(graph: GraphDef, fetches: Sequence[str], feeds: Mapping[str, Any]) -> list[Array]:
    """What a stock client gets from the graph alone; nothing is restored or initialised."""
    with tf.Graph().as_default() as imported, v1.Session() as session:
        tf.import_graph_def(GraphDef.FromString(graph.SerializeToString()), name="")
        assert not imported.get_collection(v1.GraphKeys.GLOBAL_VARIABLES)
        return [np.asarray(value) for value in session.run(list(fetches), dict(feeds))]


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
    return saved(folder, lambda: tf.identity(build(_x(), _weights(resource)), name="y")).path


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
    found = frozen(meta, "y").meta.graph_def
    assert not ops_of(found) & (VARIABLE_OPS | BY_HANDLE | REFERENCES)
    (expected,) = stock.run(meta, ["y:0"], {"x:0": X})
    np.testing.assert_allclose(run_alone(found, ["y:0"], {"x:0": X})[0], expected, rtol=1e-6)


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
    found = frozen(meta, "y").meta.graph_def
    assert not ops_of(found) & (REFERENCES | VARIABLE_OPS)
    np.testing.assert_array_equal(run_alone(found, ["y:0"], {"x:0": X})[0], expected)


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
        frozen(meta, "y")
    frozen(meta, "w")


def test_a_variable_can_be_cut_out(tmp_path: Path) -> None:
    found = frozen(_save(tmp_path, tf.matmul, resource=True), "y", "w", inputs=("w",))
    assert inputs_of(found) == {"w": "w:0", "x": "x:0"}
    (value,) = run_alone(found.meta.graph_def, ["y:0"], {"x:0": X, "w:0": 2 * np.eye(3)})
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

    found = frozen(saved(tmp_path, build).path, *values)
    results = run_alone(found.meta.graph_def, [f"{name}:0" for name in values], {})
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

    return saved(tmp_path, build).path


def test_several_outputs_of_one_node(parts: str) -> None:
    found = frozen(parts, "ends", inputs=("parts:0", "parts:2"))
    graph = found.meta.graph_def
    assert inputs_of(found) == {"parts": "parts:0", "parts:2": "parts:2"}
    placeholders = sorted(f"{n.name}:0" for n in graph.node if n.op == "Placeholder")
    for names in (("parts:0", "parts:2"), placeholders):
        fed = dict(zip(names, (ROWS[:, :2], ROWS[:, 2:4]), strict=True))
        (value,) = run_alone(graph, ["ends:0"], fed)
        np.testing.assert_array_equal(value, ROWS[:, :2] + ROWS[:, 2:4])


def test_an_output_may_be_an_input(parts: str) -> None:
    found = frozen(parts, "parts:1", "starts", inputs=("parts:0", "parts:1"))
    fed = {"parts:0": ROWS[:, :2], "parts:1": ROWS[:, 2:4]}
    (value,) = run_alone(found.meta.graph_def, ["starts:0"], fed)
    np.testing.assert_array_equal(value, ROWS[:, :2] + ROWS[:, 2:4])


def test_a_node_cannot_be_cut_at_some_of_its_outputs(parts: str) -> None:
    with pytest.raises(ToolError, match=r"cut at parts:0 alone, as it needs other outputs of part"):
        frozen(parts, "ends", inputs=("parts:0",))


def test_a_queue_is_cut_by_itself(tmp_path: Path) -> None:
    def build() -> None:
        w = v1.get_variable("w", initializer=np.float32(3), use_resource=False)
        queue = tf.queue.FIFOQueue(4, [tf.float32, tf.int64], [[2], []], name="rows")
        images, labels = queue.dequeue_many(2, name="batch")
        tf.multiply(images, w, name="y")
        tf.identity(labels, name="labels")

    found = frozen(saved(tmp_path, build).path, "y")
    assert inputs_of(found) == {"batch": "batch:0"}
    (value,) = run_alone(found.meta.graph_def, ["y:0"], {"batch:0": ROWS[:, :2]})
    np.testing.assert_array_equal(value, ROWS[:, :2] * 3)


def test_a_cut_has_the_shape_that_is_said(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.nn.relu(v1.placeholder(tf.float32, name="x"), name="inner")
        tf.matmul(
            tf.reshape(x, [-1, 6]), v1.get_variable("w", [6, 2], use_resource=False), name="y"
        )

    found = frozen(
        saved(tmp_path, build).path, "y", inputs=("inner",), shapes={"inner": (None, 2, 3)}
    )
    assert found.inputs["inner"].shape == (None, 2, 3)
    (node,) = (node for node in found.meta.graph_def.node if node.op == "Placeholder")
    assert [dim.size for dim in node.attr["shape"].shape.dim] == [-1, 2, 3]


# Training switches and dropouts: off, gone, and the values as before.

NOISE = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
UNIFORM = {"StatelessRandomUniform", "StatelessRandomUniformV2"}
CHOICES = {"Case", "If", "Merge", "StatelessCase", "StatelessIf", "Switch"}


def _by_step(x: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
    """As the models here have it; the step is then needed by nobody."""
    step = v1.get_variable("step", [], tf.int64, v1.zeros_initializer())
    return blocks.dropout(x, keep, 0, 1, step)


def _drawn(x: tf.Tensor) -> tf.Tensor:
    return tf.random.uniform(tf.shape(x))


# How it is made, of `x` and what it is turned off by; and the value that does so.
DROPOUTS: dict[str, tuple[Build, float]] = {
    "until 1.12": (lambda x, keep: x / keep * tf.floor(keep + _drawn(x)), 1),
    "since 1.13": (lambda x, r: x * (1 / (1 - r)) * tf.cast(_drawn(x) >= r, tf.float32), 0),
    "today": (lambda x, rate: v1.nn.dropout(x, rate=rate), 0),
    "of a layer": (lambda x, keep: v1.nn.dropout(tf.nn.relu(x), keep_prob=keep), 1),
    "here": (_by_step, 1),
}
# Of these the mask is not known to have the shape of `x`.
OTHER_MASKS: dict[str, tuple[Build, float]] = {
    "of rows": (lambda x, r: v1.nn.dropout(x, rate=r, noise_shape=[tf.shape(x)[0], 1]), 0),
    "of a known shape": (lambda x, r: v1.nn.dropout(tf.ensure_shape(x, [4, 6]), rate=r), 0),
}


def _frozen(folder: Path, build: Callable[[tf.Tensor], tf.Tensor], off: dict[str, Any]) -> set[str]:
    """Freezes; compares with a stock client that feeds `off`; returns the operations left."""

    def graph() -> None:
        x = v1.placeholder(tf.float32, [None, 6], name="x")
        w = v1.get_variable("w", initializer=np.eye(6, dtype=np.float32) * 3, use_resource=False)
        tf.identity(build(tf.matmul(x, w)), name="y")

    meta = saved(folder, graph).path
    found = frozen(meta, "y", feed=[f"x={NOISE.tolist()}"])
    assert inputs_of(found) == {"x": "x:0"}
    assert found.plan.off_values == off
    (expected,) = stock.run(meta, ["y:0"], {"x:0": NOISE, **off})
    (value,) = run_alone(found.meta.graph_def, ["y:0"], {"x:0": NOISE})
    np.testing.assert_array_equal(value, expected)
    return ops_of(found.meta.graph_def)


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("kind", [*DROPOUTS, *OTHER_MASKS])
def test_a_dropout_is_gone(kind: str, default: bool, tmp_path: Path) -> None:
    build, off = (DROPOUTS | OTHER_MASKS)[kind]

    def graph(x: tf.Tensor) -> tf.Tensor:
        given = v1.placeholder_with_default(0.5, [], "p") if default else None
        return build(x, v1.placeholder(tf.float32, [], "p") if given is None else given)

    left = _frozen(tmp_path, graph, {"p:0": off})
    assert not left & (RANDOM_OPS | UNIFORM)
    if kind in DROPOUTS:
        assert left <= {"Const", "Identity", "MatMul", "Placeholder", "Relu"}


def test_a_dropout_that_is_built_in_stays(tmp_path: Path, caplog: Any) -> None:
    def graph() -> None:
        x = v1.placeholder(tf.float32, [None, 60], "x")
        w = v1.get_variable("w", initializer=np.ones(60, np.float32), use_resource=False)
        tf.identity(v1.nn.dropout(x * w, rate=0.5), name="y")

    found = frozen(saved(tmp_path, graph).path, "y")
    assert "RandomUniform" in ops_of(found.meta.graph_def)
    assert "y:0: another value at each run" in caplog.text


def _cond(x: tf.Tensor, on: tf.Tensor) -> tf.Tensor:
    return tf.cond(on, lambda: tf.nn.dropout(x, 0.5), lambda: x * 2)


def _nested(x: tf.Tensor, on: tf.Tensor) -> tf.Tensor:
    off = tf.logical_not(on)
    return tf.cond(off, lambda: tf.cond(on, lambda: x, lambda: x - 1), lambda: tf.abs(x))


def _loop_inside(x: tf.Tensor, on: tf.Tensor) -> tf.Tensor:
    def loop() -> tf.Tensor:
        return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y + x), [0, x])[1]

    return tf.cond(on, loop, lambda: x * 5) + tf.cond(on, lambda: x, loop)


def _inside_a_loop(x: tf.Tensor, on: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, _nested(y, on)), [0, x])[1]


def _averaging(x: tf.Tensor, on: tf.Tensor) -> tf.Tensor:
    """A moving average that training alone updates."""
    new = v1.control_flow_v2_enabled()
    mean = v1.get_variable("mean", initializer=np.ones(6, np.float32), use_resource=new)

    def update() -> tf.Tensor:
        with tf.control_dependencies([v1.assign(mean, tf.reduce_mean(x, 0))]):
            return tf.reduce_mean(x, 0)

    return x - tf.cond(on, update, lambda: tf.identity(mean))


def _switched(build: Build, name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    def graph(x: tf.Tensor) -> tf.Tensor:
        switch = v1.placeholder(tf.bool, [], name=name)
        return build(x, tf.logical_not(switch) if name == "testing" else switch)

    return graph


@pytest.mark.parametrize("build", [_cond, _nested, _loop_inside, _inside_a_loop, _averaging])
@pytest.mark.parametrize("name", ["is_training", "testing"])
def test_of_a_conditional_the_branch_that_runs_is_left(
    build: Build, name: str, tmp_path: Path
) -> None:
    v1.disable_control_flow_v2()
    left = _frozen(tmp_path, _switched(build, name), {f"{name}:0": name == "testing"})
    assert not left & RANDOM_OPS
    if build in (_loop_inside, _inside_a_loop):  # A loop has some of its own.
        assert "LoopCond" in left
    else:
        assert not left & CHOICES


@pytest.mark.parametrize("build", [_cond, _nested, _loop_inside, _inside_a_loop])
def test_of_a_choice_of_functions_both_are_left(build: Build, tmp_path: Path) -> None:
    v1.enable_control_flow_v2()
    assert _frozen(tmp_path, _switched(build, "testing"), {"testing:0": True}) & CHOICES


def test_a_choice_of_functions_one_of_which_writes_cannot_be_frozen(tmp_path: Path) -> None:
    v1.enable_control_flow_v2()
    with pytest.raises(ToolError, match=r"^frozen, .* at AssignVariableOp: "):
        _frozen(tmp_path, _switched(_averaging, "is_training"), {"is_training:0": False})


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "handle"])
def test_a_switch_that_is_a_variable_is_off_whatever_its_value(
    resource: bool, tmp_path: Path
) -> None:
    """As tflearn keeps it."""
    v1.disable_control_flow_v2()

    def graph() -> None:
        on = v1.get_variable("is_training", initializer=True, use_resource=resource)
        tf.identity(_cond(v1.placeholder(tf.float32, [None, 6], name="x"), on), name="y")

    found = frozen(saved(tmp_path, graph).path, "y")
    assert found.plan.off_values == {"is_training:0": False}
    (value,) = run_alone(found.meta.graph_def, ["y:0"], {"x:0": NOISE})
    np.testing.assert_array_equal(value, NOISE * 2)


def test_a_switch_that_is_asked_for_is_an_input(tmp_path: Path) -> None:
    def graph() -> None:
        w = v1.get_variable("w", initializer=1.0, use_resource=False)
        on = v1.placeholder(tf.bool, [], name="on")
        tf.identity(tf.cond(on, lambda: w + 0, lambda: w + 1), name="y")

    found = frozen(saved(tmp_path, graph).path, "y", inputs=("on",))
    assert inputs_of(found) == {"on": "on:0"}
    assert run_alone(found.meta.graph_def, ["y:0"], {"on:0": True}) == [1]


@pytest.mark.parametrize("shape", [[], [6]])
@pytest.mark.parametrize("resource", [False, True], ids=["reference", "handle"])
@pytest.mark.parametrize(
    "build",
    [
        lambda x, s: x * (1.0 / s),
        lambda x, s: (1.0 / s) * x,
        lambda x, s: x / (s * 1.0),
        lambda x, s: x * (s - 0.0) + (0.0 - s),
        lambda x, s: x * (1.0 - s),
        lambda x, s: x * tf.floor(1.0 + s),
        lambda x, s: x * (s / s + 1.0),
        lambda x, s: x * tf.cast(s > 0.5, tf.float32),
        lambda x, s: x * (1.0 / s) * tf.cast(_drawn(x) >= 0.0, tf.float32),
    ],
    ids=range(9),
)
def test_a_variable_is_not_known_in_sums_products_and_quotients(
    build: Build, resource: bool, shape: list[int], tmp_path: Path
) -> None:
    def graph() -> None:
        x, initial = v1.placeholder(tf.float32, [None, 6], "x"), np.full(shape, 0.37, np.float32)
        s = v1.get_variable("s", initializer=initial, use_resource=resource)
        tf.identity(build(x, s), name="y")

    meta = saved(tmp_path, graph).path
    (value,) = run_alone(frozen(meta, "y").meta.graph_def, ["y:0"], {"x:0": NOISE})
    np.testing.assert_allclose(value, stock.run(meta, ["y:0"], {"x:0": NOISE})[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: tf.constant(0.5) + 1.0, np.float32(1.5)),
        (lambda: 1 - tf.constant(0.25, tf.float16), np.float16(0.75)),
        (lambda: tf.cast(tf.constant(True), tf.float32) / 4, np.float32(0.25)),
        (lambda: tf.logical_or(tf.constant(False), tf.constant(3) > 2), np.True_),
        (lambda: tf.logical_not(tf.identity(tf.equal(tf.constant(2), 2))), np.False_),
        (lambda: tf.constant(1.0) / 0.0, np.float32("inf")),
        (lambda: tf.constant([1.0]), None),
        (lambda: tf.constant("text"), None),
        (lambda: v1.placeholder(tf.float32, []) + 1, None),
        (lambda: tf.exp(tf.constant(1.0)), None),
        (lambda: tf.floor(1.0 + tf.random.uniform([], 0.0, 1.0)), np.float32(1)),
        (lambda: tf.random.uniform([], dtype=tf.float16) < 1.0, np.True_),
        (lambda: tf.random.uniform([]) < 0.9, None),
        (lambda: tf.equal(tf.random.uniform([]), 0.5), None),
        (lambda: tf.random.uniform([]) < tf.random.uniform([]), None),
        (lambda: 1.0 / (tf.random.uniform([]) - 0.5) < 3.0, None),
    ],
    ids=range(16),
)
def test_single_values_are_known_as_a_session_has_them(build: Any, expected: Any) -> None:
    with tf.Graph().as_default() as graph:
        tensor = build()
        if expected is not None:
            with v1.Session() as session:
                assert session.run(tensor) == expected
    known = Known({node.name: node for node in graph.as_graph_def().node}).value(tensor.op.name)
    assert known == expected
    assert getattr(known, "dtype", None) == getattr(expected, "dtype", None)


def test_of_a_loop_nothing_is_known() -> None:
    graph = GraphDef()
    graph.node.add(name="a", op="Identity", input=["b"])
    graph.node.add(name="b", op="Identity", input=["a"])
    known = Known({node.name: node for node in graph.node})
    assert [known.value(name) for name in ("a", "b", "none")] == [None] * 3


# What counts as the same, and the values that a graph is tried on.


NAN, INF = float("nan"), float("inf")


def _difference(expected: Any, found: Any, random: tuple[str, ...] = ()) -> float:
    reference = Reference({}, {"y:0": np.asarray(expected)}, random)
    return largest_difference(reference, {"y:0": np.asarray(found)}, "the other")


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([1.0, NAN, INF], [1.0, NAN, INF], 0),
        ([1.0, 2.0], [1.0 + 5e-7, 2.0], 5e-7),
        ([1000.0], [1000.0009], 9e-4),
        ([1, 2], [1, 2], 0),
        (np.array([b"a"], object), np.array([b"a"], object), 0),
        (np.zeros([0, 3]), np.zeros([0, 3]), 0),
        (1 + 2j, 1 + 2j, 0),
        (np.ones(2, tf.bfloat16.as_numpy_dtype), np.ones(2, tf.bfloat16.as_numpy_dtype), 0),
    ],
)
def test_what_is_the_same(expected: Any, found: Any, difference: float) -> None:
    assert _difference(expected, found) == pytest.approx(difference, rel=1e-3)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ([1.0], [1.000003]),
        ([0.0], [3e-6]),
        ([NAN], [1.0]),
        ([INF], [-INF]),
        ([1], [2]),
        ([1], [1.0]),
        ([1.0, 1.0], [1.0]),
        (np.array([b"a"], object), np.array([b"b"], object)),
        ([True], [False]),
    ],
)
def test_what_is_not(expected: Any, found: Any) -> None:
    with pytest.raises(ToolError, match="the other gives another y:0 than the original"):
        _difference(expected, found)
    assert _difference(expected, found, random=("y:0",)) == 0


class _Asked(RunnableGraph):
    """A graph that takes what it is asked to take: the first, or what `takes` says."""

    is_pure, time_limit = True, TimeLimit()

    def __init__(
        self, infos: Sequence[TensorInfo], takes: Callable[..., str] | None = None
    ) -> None:
        self.feeds, self.fetches, self.runs = tuple(infos), (), list[list[Array]]()
        self._takes = takes

    @contextmanager
    def _one_run(self) -> Iterator[None]:
        yield

    def _run_batch(self, values: Sequence[Array]) -> list[Array]:
        self.runs.append([*values])
        if self._takes and (refusal := self._takes(*values)):
            raise CheckpointError(refusal)
        return []


def _values(*infos: TensorInfo, **given: Array) -> list[Array]:
    """The first that are tried."""
    named = {f"{name}:0": value for name, value in given.items()}
    return try_batches(cast(InferenceGraph, _Asked(infos)), named)[0]


@pytest.mark.parametrize(
    "dtype",
    [tf.float16, tf.bfloat16, tf.float64, tf.uint8, tf.int8, tf.int64, tf.bool, tf.complex64],
    ids=lambda dtype: dtype.name,
)
def test_values_are_of_the_dtype_and_within_what_models_take(dtype: tf.DType) -> None:
    (value,) = _values(TensorInfo("x:0", dtype, (None, 5, None)))
    assert value.shape == (2, 5, 8)
    assert tf.as_dtype(value.dtype) == dtype
    numbers = np.abs(value.astype(np.complex128))
    assert numbers.max() <= (255 if dtype == tf.uint8 else 1.5)
    assert (numbers.max() > 200) == (dtype == tf.uint8)
    assert np.unique(value).size > 1


def test_texts_are_empty_bools_off_and_unknown_ranks_rows() -> None:
    text, row, one, *switches = _values(
        TensorInfo("a:0", tf.string, (None, 1)),
        TensorInfo("b:0", tf.float32, None),
        TensorInfo("c:0", tf.float32, ()),
        *(TensorInfo("d:0", tf.bool, shape) for shape in ((), None)),
    )
    assert text.tolist() == [[b""], [b""]]
    assert (row.shape, one.shape) == ((2,), ())
    assert [switch.tolist() for switch in switches] == [False, False]
    with pytest.raises(ToolError, match="x:0 is a resource"):
        _values(TensorInfo("x:0", tf.resource, ()))


def test_they_are_the_same_each_time_and_the_first_refusal_is_the_reason() -> None:
    infos = [TensorInfo(name, tf.float32, (None, 3)) for name in ("x:0", "z:0")]
    first, second = _values(*infos), _values(*infos)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])

    with pytest.raises(CheckpointError, match=r"refused \(2, 3\)"):
        try_batches(cast(InferenceGraph, _Asked(infos, lambda x, _: f"refused {x.shape}")), {})


@pytest.mark.parametrize(
    ("shapes", "takes", "expected"),
    [
        ([None], lambda x: "" if x.shape == (2, 28) else "no", [(2, 28)]),
        ([(None, None)], lambda x: "" if len(x) == 1 else "no", [(1, 8)]),
        ([(None, 9, 9), (77,)], lambda x, *_: "" if len(x) == 77 else "no", [(77, 9, 9), (77,)]),
        ([(None,) * 4], lambda x: "" if x.shape[1] == 32 else "no", [(2, 32, 32, 32)]),
        ([(None, 2000, 2000)], lambda *_: "", [(1, 2000, 2000)]),
    ],
)
def test_sizes_are_found_in_few_small_trials(shapes: Any, takes: Any, expected: Any) -> None:
    graph = _Asked([TensorInfo(f"{n}:0", tf.float32, s) for n, s in enumerate(shapes)], takes)
    found, _ = try_batches(cast(InferenceGraph, graph), {})
    assert [value.shape for value in found] == expected
    assert len(graph.runs) <= 16
    assert all(sum(value.nbytes for value in run) <= 16 << 20 for run in graph.runs)


def test_the_trials_end_in_time_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = iter(range(0, 10_000, 20)), list[float]()
    monkeypatch.setattr("tools.freezing.time.monotonic", lambda: next(now))
    for seconds, most in ((60, 4), (0, 64)):
        graph = _Asked([TensorInfo("x:0", tf.float32, (None,) * 4)], lambda x: f"no: {x.shape}")
        graph.time_limit = TimeLimit(seconds, lambda after, _: lines.append(after))
        with pytest.raises(CheckpointError, match=r"no: \(2, 8, 8, 8\)"):
            try_batches(cast(InferenceGraph, graph), {})
        assert len(graph.runs) <= most
    assert lines == [65, 0]  # Over all of them together.


def test_one_integer_counts_the_rows_and_what_is_given_is_kept() -> None:
    infos = [TensorInfo("ids:0", tf.int32, (None, 4)), TensorInfo("batch_size:0", tf.int64, ())]
    assert _values(*infos)[1].tolist() == 2
    ids = np.ones((5, 4), np.int32)
    found = _values(*infos, ids=ids)
    assert found[0] is ids
    assert found[1].tolist() == 5


def _feeds(folder: Path, build: Callable[[], tf.Tensor]) -> dict[str, Any]:
    def graph() -> None:
        w = v1.get_variable("w", initializer=1.0, use_resource=False)
        tf.add(tf.cast(tf.size(build()), tf.float32), w, name="y")

    meta = read_meta_graph(saved(folder, graph).path)
    config = PartConfig(meta.path, "none.pb", outputs=("y",))
    return dict(run_original(plan_freeze(meta, config), config).feeds)


def test_sizes_and_limits_that_only_the_graph_knows_are_found(tmp_path: Path) -> None:
    def build() -> tf.Tensor:
        rows = tf.reshape(v1.placeholder(tf.float32, [None], name="rows"), [1])
        number = tf.gather(tf.constant([7.0]), v1.placeholder(tf.int32, [None], name="number"))
        return tf.concat([rows, number], 0)

    feeds = _feeds(tmp_path, build)
    assert feeds["rows:0"].shape == (1,)
    assert not feeds["number:0"].any()


def test_a_graph_that_takes_no_values_is_said_and_takes_given_ones(tmp_path: Path) -> None:
    def build() -> None:
        x, n = v1.placeholder(tf.float32, [None], "x"), v1.placeholder(tf.int32, [], "n")
        tf.ensure_shape(tf.reshape(x, tf.stack([n, 3])), [5, 3], name="y")

    meta = saved(tmp_path, build).path
    with pytest.raises(ToolError, match=r"takes no values .*x:0 float32 \[\?\], n:0 .*with --feed"):
        frozen(meta, "y")
    frozen(meta, "y", feed=["n=5", f"x={[0.5] * 15}"])
    with pytest.raises(ToolError, match=r"--feed: v:0 is no input; there is x:0, n:0: cut it with"):
        frozen(meta, "y", feed=["v=5"])
