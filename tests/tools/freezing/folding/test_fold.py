"""Training switches and dropouts: off, gone, and the values as before."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metagraph.session import RANDOM_OPS
from models import blocks
from tests.prediction import stock
from tests.tools.freezing import models

v1 = tf.compat.v1
X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
UNIFORM = {"StatelessRandomUniform", "StatelessRandomUniformV2"}
CHOICES = {"Case", "If", "Merge", "StatelessCase", "StatelessIf", "Switch"}


@pytest.fixture(autouse=True)
def _control_flow() -> Iterator[None]:
    """Restores the kind of control flow, which the models switch for the process."""
    yield
    v1.enable_control_flow_v2()


def _number(name: str) -> tf.Tensor:
    return v1.placeholder(tf.float32, [], name=name)


def _switch(name: str = "is_training") -> tf.Tensor:
    return v1.placeholder(tf.bool, [], name=name)


def _by_floor(x: tf.Tensor) -> tf.Tensor:
    """As TensorFlow had it until 1.12."""
    keep = _number("p")
    return x / keep * tf.floor(keep + tf.random.uniform(tf.shape(x)))


def _by_cast(x: tf.Tensor) -> tf.Tensor:
    """As TensorFlow has it since 1.13."""
    rate = _number("p")
    kept = tf.cast(tf.random.uniform(tf.shape(x), dtype=tf.float32) >= rate, tf.float32)
    return x * (1 / (1 - rate)) * kept


def _by_rate(x: tf.Tensor) -> tf.Tensor:
    return v1.nn.dropout(x, rate=_number("p"))


def _by_keep(x: tf.Tensor) -> tf.Tensor:
    return v1.nn.dropout(x, keep_prob=_number("p"))


def _by_default(x: tf.Tensor) -> tf.Tensor:
    return v1.nn.dropout(x, keep_prob=v1.placeholder_with_default(0.5, [], "p"))


def _by_step(x: tf.Tensor) -> tf.Tensor:
    """As the models here have it; the step is then needed by nobody."""
    step = v1.get_variable("step", [], tf.int64, v1.zeros_initializer())
    return blocks.dropout(x, _number("p"), 0, 1, step)


def _of_rows(x: tf.Tensor) -> tf.Tensor:
    """Whole rows are dropped: the mask has another shape."""
    return v1.nn.dropout(x, rate=_number("p"), noise_shape=[tf.shape(x)[0], 1])


def _of_known_shape(x: tf.Tensor) -> tf.Tensor:
    return v1.nn.dropout(tf.ensure_shape(x, [4, 6]), rate=_number("p"))


def _frozen(folder: Path, build: Callable[[tf.Tensor], tf.Tensor], off: dict[str, Any]) -> set[str]:
    """Freezes; compares with a stock client that feeds `off`; returns the operations left."""

    def graph() -> None:
        x = v1.placeholder(tf.float32, [None, 6], name="x")
        w = v1.get_variable("w", initializer=np.eye(6, dtype=np.float32) * 3, use_resource=False)
        tf.identity(build(tf.matmul(x, w)), name="y")

    meta = models.save(folder, graph)
    found = models.frozen(meta, "y")
    assert found.inputs == {"x": "x:0"}
    assert {name: float(value) for name, value in found.plan.off.items()} == {
        name: float(value) for name, value in off.items()
    }
    (expected,) = stock.run(meta, ["y:0"], {"x:0": X, **off})
    (value,) = models.run(found.meta.graph_def, ["y:0"], {"x:0": X})
    np.testing.assert_array_equal(value, expected)
    return models.ops(found.meta.graph_def)


@pytest.mark.parametrize(
    ("build", "off"),
    [(_by_floor, 1), (_by_keep, 1), (_by_default, 1), (_by_step, 1), (_by_cast, 0), (_by_rate, 0)],
)
def test_a_dropout_is_gone(
    build: Callable[[tf.Tensor], tf.Tensor], off: float, tmp_path: Path
) -> None:
    left = _frozen(tmp_path, build, {"p:0": off})
    assert left <= {"Const", "Identity", "MatMul", "Placeholder"}


@pytest.mark.parametrize("build", [_of_rows, _of_known_shape])
def test_of_a_mask_of_another_shape_nothing_is_drawn(
    build: Callable[[tf.Tensor], tf.Tensor], tmp_path: Path
) -> None:
    left = _frozen(tmp_path, build, {"p:0": 0})
    assert not left & (RANDOM_OPS | UNIFORM)
    assert "Fill" in left


def test_a_dropout_that_is_built_in_stays(tmp_path: Path, caplog: Any) -> None:
    def graph() -> None:
        x = v1.placeholder(tf.float32, [None, 6], "x")
        w = v1.get_variable("w", initializer=np.ones(6, np.float32), use_resource=False)
        tf.identity(v1.nn.dropout(x * w, rate=0.5), name="y")

    found = models.frozen(models.save(tmp_path, graph), "y")
    assert "RandomUniform" in models.ops(found.meta.graph_def)
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


def _writing(x: tf.Tensor, on: tf.Tensor) -> tf.Tensor:
    """A moving average that training alone updates."""
    new = v1.control_flow_v2_enabled()
    mean = v1.get_variable("mean", initializer=np.ones(6, np.float32), use_resource=new)

    def update() -> tf.Tensor:
        with tf.control_dependencies([v1.assign(mean, tf.reduce_mean(x, 0))]):
            return tf.reduce_mean(x, 0)

    return x - tf.cond(on, update, lambda: tf.identity(mean))


@pytest.mark.parametrize("build", [_cond, _nested, _loop_inside, _inside_a_loop, _writing])
@pytest.mark.parametrize("name", ["is_training", "testing"])
@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_of_a_conditional_the_branch_that_runs_is_left(
    build: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], name: str, new: bool, tmp_path: Path
) -> None:
    (v1.enable_control_flow_v2 if new else v1.disable_control_flow_v2)()
    inverted = name == "testing"

    def graph(x: tf.Tensor) -> tf.Tensor:
        switch = _switch(name)
        return build(x, tf.logical_not(switch) if inverted else switch)

    left = _frozen(tmp_path, graph, {f"{name}:0": inverted})
    assert not left & RANDOM_OPS
    if "loop" not in build.__name__:
        assert (new and build is _nested) or not left & CHOICES  # In functions, choices stay.
    elif not new:  # A loop has one of each for each of its values.
        assert "LoopCond" in left


def test_which_branch_has_run_is_a_constant(tmp_path: Path) -> None:
    def graph(x: tf.Tensor) -> tf.Tensor:
        on = _switch()
        off_x, on_x = tf.raw_ops.Switch(data=x, pred=on)
        merged = tf.raw_ops.Merge(inputs=[-on_x, off_x])
        return merged.output + tf.cast(merged.value_index, tf.float32)

    assert not _frozen(tmp_path, graph, {"is_training:0": False}) & CHOICES


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "handle"])
def test_a_switch_that_is_a_variable_is_off_whatever_its_value(
    resource: bool, tmp_path: Path
) -> None:
    """As tflearn keeps it."""
    v1.disable_control_flow_v2()

    def graph() -> None:
        on = v1.get_variable("is_training", initializer=True, use_resource=resource)
        tf.identity(_cond(v1.placeholder(tf.float32, [None, 6], name="x"), on), name="y")

    found = models.frozen(models.save(tmp_path, graph), "y")
    assert found.plan.off == {"is_training:0": False}
    (value,) = models.run(found.meta.graph_def, ["y:0"], {"x:0": X})
    np.testing.assert_array_equal(value, X * 2)


def test_a_switch_that_is_asked_for_is_an_input(tmp_path: Path) -> None:
    v1.disable_control_flow_v2()

    def graph() -> None:
        w = v1.get_variable("w", initializer=1.0, use_resource=False)
        tf.identity(tf.cond(_switch("on"), lambda: w + 0, lambda: w + 1), name="y")

    found = models.frozen(models.save(tmp_path, graph), "y", inputs=("on",))
    assert found.inputs == {"on": "on:0"}
    assert models.run(found.meta.graph_def, ["y:0"], {"on:0": True}) == [1]
