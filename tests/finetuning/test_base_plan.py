"""What is refused or left out of a base, and what it is told in training, from the file alone."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import finetune
from errors import CheckpointError, PredictionError, TrainingError
from finetuning.base_plan import BasePlan, Setting, find_settings, plan_base
from finetuning.settings import BaseRequest, FinetuneConfig
from metagraph.graph import sub_graph
from metagraph.meta import MetaGraphFile, read_meta_graph
from tests.finetuning import bases
from tests.finetuning.bases import v1
from tests.prediction import stock


def _plan(folder: Path, build: Callable[[tf.Tensor], tf.Tensor]) -> BasePlan:
    meta = bases.save(folder, lambda: tf.identity(build(bases.colours()), name="y"))
    return plan_base(read_meta_graph(meta), BaseRequest("y"))


def _saved(folder: Path, build: Callable[[], object]) -> MetaGraphFile:
    """As `bases.save` does, without a step of its own."""
    with stock.checkpoint(folder / "m"):
        build()
    return read_meta_graph(f"{folder}/m.meta")


def _variable(name: str, **options: Any) -> tf.Variable:
    return v1.get_variable(name, [3], initializer=v1.ones_initializer(), **options)


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
def test_what_is_refused(
    tmp_path: Path, build: Callable[[tf.Tensor], tf.Tensor], message: str
) -> None:
    with pytest.raises((CheckpointError, TrainingError), match=message):
        _plan(tmp_path, build)


def test_a_step_of_another_kind_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    def build() -> None:
        colours = bases.colours()
        tf.identity(colours, name="before")
        tf.identity(colours * v1.placeholder_with_default([1.0], [1], "global_step"), name="y")
        v1.get_variable("w", [1])

    meta = _saved(tmp_path, build)
    with pytest.raises(
        TrainingError, match=r"global_step:0 .* beside its images|no integer variable"
    ):
        plan_base(meta, BaseRequest("y"))
    assert plan_base(meta, BaseRequest("before")).step is None


@pytest.mark.parametrize("resource", [False, True])
def test_a_step_that_is_needed_becomes_the_run_s(tmp_path: Path, resource: bool) -> None:
    def build() -> None:
        step = v1.get_variable(
            "global_step", [], tf.int32, v1.constant_initializer(40), use_resource=resource
        )
        tf.identity(bases.colours() * tf.cast(step, tf.float32), name="y")

    plan = plan_base(_saved(tmp_path, build), BaseRequest("y"))
    assert plan.step is not None
    assert plan.step.dtype == tf.int32
    assert plan.restored == ()


def test_variables_that_are_not_needed_are_not_taken(tmp_path: Path) -> None:
    def build(x: tf.Tensor) -> tf.Tensor:
        _variable("unused")
        return x * _variable("used")

    plan = _plan(tmp_path, build)
    assert plan.restored == ("used",)
    assert plan.trainable == {"used"}


def test_an_initial_value_that_follows_from_another_variable_is_none(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        first = _variable("first", use_resource=False)
        copy = v1.get_variable("copy", initializer=first * 2, use_resource=False)
        tf.multiply(bases.colours(), copy, name="y")
        session.run(first.initializer)
        session.run(copy.initializer)
        v1.train.Saver().save(session, str(tmp_path / "m"))
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    assert plan_base(meta, BaseRequest("y")).restored == ("copy",)
    with pytest.raises(CheckpointError, match=r"--exclude=copy: .* no initial value of copy"):
        plan_base(meta, BaseRequest("y", exclude="copy"))


def test_an_operation_that_fails_in_training_is_one_line(
    finetune_config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    def build() -> None:
        x, w = bases.images(), v1.get_variable("w", [7], use_resource=False)
        flat = tf.reshape(x, [tf.shape(x)[0] * 2, -1])
        tf.identity(tf.reduce_mean(flat, axis=1, keepdims=True) * w, name="y")

    with pytest.raises(TrainingError, match="cannot be trained on") as raised:
        finetune.train(finetune_config(bases.save(tmp_path, build), "y"))
    assert "\n" not in str(raised.value)


# What it is told in training.


def _settings(folder: Path, build: Callable[[tf.Tensor], tf.Tensor], *given: str) -> list[Setting]:
    def graph() -> None:
        tf.identity(build(v1.placeholder(tf.float32, [None, 4], name="x")), name="y")

    needed = sub_graph(read_meta_graph(bases.save(folder, graph)), ["y:0"], ["x:0"])
    return find_settings(needed, "x:0", given, switched_on=True)


def _number(name: str) -> tf.Tensor:
    return v1.placeholder(tf.float32, [], name=name)


def _by_floor(x: tf.Tensor) -> tf.Tensor:
    """As TensorFlow had it until 1.12."""
    keep = _number("p")
    return x / keep * tf.floor(keep + tf.random.uniform(tf.shape(x)))


def _by_rate(x: tf.Tensor) -> tf.Tensor:
    return v1.nn.dropout(x, rate=_number("p"))


@pytest.mark.parametrize(
    ("build", "training", "otherwise"),
    [
        (_by_floor, 0.5, 1.0),
        (lambda x: v1.nn.dropout(x, rate=1 - _number("p")), 0.5, 1.0),
        (_by_rate, 0.5, 0.0),
        (lambda x: x * _number("dropout_keep_prob"), 0.5, 1.0),
        (lambda x: x * _number("Dropout"), 0.5, 0.0),
        (lambda x: x * v1.placeholder_with_default(1.0, [], "keep"), 0.5, 1.0),
        *(
            (lambda x, n=name: tf.where(v1.placeholder(tf.bool, [], name=n), x, -x), on, not on)
            for name, on in [("is_training", True), ("phase", True), ("testing", False)]
        ),
    ],
    ids=itertools.count(),
)
def test_dropouts_and_switches_in_training_and_otherwise(
    tmp_path: Path, build: Callable[[tf.Tensor], tf.Tensor], training: Any, otherwise: Any
) -> None:
    (setting,) = _settings(tmp_path, build)
    assert (setting.training, setting.otherwise) == (training, otherwise)


def test_what_is_given_goes_before_all_and_a_setting_says_what_it_is(tmp_path: Path) -> None:
    (setting,) = _settings(tmp_path, _by_rate, "p=0.25")
    assert str(setting) == "p:0 (the share that a dropout drops) 0.25, otherwise 0.0"
    with pytest.raises(TrainingError, match=r"takes heat:0 float32 \[\] .*--train_feed=heat="):
        _settings(tmp_path, lambda x: x * _number("heat"))
    (setting,) = _settings(tmp_path, lambda x: x * _number("heat"), "heat=2")
    assert (setting.training, setting.otherwise) == (2.0, 2.0)


@pytest.mark.parametrize("text", ["much", "[0.5]", "true", "{}", "1", "-0.5", "1e999", "1e39"])
def test_a_value_that_does_not_fit_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises((PredictionError, TrainingError), match="--train_feed=p=") as raised:
        _settings(tmp_path, _by_rate, f"p={text}")
    assert "\n" not in str(raised.value)
