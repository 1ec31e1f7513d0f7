"""What is refused or left out of a base, and what it is told in training, from the file alone."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from errors import CheckpointError, PredictionError, TrainingError
from finetuning import BaseRequest
from finetuning.base_plan import BasePlan, Setting, find_settings, plan_base
from metagraph.graph import sub_graph
from metagraph.meta import read_meta_graph
from tests.finetuning import bases
from tests.finetuning.bases import v1
from tests.metagraph.made import of_graph, refused

Build = Callable[[tf.Tensor], tf.Tensor]


def _plan(build: Build, tensor: str = "y") -> BasePlan:
    """Of a model whose `y` is what `build` makes of the mean colours of images."""
    meta = of_graph(lambda: tf.identity(build(bases.colours()), name="y"))
    return plan_base(meta, BaseRequest(tensor))


def _by_a_table(x: tf.Tensor) -> tf.Tensor:
    rows = tf.lookup.KeyValueTensorInitializer([1], [2.0], tf.int64, tf.float32)
    table = tf.lookup.StaticHashTable(rows, 0.0)
    v1.tables_initializer()
    return x * table.lookup(tf.constant(1, tf.int64))


def _writes_a_file(x: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.io.write_file("/nowhere/f", "text")]):
        return tf.identity(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_by_a_table, r"y:0 of .* needs the lookup table hash_table"),
        (_writes_a_file, r"WriteFile, which can .*--trust_graph"),
    ],
)
def test_what_is_refused(build: Build, message: str) -> None:
    with refused(message, (CheckpointError, TrainingError)):
        _plan(build)


def test_a_step_of_another_kind_is_refused_where_it_is_needed() -> None:
    def build(x: tf.Tensor) -> tf.Tensor:
        step = v1.placeholder_with_default([1.0], [1], "global_step")
        return tf.identity(x, name="before") * step

    with refused("global_step:0 .* beside its images|no integer variable", TrainingError):
        _plan(build)
    assert _plan(build, "before").step is None


@pytest.mark.parametrize("resource", [False, True])
def test_a_step_that_is_needed_becomes_the_run_s(resource: bool) -> None:
    def build(x: tf.Tensor) -> tf.Tensor:
        step = v1.get_variable("global_step", [], tf.int32, use_resource=resource)
        return x * tf.cast(step, tf.float32)

    plan = _plan(build)
    assert plan.step is not None
    assert (plan.step.dtype, plan.restored) == (tf.int32, ())


def test_variables_that_are_not_needed_are_not_taken() -> None:
    def build(x: tf.Tensor) -> tf.Tensor:
        _, used = v1.get_variable("unused", [3]), v1.get_variable("used", [3])
        return x * used

    plan = _plan(build)
    assert (plan.restored, plan.trainable) == (("used",), frozenset({"used"}))


def test_an_initial_value_that_follows_from_another_variable_is_none(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        first = v1.get_variable("first", [3], use_resource=False)
        copy = v1.get_variable("copy", initializer=first * 2, use_resource=False)
        tf.multiply(bases.colours(), copy, name="y")
        session.run(first.initializer)
        session.run(copy.initializer)
        v1.train.Saver().save(session, str(tmp_path / "m"))
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    assert plan_base(meta, BaseRequest("y")).restored == ("copy",)
    with refused("--exclude=copy: .* no initial value of copy", CheckpointError):
        plan_base(meta, BaseRequest("y", exclude="copy"))


# What it is told in training.


def _settings(build: Build, *given: str) -> list[Setting]:
    meta = of_graph(
        lambda: tf.identity(build(v1.placeholder(tf.float32, [None, 4], name="x")), name="y")
    )
    return find_settings(sub_graph(meta, ["y:0"], ["x:0"]), "x:0", given, switched_on=True)


def _number(name: str) -> tf.Tensor:
    return v1.placeholder(tf.float32, [], name=name)


def _by_rate(x: tf.Tensor) -> tf.Tensor:
    return v1.nn.dropout(x, rate=_number("p"))


@pytest.mark.parametrize(
    ("build", "training", "otherwise"),
    [
        (lambda x: v1.nn.dropout(x, rate=1 - _number("p")), 0.5, 1.0),
        (_by_rate, 0.5, 0.0),
        (lambda x: x * _number("dropout_keep_prob"), 0.5, 1.0),
        (lambda x: x * _number("Dropout"), 0.5, 0.0),
        (lambda x: x * v1.placeholder_with_default(1.0, [], "keep"), 0.5, 1.0),
        *(
            (lambda x, n=name: tf.where(v1.placeholder(tf.bool, [], name=n), x, -x), on, not on)
            for name, on in [("is_training", True), ("testing", False)]
        ),
    ],
    ids=itertools.count(),
)
def test_dropouts_and_switches(build: Build, training: Any, otherwise: Any) -> None:
    (setting,) = _settings(build)
    assert (setting.training, setting.otherwise) == (training, otherwise)


def test_what_is_given_goes_before_all_and_a_setting_says_what_it_is() -> None:
    (setting,) = _settings(_by_rate, "p=0.25")
    assert str(setting) == "p:0 (the share that a dropout drops) 0.25, otherwise 0.0"
    with refused(r"takes heat:0 float32 \[\] .*--train_feed=heat=", TrainingError):
        _settings(lambda x: x * _number("heat"))
    (setting,) = _settings(lambda x: x * _number("heat"), "heat=2")
    assert (setting.training, setting.otherwise) == (2.0, 2.0)


@pytest.mark.parametrize("text", ["much", "[0.5]", "true", "{}", "1", "-0.5", "1e999", "1e39"])
def test_a_value_that_does_not_fit_is_one_line(text: str) -> None:
    with refused("--train_feed=p=", (PredictionError, TrainingError)):
        _settings(_by_rate, f"p={text}")
