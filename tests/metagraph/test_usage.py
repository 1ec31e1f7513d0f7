"""What nodes are for, in small graphs of the kinds that strangers have: fed, fetched, switched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metagraph.description import TensorInfo
from metagraph.graph import sub_graph
from metagraph.meta import output_index
from metagraph.model import Candidates, find_candidates, read_model
from metagraph.usage import (
    Role,
    RoleFinder,
    dependence,
    off_value,
    plumbing,
    says_switch,
)
from prediction.chosen_model import GraphFile
from tests.metagraph.made import control_flow, of_graph, of_nodes, saved

v1 = tf.compat.v1


def _variable(name: str, *shape: int) -> Any:
    return v1.get_variable(name, initializer=np.ones(shape, np.float32), use_resource=False)


def _x(shape: tuple[int | None, ...] = (None, 3)) -> tf.Tensor:
    return v1.placeholder(tf.float32, shape, name="x")


def _logits(x: tf.Tensor) -> tf.Tensor:
    """Of a classifier of two layers."""
    hidden = tf.nn.relu(tf.matmul(x, _variable("w1", 3, 4)) + _variable("b1", 4))
    logits = tf.nn.bias_add(tf.matmul(hidden, _variable("w2", 4, 2)), _variable("b2", 2))
    tf.nn.softmax(logits, name="probabilities")
    tf.argmax(logits, 1, name="classes")
    return logits


def _train(logits: tf.Tensor, labels: tf.Tensor) -> None:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    loss = tf.reduce_mean(losses, name="total")
    v1.summary.scalar("loss", loss)
    v1.train.AdamOptimizer().minimize(loss)


def _classifier() -> None:
    rate = v1.placeholder_with_default(1.0, [], name="keep")
    labels = v1.placeholder(tf.int64, [None], name="labels")
    _train(_logits(_x() * rate), labels)


def _queue() -> None:
    queue = v1.FIFOQueue(9, [tf.float32, tf.int64], [[3], []])
    rows = v1.placeholder(tf.float32, [None, 3], name="enqueue_input/Placeholder")
    labels = v1.placeholder(tf.int64, [None], name="enqueue_input/Placeholder_1")
    queue.enqueue_many([rows * 2.0, labels])
    _train(_logits(queue.dequeue_many(5)[0]), queue.dequeue_many(5)[1])


def _set_variable_summary_and_data_set() -> None:
    rate = _variable("rate", 1)
    v1.assign(rate, v1.placeholder(tf.float32, [1], name="new_rate"))
    v1.summary.scalar("reward", v1.placeholder(tf.float32, [], name="reward"))
    v1.data.Dataset.from_tensor_slices(v1.placeholder(tf.float32, [None], name="rows"))
    tf.multiply(_x((1,)), rate, name="y")


def _iterator() -> None:
    rows = np.ones((8, 3), np.float32), np.zeros(8, np.int64), np.zeros(8, np.int64)
    data = v1.data.Dataset.from_tensor_slices(rows).batch(2)
    x, _, labels = v1.data.make_initializable_iterator(data).get_next()
    _train(_logits(x), labels)


def _copies() -> None:
    hidden = tf.nn.bias_add(tf.matmul(_x(), _variable("w", 3, 2)), _variable("b", 2))
    tf.identity(tf.nn.softmax(hidden), name="chances")
    tf.identity(tf.tanh(hidden, name="value"))


def _several_heads_and_labels() -> None:
    x, mask = _x(), v1.placeholder(tf.bool, [None, 2], name="mask")
    target = v1.placeholder(tf.float32, [None, 2], name="target")
    hidden = tf.matmul(x, _variable("w", 3, 2))
    tf.nn.softmax(tf.where(mask, hidden, -1e9 * tf.ones_like(hidden)), name="policy")
    value = tf.tanh(tf.matmul(hidden, _variable("u", 2, 2)), name="value")
    tf.stack([hidden, -hidden], name="unused")
    hardest = tf.math.top_k(tf.square(value - target), name="hardest").values
    total = tf.reduce_mean(hardest) / 2.0 + tf.nn.l2_loss(v1.global_variables()[0])
    tf.identity(total, name="sum")


def _of_a_shape_only() -> None:
    x = _x()
    tf.fill(tf.shape(x), 2.0, name="twos")
    tf.add(x, _variable("b", 3), name="y")


def _parser() -> None:
    examples = v1.placeholder(tf.string, [None], name="examples")
    _logits(v1.parse_example(examples, {"x": v1.FixedLenFeature([3], tf.float32)}, name="p")["x"])


def _two_queues() -> None:
    paths = v1.FIFOQueue(9, [tf.string], [[]], name="paths")
    rows = v1.FIFOQueue(9, [tf.float32], [[3]], name="rows")
    rows.enqueue(tf.stack(v1.decode_csv(paths.dequeue(), [[0.0]] * 3)))
    _logits(rows.dequeue_many(4))


def _no_input() -> None:
    tf.sigmoid(tf.matmul(tf.random.normal([4, 3]), _variable("w", 3, 2)), name="image")


def _measure() -> None:
    hidden = tf.matmul(_x(), _variable("w", 3, 3))
    tf.reduce_mean(tf.square(hidden), name="size")
    tf.nn.softmax(hidden, name="chances")


def _only_a_measure() -> None:
    x = _x()
    decoded = tf.tanh(tf.matmul(x, _variable("w", 3, 3)))
    tf.reduce_mean(tf.square(decoded - x), name="distance")


def _loop() -> None:
    x, w = _x((1, 3)), _variable("w", 3, 3)
    with control_flow(new=False):
        v1.while_loop(
            lambda i, _: i < 3, lambda i, s: (i + 1, tf.matmul(s, w)), (0, x), name="loop"
        )


def _handle() -> None:
    """Rows and labels of whichever iterator a placeholder of its handle names."""
    handle = v1.placeholder(tf.string, [], name="handle")
    kinds, shapes = (tf.float32, tf.int64), ([None, 3], [None])
    iterator = v1.data.Iterator.from_string_handle(handle, kinds, shapes)
    x, labels = iterator.get_next(name="rows")
    logits = tf.matmul(x, _variable("w", 3, 2), name="logits")
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    tf.reduce_mean(losses, name="loss")


_HEADS = ("probabilities:0", "classes:0")
_NAMED = ("x:0", "mask:0", "target:0")


@pytest.mark.parametrize(
    ("build", "inputs", "pipeline", "outputs"),
    [
        (_classifier, ("labels:0", "x:0", "keep:0"), (), _HEADS),
        (_queue, (), ("fifo_queue_DequeueMany:0",), _HEADS),  # No prediction needs the labels.
        (_set_variable_summary_and_data_set, ("x:0",), (), ("y:0",)),
        (_iterator, (), ("IteratorGetNext:0",), _HEADS),
        (_copies, ("x:0",), (), ("chances:0", "Softmax:0", "Identity:0", "value:0")),
        (_several_heads_and_labels, _NAMED, (), ("policy:0", "unused:0", "value:0")),
        (_of_a_shape_only, ("x:0",), (), ("y:0",)),
        (_parser, ("examples:0",), ("p/p:0",), _HEADS),
        (_two_queues, (), ("rows_DequeueMany:0",), _HEADS),
        (_no_input, (), (), ("image:0",)),
        (_measure, ("x:0",), (), ("chances:0", "size:0")),
        (_only_a_measure, ("x:0",), (), ("distance:0",)),
        (_loop, ("x:0",), (), ("loop/Exit_1:0",)),
        (_handle, (), ("rows:0",), ("logits:0",)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_could_be_fed_and_fetched(
    tmp_path: Path,
    build: Callable[[], None],
    inputs: tuple[str, ...],
    pipeline: tuple[str, ...],
    outputs: tuple[str, ...],
) -> None:
    found = find_candidates(saved(tmp_path, build))
    assert found == Candidates(inputs, pipeline, outputs)


@pytest.mark.parametrize("name", [None, "outer/saver"])
def test_the_signature_goes_first_and_the_savers_placeholders_are_none(
    tmp_path: Path, name: str | None
) -> None:
    meta = saved(tmp_path, lambda: [v1.placeholder(tf.float32, name=n) for n in "abc"], name=name)
    signed = meta.proto.signature_def["serving_default"].inputs
    signed["x"].name, signed["y"].name = "c:0", "nowhere:0"
    found = find_candidates(meta, read_model(meta).inputs.values())
    assert found.inputs == ("c:0", "a:0", "b:0")


def test_what_is_wanted_decides_what_is_fed(tmp_path: Path) -> None:
    meta = saved(tmp_path, _iterator)
    of_loss = find_candidates(meta, wanted=["total:0"])
    assert of_loss.pipeline == ("IteratorGetNext:0", "IteratorGetNext:2")
    assert find_candidates(meta, wanted=["w1:0"]).pipeline == ()


@pytest.mark.parametrize(
    ("fetch", "fed", "expected"),
    [
        ("logits:0", [], ["rows:0"]),
        ("loss:0", [], ["rows:0", "rows:1"]),
        ("loss:0", ["rows:0"], ["rows:1"]),
        ("rows:1", [], ["rows:1"]),
        ("handle:0", [], ["handle:0"]),  # What is asked for itself.
    ],
)
def test_what_comes_out_of_the_iterator_is_fed_in_place_of_its_handle(
    tmp_path: Path, fetch: str, fed: list[str], expected: list[str]
) -> None:
    assert list(GraphFile(saved(tmp_path, _handle)).unfed([fetch], fed)) == expected


def test_damaged_wiring_does_no_harm() -> None:
    meta = of_nodes(
        ("x", "Placeholder", []),
        ("a", "Add", ["x", "b", "nowhere", "^c", "^"]),
        ("b", "Add", ["a:9999999999999999999", "a:", "b"]),
        ("c", "IteratorGetNext", ["c:x", ":0", ""]),
        ("d", "SaveV2", ["d", "d"]),
    )
    found = find_candidates(meta)
    assert (found.inputs, found.pipeline) == (("x:0",), ())


def test_a_long_chain_and_many_inputs_take_no_recursion_and_little_time() -> None:
    chain = [(f"n{i}", "Identity", [f"n{i - 1}"]) for i in range(1, 20_000)]
    many: list[tuple[str, str, list[str]]] = [(f"p{i}", "Placeholder", []) for i in range(1000)]
    everything = ("all", "Pack", [name for name, _, _ in many])
    found = find_candidates(of_nodes(("n0", "Placeholder", []), *chain, *many, everything))
    assert found.outputs[0] in ("n19999:0", "all:0")
    assert len(found.inputs) == 1001


# Who takes what of whom, and what serves no prediction.


def test_control_inputs_and_what_does_not_exist_are_left_out() -> None:
    meta = of_nodes(("a", "Const", []), ("b", "Add", ["a", "a:1", "^a", "gone:0"]))
    assert meta.taken == {"a": [], "b": ["a", "a:1"]}
    assert meta.takers == {"a": ["b", "b"]}
    assert meta.tensors_taken("b", "a") == {"a:0", "a:1"}
    texts = ("a", "a:0", "a:12", "a:", "a:x", "a:-1", "a:99999999999999")
    assert [output_index(text) for text in texts] == [0, 0, 12, 0, 0, 0, 0]


def test_what_depends_on_what() -> None:
    meta = of_nodes(
        ("rows", "IteratorGetNext", []),
        ("x", "Identity", ["rows"]),
        ("loss", "Sub", ["x", "rows:1"]),
        ("other", "Identity", ["rows:2"]),
        ("shape", "Shape", ["x"]),
        ("zeros", "Fill", ["shape"]),
        ("saved", "SaveV2", ["x"]),
        ("late", "Identity", ["saved"]),
    )
    assert dependence(meta, ["rows:0", "rows:1"], left_out={"saved"}) == {
        "rows": {"rows:0", "rows:1"},
        "x": {"rows:0"},
        "loss": {"rows:0", "rows:1"},
        "shape": {"rows:0"},
    }
    without_inputs = of_nodes(("a", "Const", []), ("b", "SaveV2", ["a"]))
    assert dependence(without_inputs, [], left_out={"b"}) == {"a": set()}


def test_savers_training_summaries_and_pipelines_are_plumbing(tmp_path: Path) -> None:
    def build() -> None:
        x, w = _x((None,)), _variable("w")
        loss = tf.reduce_mean(tf.square(x * w, name="square"), name="loss")
        v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        v1.summary.scalar("seen", loss)
        queue = v1.FIFOQueue(9, [tf.float32], [[]], name="queue")
        queue.enqueue(v1.placeholder(tf.float32, [], name="filling"), name="fill")
        tf.argmax(x, output_type=tf.int32, name="head")
        best = v1.get_variable("best", initializer=np.int32(0), use_resource=False)
        v1.assign(best, tf.argmax(x, output_type=tf.int32, name="only_kept"), name="keep")

    meta = saved(tmp_path, build)
    found = plumbing(meta)
    assert not found & {"x", "square", "loss", "head", "only_kept", "w"}
    assert {"save/Const", "save/SaveV2", "seen", "queue", "fill", "filling", "keep"} <= found
    assert any(name.startswith("gradients/") for name in found)


# What a value decides, told from the graph and from its name.


@pytest.mark.parametrize(
    ("name", "role", "off"),
    [
        ("is_training:0", Role.SWITCH, False),
        ("phase:0", Role.SWITCH, False),
        ("testing:0", Role.SWITCH, True),
        ("is_inference:0", Role.SWITCH, True),
        ("train_or_test:0", Role.SWITCH, False),
        ("p:0", Role.KEEP, 1.0),
        ("p:0", Role.RATE, 0.0),
    ],
)
def test_what_is_off_and_which_names_speak_of_training(name: str, role: Role, off: object) -> None:
    assert off_value(name, role) == off
    assert says_switch(name) == ("p" not in name[:2])


@pytest.mark.parametrize(
    ("dtype", "shape", "role"),
    [
        (tf.bool, [], Role.SWITCH),
        (tf.bool, [None], None),
        (tf.int32, [], None),
        (tf.float32, [3], None),
        (tf.float32, [], Role.KEEP),
    ],
)
def test_only_single_values_decide(dtype: tf.DType, shape: list[int], role: Role | None) -> None:
    needed = sub_graph(of_graph(lambda: v1.placeholder(dtype, shape, name="keep")), ["keep:0"])
    assert RoleFinder(needed).role(TensorInfo("keep:0", dtype, tuple(shape))) is role


def _drawn(x: tf.Tensor) -> tf.Tensor:
    return tf.random.uniform(tf.shape(x))


@pytest.mark.parametrize(
    ("keep", "role"),
    [
        (lambda x, p: v1.nn.dropout(x, keep_prob=p), Role.KEEP),
        (lambda x, p: tf.nn.dropout(x, rate=p), Role.RATE),
        (lambda x, p: tf.nn.dropout(x, rate=1.0 - p), Role.KEEP),
        (lambda x, p: x * tf.floor(p + _drawn(x)) / p, Role.KEEP),  # Of TensorFlow 1 until 1.12.
        (lambda x, p: tf.where(_drawn(x) < tf.identity(p), x, 0.0), Role.KEEP),
        (lambda x, p: tf.where(p > _drawn(x), x, 0.0), Role.KEEP),
        (lambda x, p: tf.where(p <= _drawn(x), x, 0.0), Role.RATE),
        (lambda x, p: x * p + _drawn(x), None),
    ],
    ids=["keep", "rate", "1 - p", "floor", "below", "above", "not below", "no comparison"],
)
def test_a_dropout_of_any_name_is_found_by_what_is_compared(
    keep: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], role: Role | None
) -> None:
    def build() -> None:
        x, p = v1.placeholder(tf.float32, [4], name="x"), v1.placeholder(tf.float32, [], name="p")
        tf.identity(keep(x, p), name="y")

    needed = sub_graph(of_graph(build), ["y:0"])
    assert RoleFinder(needed).role(TensorInfo("p:0", tf.float32, ())) is role
