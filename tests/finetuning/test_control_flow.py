"""Conditionals and loops of TensorFlow 1 in a base: gradients, compared with plain TensorFlow's."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import finetune
from errors import TrainingError
from finetuning.base import import_base
from finetuning.base_plan import plan_base
from finetuning.fitting import make_task
from finetuning.settings import BaseRequest, FinetuneConfig
from metagraph.meta import read_meta_graph
from tests.finetuning import bases

v1 = tf.compat.v1
Array = npt.NDArray[Any]
Body = Callable[[tf.Tensor, tf.Tensor, tf.Variable, tf.Variable], tf.Tensor]
Config = Callable[..., FinetuneConfig]

X = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)


@pytest.fixture(autouse=True)
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
    x = tf.reduce_mean(v1.placeholder(tf.float32, [None, 32, 32, 3], name="x"), axis=[1, 2])
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


def test_without_its_contexts_a_loop_can_stand_behind_what_is_trained_only(
    finetune_config: Config, tmp_path: Path
) -> None:
    meta = bases.save(tmp_path, partial(_build, BODIES["in a loop"], resource=False))
    graph = v1.MetaGraphDef.FromString(Path(meta).read_bytes())
    del graph.collection_def["while_context"]
    Path(meta).write_bytes(graph.SerializeToString())
    finetune.train(finetune_config(meta, "features", train_scopes=("s/u",), train_steps=1))
    with pytest.raises(TrainingError, match=r"--train_scopes: .*a loop of TensorFlow 1") as raised:
        make_task(finetune_config(meta, "features", train_scopes=("s/w",)))
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
    finetune_config: Config, tmp_path: Path, damage: Callable[[Any], object]
) -> None:
    from tensorflow.core.protobuf.control_flow_pb2 import WhileContextDef

    meta = bases.save(tmp_path, partial(_build, BODIES["in a loop"], resource=False))
    graph = v1.MetaGraphDef.FromString(Path(meta).read_bytes())
    contexts = graph.collection_def["while_context"].bytes_list.value
    context = WhileContextDef.FromString(contexts[0])
    damage(context)
    contexts[:] = [context.SerializeToString(), b"\xff"]
    Path(meta).write_bytes(graph.SerializeToString())
    finetune.train(finetune_config(meta, "features", train_steps=1))


def test_a_tensor_inside_of_a_loop_is_refused(finetune_config: Config, tmp_path: Path) -> None:
    def body(x: tf.Tensor, *_: Any) -> tf.Tensor:
        return _loop(x, lambda y: tf.identity(y * 2.0, "inside"))

    meta = bases.save(tmp_path, partial(_build, body, resource=False))
    with pytest.raises(TrainingError, match=r"while/inside:0 of .* is inside of a loop"):
        make_task(finetune_config(meta, "while/inside"))
