"""Conditionals and loops of TensorFlow 1 in a base, and what tells a graph that it is trained."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.control_flow_pb2 import WhileContextDef

import finetune
from errors import TrainingError
from finetuning.base import import_base
from finetuning.base_plan import plan_base
from finetuning.fitting import make_task
from finetuning.graph_changes import Setting, find_settings
from finetuning.settings import BaseRequest, FinetuneConfig
from metagraph.graph import sub_graph
from metagraph.meta import read_meta_graph
from tests.finetuning import bases
from tests.finetuning.bases import v1
from tests.prediction import stock

Array = npt.NDArray[Any]
Body = Callable[[tf.Tensor, tf.Tensor, tf.Variable, tf.Variable], tf.Tensor]
Config = Callable[..., FinetuneConfig]

X = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)


@pytest.fixture
def old_control_flow() -> Iterator[None]:
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def _rows(x: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(x, [None, 3])


def _loop(x: tf.Tensor, body: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    _, y = v1.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, _rows(body(y))), [0, x])
    return y


BODIES: dict[str, Body] = {
    "in the branches": lambda x, on, w, u: v1.cond(on, lambda: x * w * w, lambda: x * u),
    "before and in one": lambda x, on, w, u: v1.cond(on, lambda: tf.sin(x * w) * w, lambda: x * u),
    "an average": lambda x, on, w, u: (
        (x * w - v1.cond(on, lambda: tf.reduce_mean(x * w, axis=0), lambda: tf.identity(u))) * u
    ),
    "in a loop": lambda x, _, w, u: _loop(x, lambda y: y * w) * u,
    "before a loop": lambda x, _, w, u: _loop(x * w, lambda y: y * 1.1) * u,
    "a loop in a branch": lambda x, on, w, u: (
        v1.cond(on, lambda: _loop(x, lambda y: y * w), lambda: x * w) * u
    ),
    "a branch in a loop": lambda x, on, w, u: (
        _loop(x, lambda y: v1.cond(on, lambda: y * w, lambda: y + w)) * u
    ),
}


def _build(body: Body, *, resource: bool) -> None:
    """`features` [N, 3] of `x`, with the switch `is_training` and the variables s/w and s/u."""
    x = bases.colours()
    on = v1.placeholder(tf.bool, [], name="is_training")
    with v1.variable_scope("s", use_resource=resource):
        w, u = (
            v1.get_variable(name, [3], initializer=v1.constant_initializer(value))
            for name, value in (("w", 0.9), ("u", 0.7))
        )
    # Some of the bodies take no notice of the switch, which a base is to have all the same.
    tf.identity(_rows(body(x, on, w, u)) * tf.cast(tf.logical_or(on, True), tf.float32), "features")


def _plain_gradients(body: Body, on: bool, *, resource: bool) -> list[Array]:
    with tf.Graph().as_default() as graph, v1.Session() as session:
        _build(body, resource=resource)
        assert {op.type for op in graph.get_operations()} & {"Merge", "RefMerge"}
        loss = tf.reduce_sum(graph.get_tensor_by_name("features:0") ** 2)
        gradients = tf.gradients(loss, v1.trainable_variables(), unconnected_gradients="zero")
        session.run(v1.global_variables_initializer())
        found: list[Array] = session.run(gradients, {"x:0": X, "is_training:0": on})
        return found


@pytest.mark.usefixtures("old_control_flow")
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_gradients_are_those_of_plain_tensorflow(
    body: Body, tmp_path: Path, resource: bool
) -> None:
    meta = read_meta_graph(bases.save(tmp_path, partial(_build, body, resource=resource)))
    plan = plan_base(meta, BaseRequest("features", train_scopes=("s",)))
    with tf.Graph().as_default(), v1.Session() as session:
        base = import_base(plan, (None, 32, 32, 3), 0.0, 0)
        loss = tf.reduce_sum(base.features**2)
        trained = [base.variables["s/w"], base.variables["s/u"]]
        gradients = tf.gradients(loss, trained, unconnected_gradients="zero")
        session.run(v1.global_variables_initializer())
        (switch,) = base.training_feeds
        for on in (True, False):
            found = session.run(gradients, {base.images: X, switch: on})
            expected = _plain_gradients(body, on, resource=resource)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.usefixtures("old_control_flow")
@pytest.mark.parametrize("name", ["a branch in a loop", "in the branches"])
def test_the_result_can_be_unfrozen_again(
    finetune_config: Config, tmp_path: Path, name: str
) -> None:
    """Its own meta graph tells of its conditionals and loops, too."""
    meta = bases.save(tmp_path, partial(_build, BODIES[name], resource=True))
    first = finetune.train(finetune_config(meta, "features", train_steps=1))
    config = finetune_config(
        first.prefix, "features", ckpt_dir=tmp_path / "again", train_scopes=("s",), train_steps=4
    )
    again = finetune.train(config)
    assert again.variables["s/w"].tobytes() != first.variables["s/w"].tobytes()


@pytest.fixture
def loop(tmp_path: Path, old_control_flow: None) -> str:  # noqa: ARG001 (made while it holds)
    """The `.meta` file of a loop that multiplies with s/w, and s/u behind it."""
    return bases.save(tmp_path, partial(_build, BODIES["in a loop"], resource=False))


def test_without_its_contexts_a_loop_can_stand_behind_what_is_trained_only(
    finetune_config: Config, loop: str
) -> None:
    stock.edit_meta(Path(loop), lambda proto: proto.collection_def.pop("while_context"))
    finetune.train(finetune_config(loop, "features", train_scopes=("s/u",), train_steps=1))
    with pytest.raises(TrainingError, match=r"--train_scopes: .*a loop of TensorFlow 1") as raised:
        make_task(finetune_config(loop, "features", train_scopes=("s/w",)))
    assert "\n" not in str(raised.value)


DAMAGES: dict[str, Callable[[Any], object]] = {
    "a value": lambda context: context.values_def.values.append("s/w:7"),
    "outside": lambda context: context.values_def.external_values.update({"features:0": "no:0"}),
    "a pivot": lambda context: context.ClearField("pivot_name"),
    "an exit": lambda context: context.loop_exit_names.append("x"),
    "nested": lambda context: context.nested_contexts.add(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_contexts_that_are_damaged_are_no_traceback(
    finetune_config: Config, loop: str, damage: Callable[[Any], object]
) -> None:
    def edit(proto: Any) -> None:
        contexts = proto.collection_def["while_context"].bytes_list.value
        context = WhileContextDef.FromString(contexts[0])
        damage(context)
        contexts[:] = [context.SerializeToString(), b"\xff"]

    stock.edit_meta(Path(loop), edit)
    finetune.train(finetune_config(loop, "features", train_steps=1))


@pytest.mark.usefixtures("old_control_flow")
def test_a_tensor_inside_of_a_loop_is_refused(finetune_config: Config, tmp_path: Path) -> None:
    def body(x: tf.Tensor, *_: Any) -> tf.Tensor:
        return _loop(x, lambda y: tf.identity(y * 2.0, "inside"))

    meta = bases.save(tmp_path, partial(_build, body, resource=False))
    with pytest.raises(TrainingError, match=r"while/inside:0 of .* is inside of a loop"):
        make_task(finetune_config(meta, "while/inside"))


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
        (lambda x: x * v1.placeholder_with_default(0.8, [], "keep"), pytest.approx(0.8), 1.0),
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
    with pytest.raises(TrainingError, match="--train_feed=p=") as raised:
        _settings(tmp_path, _by_rate, f"p={text}")
    assert "\n" not in str(raised.value)
