"""Kinds of models as a base: what of them runs, draws, changes and stays in training."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import finetune
from errors import TrainingError
from finetuning import BaseRequest, FinetuneConfig
from finetuning.base import free_batch, import_base, make_stateless, still_random, stream_of
from finetuning.base_plan import plan_base
from finetuning.fitting import make_task
from metagraph.meta import read_meta_graph
from models import blocks
from tests.finetuning import bases
from tests.finetuning.bases import v1, values_of
from tests.metagraph.made import of_graph, refused
from tests.prediction import stock
from tests.prediction.conftest import outputs

Config = Callable[..., FinetuneConfig]
BOTH_KINDS = pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])


@BOTH_KINDS
def test_the_features_are_the_same(finetune_config: Config, tmp_path: Path, resource: bool) -> None:
    """Of both kinds of variables: restored, unfrozen, and after a rerun; the step begins anew."""
    meta = bases.save(tmp_path, partial(bases.small, resource=resource))
    config = finetune_config(meta, "features", train_steps=3, train_scopes=("second",))
    finetune.train(config)
    outcome = finetune.train(dataclasses.replace(config, train_steps=6))
    ours, theirs = values_of(outcome.prefix), values_of(meta.removesuffix(".meta"))
    assert theirs["global_step"] == 7
    assert ours["global_step"] == 6
    assert ours["first/w"].tobytes() == theirs["first/w"].tobytes()
    assert ours["second/w"].tobytes() != theirs["second/w"].tobytes()
    x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    (maps, logits) = stock.run(outcome.prefix + ".meta", ["maps:0", "head/add:0"], {"x:0": x})
    (expected,) = stock.run(meta, ["maps:0"], {"x:0": x})
    np.testing.assert_array_equal(maps, expected)
    by_hand = maps.reshape(2, 80) @ ours["second/w"] @ ours["head/w"] + ours["head/b"]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-5, atol=1e-6)


def _pipeline(kind: str) -> None:
    """`dense` [?, 4] of rows [?, 2] that come out of an iterator or a queue."""
    if kind == "queue":
        rows = v1.FIFOQueue(4, [tf.int64, tf.float32], [[], [2]]).dequeue_up_to(3)[1]
    else:
        data = tf.data.Dataset.from_tensor_slices(np.zeros([4, 2], np.float32)).batch(2)
        rows = getattr(v1.data, f"make_{kind}_iterator")(data).get_next()
    initializer = v1.glorot_uniform_initializer(seed=1)
    tf.matmul(rows, v1.get_variable("w", [2, 4], initializer=initializer), name="dense")


@pytest.mark.parametrize("kind", ["initializable", "one_shot", "queue"])
def test_a_pipeline_is_built_on_at_what_comes_out_of_it(
    finetune_config: Config, tmp_path: Path, kind: str
) -> None:
    meta = bases.save(tmp_path, partial(_pipeline, kind))
    x, path = np.random.default_rng(0).random((12, 2), np.float32), f"{tmp_path}/d.npz"
    np.savez(path, X=x, Y=np.arange(12) % 2)
    config = finetune_config(meta, "dense", data=path, batch_size=4, train_steps=3)
    prefix = finetune.train(config).prefix
    ours = values_of(prefix)
    (found,) = outputs(tmp_path, f"{prefix}.meta", "head/add", input=[path])
    expected = x @ ours["w"] @ ours["head/w"] + ours["head/b"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def _batch_norm() -> None:
    """`features` [?, 3], normalised by their batch in any case; `mean` and `var` follow that."""
    sizes = {"mean": np.full(3, 2, np.float32), "var": np.full(3, 4, np.float32)}
    kept = [v1.get_variable(name, initializer=value) for name, value in sizes.items()]
    colours = bases.colours()
    found = tf.nn.moments(colours, [0])
    for variable, value in zip(kept, found, strict=True):
        v1.assign_sub(variable, (variable - value) * 0.1)
    tf.divide(colours - found[0], tf.sqrt(found[1]), name="features")


def test_what_mixes_images_is_said_and_the_averages_are_taken(
    finetune_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meta = bases.save(tmp_path, _batch_norm)
    make_task(finetune_config(meta, "features"))
    assert "features:0: each image's depend on the others': moments/mean (Mean)" in caplog.text
    caplog.clear()
    config = finetune_config(meta, "features", use_moving_averages=True, train_steps=2)
    prefix = finetune.train(config).prefix
    assert "depend on the others" not in caplog.text
    x = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    (found,) = stock.run(f"{prefix}.meta", ["features:0"], {"x:0": x})
    np.testing.assert_allclose(found, (x.mean((1, 2)) - 2) / 2, rtol=1e-5)


def test_a_batch_size_that_binds(finetune_config: Config, tmp_path: Path) -> None:
    """One that only the placeholder says, as of `features`, does not bind."""
    path = bases.save(tmp_path, partial(bases.small, batch=6))
    meta = read_meta_graph(path)
    assert free_batch(plan_base(meta, BaseRequest("features")))
    assert not free_batch(plan_base(meta, BaseRequest("batched")))
    config = finetune_config(path, "batched", batch_size=None, validation_fraction=0.5)
    task = make_task(config)
    assert task.batch_size == 6
    assert task.test_batches is not None
    assert [len(labels) for _, labels in task.test_batches()] == [6, 6]
    with refused("takes 6 images at once: give --batch_size=6", TrainingError):
        make_task(dataclasses.replace(config, batch_size=5))


def test_moving_averages(finetune_config: Config, three_classes: str, tmp_path: Path) -> None:
    """After one step, the mean has come a tenth of the way to that of the batch.

    The switch is on only where something is unfrozen.
    """
    meta = bases.save(tmp_path, bases.normed)
    for scopes in ((), ("norm",)):
        request = BaseRequest("features", train_scopes=scopes)
        (switch,) = plan_base(read_meta_graph(meta), request).settings
        assert (switch.training, switch.otherwise) == (bool(scopes), False)
    frozen = finetune_config(meta, "features", train_steps=1, batch_size=24)
    assert values_of(finetune.train(frozen).prefix)["norm/moving_mean"].tolist() == [0, 0, 0]
    more = {"train_steps": 1, "batch_size": 24, "train_scopes": ("norm",)}
    first = finetune.train(finetune_config(meta, "features", ckpt_dir=tmp_path / "free", **more))
    ours = values_of(first.prefix)
    with np.load(three_classes) as arrays:
        mean = (arrays["X"] / 255).mean((0, 1, 2))
    np.testing.assert_allclose(ours["norm/moving_mean"], mean / 10, rtol=1e-4)
    assert ours["norm/gamma"].tolist() != [1, 1, 1]
    # For predictions the switch is off.
    x = np.zeros((1, 32, 32, 3), np.float32)
    (features,) = stock.run(first.prefix + ".meta", ["features:0"], {"x:0": x})
    np.testing.assert_allclose(features, [-ours["norm/moving_mean"] * ours["norm/gamma"]])
    again = finetune_config(first.prefix, "features", ckpt_dir=tmp_path / "second", **more)
    after = values_of(finetune.train(again).prefix)
    np.testing.assert_allclose(after["norm/moving_mean"], mean * 0.19, rtol=1e-4)


def test_a_graph_that_writes_while_it_computes(finetune_config: Config, tmp_path: Path) -> None:
    """It does not change what is frozen."""
    meta = bases.save(tmp_path, bases.writing)
    ours = values_of(finetune.train(finetune_config(meta, "features")).prefix)
    assert [float(ours["count0"]), float(ours["count1"])] == [0.0, 0.0]


def test_what_cannot_be_trained_on_is_told(finetune_config: Config, tmp_path: Path) -> None:
    """A variable that no gradient reaches, or features that are not one a row."""

    def build() -> None:
        x, w = bases.colours(), v1.get_variable("scope/w", [3], use_resource=False)
        tf.cast(tf.cast(tf.floor(x * w), tf.int32), tf.float32, name="whole")
        tf.concat([x, x], axis=0, name="twice")

    meta = bases.save(tmp_path, build)
    with refused("cannot be trained on", TrainingError):
        finetune.train(finetune_config(meta, "twice"))
    with refused("no gradient reaches scope/w", TrainingError):
        make_task(finetune_config(meta, "whole", train_scopes=("scope",)))
    make_task(finetune_config(meta, "whole"))


def test_a_base_without_variables(finetune_config: Config, tmp_path: Path) -> None:
    """A frozen graph, or the images themselves: but for the head, there is nothing to restore."""
    with tf.Graph().as_default() as graph:
        tf.multiply(bases.colours(), [1.0, 2.0, 3.0], name="features")
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    for tensor, head, shape in (("features", "dense", (3, 3)), ("x", "conv", (1, 1, 3, 3))):
        folder = tmp_path / tensor
        config = finetune_config(tmp_path / "frozen.pb", tensor, head=head, ckpt_dir=folder)
        finetune.train(dataclasses.replace(config, train_steps=5))
        ours = values_of(finetune.train(config).prefix)
        own = {name for name in ours if "Adam" not in name and "power" not in name}
        assert own == {"global_step", "head/w", "head/b"}
        assert ours["head/w"].shape == shape


@BOTH_KINDS
def test_names_do_not_clash(finetune_config: Config, tmp_path: Path, resource: bool) -> None:
    """With a dropout, an offset, a step that is read, and the names that TensorFlow likes best."""
    liked = ("Const", "Cast", "stack", "add", "zeros", "pixels", "global_step/read_it", "y_")
    with stock.checkpoint(tmp_path / "m-3"):
        x = v1.placeholder(tf.float32, [None, 32, 32, 3], name="input")
        step = v1.get_variable(
            "global_step", initializer=np.int64(3), trainable=False, use_resource=resource
        )
        features = tf.reduce_mean(x, axis=[1, 2]) + tf.cast(step.read_value(), tf.float32) * 0
        with tf.name_scope("base"):
            features = tf.identity(features)
        for name in liked:
            features = tf.multiply(features, 1.0, name=name)
        keep = v1.placeholder(tf.float32, [], name="keep_prob")
        tf.identity(v1.nn.dropout(features, rate=1 - keep), name="features")
    config = finetune_config(tmp_path / "m-3.meta", "features", input_offset=-0.5)
    first = finetune.train(config).prefix
    assert values_of(first)["global_step"] == 12
    again = finetune_config(first, "features", ckpt_dir=tmp_path / "again")
    assert values_of(finetune.train(again).prefix)["global_step"] == 12


DRAWS = {
    "uniform": lambda: tf.random.uniform([2000], name="drawn"),
    "normal": lambda: tf.random.normal([2000], dtype=tf.float64, name="drawn"),
    "truncated": lambda: tf.random.truncated_normal([2000], name="drawn"),
    "integers": lambda: tf.random.uniform([2000], 3, 9, tf.int64, name="drawn"),
    "classes": lambda: v1.multinomial(tf.zeros([1, 4]), 2000, name="drawn"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", DRAWS)
def test_the_same_key_draws_the_same_and_another_one_others(kind: str) -> None:
    with tf.Graph().as_default() as graph:
        result = DRAWS[kind]()
    graph_def = graph.as_graph_def()
    ((node, name),) = make_stateless(graph_def).items()
    assert still_random(graph_def) == []
    with tf.Graph().as_default(), v1.Session() as session:
        step = v1.placeholder(tf.int64, [])
        key = blocks.key(5, stream_of(node), step)
        (drawn,) = tf.import_graph_def(graph_def, {name: key}, [result.name], name="")
        first, again, other = (session.run(drawn, {step: number}) for number in (1, 1, 2))
    assert first.dtype == result.dtype.as_numpy_dtype
    assert first.shape == tuple(result.shape)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    low, high = {"uniform": (0, 1), "integers": (3, 8), "classes": (0, 3)}.get(kind, (-9, 9))
    assert low <= first.min() <= first.max() <= high


def test_what_has_no_stateless_kin_is_named_also_in_functions() -> None:
    with tf.Graph().as_default() as graph:
        tf.random.shuffle(tf.range(3), name="shuffled")
        tf.function(lambda: tf.random.uniform([2], name="inside"))()
    shuffled, inside = still_random(graph.as_graph_def())
    assert shuffled == "shuffled (RandomShuffle)"
    assert inside.endswith("inside/RandomUniform (RandomUniform)")


def test_streams_lie_beyond_those_of_our_models() -> None:
    streams = {stream_of(f"node{number}") for number in range(1000)}
    assert len(streams) > 990
    assert 2**30 <= min(streams) <= max(streams) < 2**31


# Conditionals and loops of TensorFlow 1.

Body = Callable[[tf.Tensor, tf.Tensor, tf.Variable, tf.Variable], tf.Tensor]


@pytest.fixture
def old_control_flow() -> Iterator[None]:
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def _loop(x: tf.Tensor, w: tf.Variable) -> tf.Tensor:
    def body(i: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return i + 1, tf.ensure_shape(y * w, [None, 3])

    _, y = v1.while_loop(lambda i, _: i < 3, body, [0, x])
    return y


BODIES: dict[str, Body] = {
    "in the branches": lambda x, on, w, u: v1.cond(on, lambda: x * w * w, lambda: x * u),
    "before and in one": lambda x, on, w, u: v1.cond(on, lambda: tf.sin(x * w) * w, lambda: x * u),
    "an average": lambda x, on, w, u: (
        (x * w - v1.cond(on, lambda: tf.reduce_mean(x * w, axis=0), lambda: tf.identity(u))) * u
    ),
    "in a loop": lambda x, on, w, u: _loop(x, w) * tf.where(on, u, u),
}


def _conditional(body: Body, *, resource: bool) -> None:
    """`features` [N, 3] of `x`, with the switch `is_training` and the variables s/w and s/u."""
    x, on = bases.colours(), v1.placeholder(tf.bool, [], name="is_training")
    with v1.variable_scope("s", use_resource=resource):
        w, u = (
            v1.get_variable(name, [3], initializer=v1.constant_initializer(value))
            for name, value in (("w", 0.9), ("u", 0.7))
        )
    tf.ensure_shape(body(x, on, w, u), [None, 3], name="features")


@pytest.mark.usefixtures("old_control_flow")
@pytest.mark.parametrize("name", ["in the branches", "before and in one", "an average"])
def test_gradients_through_conditionals_are_those_of_plain_tensorflow(name: str) -> None:
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    build = partial(_conditional, BODIES[name], resource=False)
    plan = plan_base(of_graph(build), BaseRequest("features", train_scopes=("s",)))

    def gradients(make: Callable[[], object], on: bool) -> Any:
        with tf.Graph().as_default() as graph, v1.Session() as session:
            make()
            assert {op.type for op in graph.get_operations()} & {"Merge", "RefMerge"}
            loss = tf.reduce_sum(graph.get_tensor_by_name("features:0") ** 2)
            found = tf.gradients(loss, v1.trainable_variables(), unconnected_gradients="zero")
            session.run(v1.global_variables_initializer())
            return session.run(found, {"x:0": images, "is_training:0": on})

    for on in (True, False):
        ours = gradients(lambda: import_base(plan, (None, 32, 32, 3), 0.0, 0), on)
        for found, expected in zip(ours, gradients(build, on), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.usefixtures("old_control_flow")
@pytest.mark.parametrize(
    ("name", "resource"), [("in a loop", False), ("in a loop", True), ("in the branches", True)]
)
def test_what_no_gradient_passes_can_be_taken_as_it_is(
    finetune_config: Config, tmp_path: Path, name: str, resource: bool
) -> None:
    meta = bases.save(tmp_path, partial(_conditional, BODIES[name], resource=resource))
    behind = ("s/u",) if name == "in a loop" else ()
    finetune.train(finetune_config(meta, "features", train_scopes=behind, train_steps=1))
    with refused("--train_scopes: .*a loop of TensorFlow 1", TrainingError):
        make_task(finetune_config(meta, "features", train_scopes=("s/w",)))


@pytest.mark.usefixtures("old_control_flow")
def test_a_tensor_inside_of_a_loop_is_one_line(finetune_config: Config, tmp_path: Path) -> None:
    meta = bases.save(tmp_path, partial(_conditional, BODIES["in a loop"], resource=False))
    for name in ("while/mul", "while/EnsureShape"):
        with refused("floats with a row|cannot be trained on", TrainingError):
            finetune.train(finetune_config(meta, name))
