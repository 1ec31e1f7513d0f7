"""What could be fed and fetched, in small graphs of the kinds that strangers have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.graph import sub_graph
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.model import Candidates, find_candidates, read_model, without_handles
from tests.prediction import stock

v1 = tf.compat.v1


def _variable(name: str, *shape: int) -> Any:
    return v1.get_variable(name, initializer=np.ones(shape, np.float32), use_resource=False)


def _found(tmp_path: Path, build: Callable[[], object], **saver_options: Any) -> Candidates:
    with stock.checkpoint(tmp_path / "m", **saver_options):
        build()
        if not v1.global_variables():
            _variable("v", 1)
    return find_candidates(read_meta_graph(f"{tmp_path}/m.meta"))


def _classifier(x: tf.Tensor) -> tf.Tensor:
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


def test_a_trained_classifier(tmp_path: Path) -> None:
    def build() -> None:
        rate = v1.placeholder_with_default(1.0, [], name="keep")
        labels = v1.placeholder(tf.int64, [None], name="labels")
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        _train(_classifier(x * rate), labels)

    found = _found(tmp_path, build)
    assert found.inputs == ("labels:0", "x:0", "keep:0")
    assert found.pipeline == ()
    assert found.outputs == ("probabilities:0", "classes:0")


def test_the_signature_goes_first(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        for name in "abc":
            v1.placeholder(tf.float32, name=name)
        _variable("v", 1)

    def sign(proto: MetaGraphDef) -> None:
        inputs = proto.signature_def["serving_default"].inputs
        inputs["x"].name = "c:0"
        inputs["y"].name = "nowhere:0"

    stock.edit_meta(tmp_path / "m.meta", sign)
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    found = find_candidates(meta, read_model(meta).inputs.values())
    assert found.inputs == ("c:0", "a:0", "b:0")


@pytest.mark.parametrize("name", [None, "outer/saver"])
def test_the_savers_placeholders_are_no_inputs(tmp_path: Path, name: str | None) -> None:
    found = _found(tmp_path, lambda: v1.placeholder(tf.float32, name="x"), name=name)
    assert found.inputs == ("x:0",)


def test_placeholders_that_fill_a_queue_are_no_inputs(tmp_path: Path) -> None:
    def build() -> None:
        queue = v1.FIFOQueue(9, [tf.float32, tf.int64], [[3], []])
        rows = v1.placeholder(tf.float32, [None, 3], name="enqueue_input/Placeholder")
        labels = v1.placeholder(tf.int64, [None], name="enqueue_input/Placeholder_1")
        queue.enqueue_many([rows * 2.0, labels])
        _train(_classifier(queue.dequeue_many(5)[0]), queue.dequeue_many(5)[1])

    found = _found(tmp_path, build)
    assert found.inputs == ()
    assert found.pipeline == ("fifo_queue_DequeueMany:0",)  # No prediction needs the labels.
    assert found.outputs[:2] == ("probabilities:0", "classes:0")


def test_placeholders_that_set_a_variable_or_a_summary_are_no_inputs(tmp_path: Path) -> None:
    def build() -> None:
        rate = _variable("rate", 1)
        v1.assign(rate, v1.placeholder(tf.float32, [1], name="new_rate"))
        v1.summary.scalar("reward", v1.placeholder(tf.float32, [], name="reward"))
        v1.data.Dataset.from_tensor_slices(v1.placeholder(tf.float32, [None], name="rows"))
        tf.multiply(v1.placeholder(tf.float32, [1], name="x"), rate, name="y")

    found = _found(tmp_path, build)
    assert found == Candidates(inputs=("x:0",), pipeline=(), outputs=("y:0",))


def test_an_iterators_rows_can_be_fed(tmp_path: Path) -> None:
    def build() -> None:
        rows = np.ones((8, 3), np.float32), np.zeros(8, np.int64), np.zeros(8, np.int64)
        data = v1.data.Dataset.from_tensor_slices(rows).batch(2)
        x, _, labels = v1.data.make_initializable_iterator(data).get_next()
        _train(_classifier(x), labels)

    found = _found(tmp_path, build)
    assert found.inputs == ()
    assert found.pipeline == ("IteratorGetNext:0",)
    assert found.outputs[:2] == ("probabilities:0", "classes:0")
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    of_loss = find_candidates(meta, wanted=["total:0"])
    assert of_loss.pipeline == ("IteratorGetNext:0", "IteratorGetNext:2")
    assert find_candidates(meta, wanted=["w1:0"]).pipeline == ()


def test_a_copy_stands_before_what_it_is_a_copy_of(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        hidden = tf.nn.bias_add(tf.matmul(x, _variable("w", 3, 2)), _variable("b", 2))
        tf.identity(tf.nn.softmax(hidden), name="chances")
        tf.identity(tf.tanh(hidden, name="value"))

    found = _found(tmp_path, build)
    assert found.outputs == ("chances:0", "Softmax:0", "Identity:0", "value:0")


def test_several_heads_and_nothing_that_needs_labels(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        mask = v1.placeholder(tf.bool, [None, 2], name="mask")
        target = v1.placeholder(tf.float32, [None, 2], name="target")
        hidden = tf.matmul(x, _variable("w", 3, 2))
        tf.nn.softmax(tf.where(mask, hidden, -1e9 * tf.ones_like(hidden)), name="policy")
        value = tf.tanh(tf.matmul(hidden, _variable("u", 2, 2)), name="value")
        tf.stack([hidden, -hidden], name="unused")
        hardest = tf.math.top_k(tf.square(value - target), name="hardest").values
        total = tf.reduce_mean(hardest) / 2.0 + tf.nn.l2_loss(v1.global_variables()[0])
        tf.identity(total, name="sum")

    found = _found(tmp_path, build)
    assert found.outputs == ("policy:0", "unused:0", "value:0")
    assert found.inputs == ("x:0", "mask:0", "target:0")


def test_what_depends_on_a_shape_only_is_no_output(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        tf.fill(tf.shape(x), 2.0, name="twos")
        tf.add(x, _variable("b", 3), name="y")

    assert _found(tmp_path, build).outputs == ("y:0",)


def _with_a_handle() -> None:
    """Rows and labels of whichever iterator a placeholder of its handle names."""
    handle = v1.placeholder(tf.string, [], name="handle")
    kinds, shapes = (tf.float32, tf.int64), ([None, 3], [None])
    iterator = v1.data.Iterator.from_string_handle(handle, kinds, shapes)
    x, labels = iterator.get_next(name="rows")
    logits = tf.matmul(x, _variable("w", 3, 2), name="logits")
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    tf.reduce_mean(losses, name="loss")


def test_what_comes_out_of_the_iterator_is_fed_in_place_of_its_handle(tmp_path: Path) -> None:
    found = _found(tmp_path, _with_a_handle)
    assert (found.inputs, found.pipeline, found.outputs[0]) == ((), ("rows:0",), "logits:0")
    meta = read_meta_graph(f"{tmp_path}/m.meta")

    def to_feed(fetches: list[str], fed: list[str]) -> list[str]:
        needed = sub_graph(meta, fetches, fed)
        return list(without_handles(needed, needed.unfed, fetches))

    assert to_feed(["logits:0"], []) == ["rows:0"]
    assert to_feed(["loss:0"], []) == ["rows:0", "rows:1"]
    assert to_feed(["loss:0"], ["rows:0"]) == ["rows:1"]
    assert to_feed(["rows:1"], []) == ["rows:1"]
    assert to_feed(["handle:0"], []) == ["handle:0"]  # What is asked for itself.


def test_a_parser_can_be_fed_instead(tmp_path: Path) -> None:
    def build() -> None:
        examples = v1.placeholder(tf.string, [None], name="examples")
        parsed = v1.parse_example(examples, {"x": v1.FixedLenFeature([3], tf.float32)})
        _classifier(parsed["x"])

    found = _found(tmp_path, build)
    assert found.inputs == ("examples:0",)
    assert [name.rpartition("/")[2] for name in found.pipeline] == ["ParseExampleV2:0"]


def test_early_stages_of_a_pipeline_are_left_out(tmp_path: Path) -> None:
    def build() -> None:
        paths = v1.FIFOQueue(9, [tf.string], [[]], name="paths")
        rows = v1.FIFOQueue(9, [tf.float32], [[3]], name="rows")
        rows.enqueue(tf.stack(v1.decode_csv(paths.dequeue(), [[0.0]] * 3)))
        _classifier(rows.dequeue_many(4))

    assert _found(tmp_path, build).pipeline == ("rows_DequeueMany:0",)


def test_a_graph_without_any_input(tmp_path: Path) -> None:
    def build() -> None:
        tf.sigmoid(tf.matmul(tf.random.normal([4, 3]), _variable("w", 3, 2)), name="image")

    found = _found(tmp_path, build)
    assert found == Candidates(inputs=(), pipeline=(), outputs=("image:0",))


def test_a_measure_without_labels_is_the_last(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        hidden = tf.matmul(x, _variable("w", 3, 3))
        tf.reduce_mean(tf.square(hidden), name="size")
        tf.nn.softmax(hidden, name="chances")

    assert _found(tmp_path, build).outputs == ("chances:0", "size:0")


def test_where_nothing_is_a_prediction_a_measure_is_offered(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        decoded = tf.tanh(tf.matmul(x, _variable("w", 3, 3)))
        tf.reduce_mean(tf.square(decoded - x), name="distance")

    assert _found(tmp_path, build).outputs == ("distance:0",)


def test_loops_end(tmp_path: Path) -> None:
    def build() -> None:
        v1.disable_control_flow_v2()
        try:
            x = v1.placeholder(tf.float32, [1, 3], name="x")
            w = _variable("w", 3, 3)
            v1.while_loop(
                lambda i, _: i < 3, lambda i, s: (i + 1, tf.matmul(s, w)), (0, x), name="loop"
            )
        finally:
            v1.enable_control_flow_v2()

    found = _found(tmp_path, build)
    assert found.inputs == ("x:0",)
    assert "loop/Exit_1:0" in found.outputs


def _meta(*nodes: tuple[str, str, list[str]]) -> MetaGraphFile:
    proto = MetaGraphDef()
    for name, op, inputs in nodes:
        proto.graph_def.node.add(name=name, op=op, input=inputs)
    return MetaGraphFile("m.meta", "m", proto)


def test_damaged_wiring_does_no_harm() -> None:
    meta = _meta(
        ("x", "Placeholder", []),
        ("a", "Add", ["x", "b", "nowhere", "^c", "^"]),
        ("b", "Add", ["a:9999999999999999999", "a:", "b"]),
        ("c", "IteratorGetNext", ["c:x", ":0", ""]),
        ("d", "SaveV2", ["d", "d"]),
    )
    found = find_candidates(meta)
    assert found.inputs == ("x:0",)
    assert found.pipeline == ()


def test_a_long_chain_and_many_inputs_take_no_recursion_and_little_time() -> None:
    chain = [(f"n{i}", "Identity", [f"n{i - 1}"]) for i in range(1, 20_000)]
    many: list[tuple[str, str, list[str]]] = [(f"p{i}", "Placeholder", []) for i in range(1000)]
    everything = ("all", "Pack", [name for name, _, _ in many])
    meta = _meta(("n0", "Placeholder", []), *chain, *many, everything)
    found = find_candidates(meta)
    assert found.outputs[0] in ("n19999:0", "all:0")
    assert len(found.inputs) == 1001
