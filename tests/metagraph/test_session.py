"""Loading and running graphs as data, compared with plain TensorFlow on the same files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.python.framework import op_def_registry

from metagraph import session
from metagraph.description import TensorInfo
from metagraph.meta import read_meta_graph
from metagraph.model import with_shapes
from metagraph.safety import RANDOM_OPS, TimeLimit
from metagraph.session import (
    InferenceGraph,
    Restoring,
    describe_tensors,
    free_among,
    free_scope,
    load_inference_graph,
    placeholder,
    warn_if_random,
)
from tests.metagraph.made import control_flow, of_graph, of_nodes, refused, run, saved
from tests.prediction import stock

v1 = tf.compat.v1

X = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], np.float32)
W = np.array([[0.5, 1.5], [-1.0, 2.0], [3.0, 0.125]], np.float32)
HIDDEN = np.ones((2, 2), np.float32)


@pytest.fixture(params=["ref", "resource"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A graph of two inputs, three variables and an output, in both kinds of variables."""
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable_scope().set_use_resource(request.param == "resource")
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        rate = v1.placeholder_with_default(0.5, [], name="rate")
        w = v1.get_variable("w", initializer=W)
        b = v1.get_variable("b", initializer=np.float32(10.0))
        v1.get_variable("step", initializer=np.int64(4))
        hidden = tf.matmul(x, w, name="hidden")
        tf.add(hidden * rate, b, name="y")
    return tmp_path / "m.meta"


def _node(proto: MetaGraphDef, name: str) -> NodeDef:
    return next(node for node in proto.graph_def.node if node.name == name)


def _load(path: Path, fetches: list[str], feeds: list[str] | None = None) -> InferenceGraph:
    return load_inference_graph(read_meta_graph(str(path)), fetches, feeds or [])


def _run(path: Path, fetches: list[str], feeds: dict[str, Any]) -> list[npt.NDArray[Any]]:
    return run(read_meta_graph(str(path)), fetches, feeds)


@pytest.mark.parametrize(
    ("fetches", "feeds"),
    [
        (["y:0", "hidden:0"], {"x:0": X}),
        (["y:0"], {"x:0": X, "rate:0": np.float32(0.25)}),
        (["y:0"], {"hidden:0": HIDDEN}),  # Any tensor can be fed.
        (["y:0", "mul:0"], {"mul:0": HIDDEN, "rate:0": np.float32(0)}),
    ],
)
def test_it_computes_what_a_stock_client_computes(
    path: Path, fetches: list[str], feeds: dict[str, Any]
) -> None:
    theirs = stock.run(path, fetches, feeds)
    for found, expected in zip(_run(path, fetches, feeds), theirs, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_dtypes_and_shapes_are_told(path: Path) -> None:
    infos = describe_tensors(read_meta_graph(str(path)), ["x:0", "rate:0", "y:0"])
    assert infos == (
        TensorInfo("x:0", tf.float32, (None, 3)),
        TensorInfo("rate:0", tf.float32, ()),
        TensorInfo("y:0", tf.float32, (None, 2)),
    )
    with _load(path, ["y:0"], ["x:0"]) as graph:
        assert (graph.feeds, graph.fetches) == (infos[:1], infos[2:])


def _widened(proto: MetaGraphDef) -> None:
    _node(proto, "b").attr["shape"].shape.dim.add().size = 2


def _with_a_foreign_end(proto: MetaGraphDef) -> None:
    proto.graph_def.node.add(name="odd", op="FromAnotherWorld", input=["y"])
    proto.collection_def["trainops"].node_list.value.append("no/such/node")
    proto.meta_info_def.tensorflow_version = "0.12.head"


def _with_a_foreign_begin(proto: MetaGraphDef) -> None:
    """What is fed has no dtype that is known."""
    proto.graph_def.node.add(name="odd", op="FromAnotherWorld")
    _node(proto, "hidden").input[0] = "odd"


@pytest.mark.parametrize(
    ("edit", "fetch", "feeds", "message"),
    [
        (_widened, "y:0", ["x:0"], r"b is float32 \[\], the graph has float32 \[2\]"),
        (None, "y:3", ["x:0"], r"no tensor y:3 \(outputs of y: 1\)"),
        (None, "y:0", [], "fails at x: You must feed"),
        (_with_a_foreign_end, "odd:0", ["x:0"], "node odd runs the operation FromAnotherWorld"),
        (_with_a_foreign_begin, "y:0", ["hidden:0"], "registered 'FromAnotherWorld'"),
    ],
    ids=["another shape", "no such output", "nothing fed", "unknown after", "unknown before"],
)
def test_what_cannot_be_run_is_one_line(
    path: Path,
    edit: Callable[[MetaGraphDef], None] | None,
    fetch: str,
    feeds: list[str],
    message: str,
) -> None:
    if edit:
        stock.edit_meta(path, edit)
    with refused(message):
        _run(path, [fetch], dict.fromkeys(feeds, X))


def test_what_a_file_says_beside_the_path_does_no_harm(path: Path) -> None:
    expected = _run(path, ["y:0"], {"x:0": X})
    stock.edit_meta(path, _with_a_foreign_end)
    np.testing.assert_array_equal(_run(path, ["y:0"], {"x:0": X}), expected)


def test_an_iterator_is_nothing_to_feed(tmp_path: Path) -> None:
    def build() -> None:
        data = tf.data.Dataset.from_tensors(np.ones((1, 1), np.float32))
        tf.identity(v1.data.make_initializable_iterator(data).get_next(), name="y")

    meta = saved(tmp_path, build)
    with refused("iterator has not been initialized"):
        run(meta, ["y:0"])
    with refused(r"IteratorV2:0 cannot be fed: it is a resource"):
        run(meta, ["y:0"], {"IteratorV2:0": 0})


def test_a_failure_with_a_traceback_is_one_line_with_its_node(tmp_path: Path) -> None:
    def build() -> None:
        v = v1.get_variable("v", initializer=np.float32(3), use_resource=True)
        tf.reshape(v, [v1.placeholder(tf.int32, [], name="x")], name="reshaped")

    with refused(r"fails at reshaped: Input to reshape"):
        run(saved(tmp_path, build), ["reshaped:0"], {"x:0": np.int32(2)})


def test_a_single_text_comes_back_as_an_array(tmp_path: Path) -> None:
    (found,) = run(saved(tmp_path, lambda: tf.constant("é", name="s")), ["s:0"])
    assert found.dtype == object
    assert found.item() == "é".encode()


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("control_flow_v2", [False, True])
def test_a_variable_that_is_a_switch_can_be_fed(
    tmp_path: Path, resource: bool, control_flow_v2: bool
) -> None:
    with control_flow(control_flow_v2), tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None], name="x")
        training = v1.get_variable(
            "is_training", initializer=True, trainable=False, use_resource=resource
        )
        tf.cond(training, lambda: x * 2.0, lambda: x + 0.5, name="y")
        v1.train.Saver().export_meta_graph(str(tmp_path / "m.meta"))
    output = "y/Merge:0" if not control_flow_v2 else "y/Identity:0"
    x_value = np.array([1, 2], np.float32)
    feeds = {"x:0": x_value, "is_training:0": np.array(False)}
    # There is no checkpoint: a variable that is fed needs none.
    assert _run(tmp_path / "m.meta", [output], feeds)[0].tolist() == [1.5, 2.5]
    feeds["is_training:0"] = np.array(True)
    y, seen = _run(tmp_path / "m.meta", [output, "is_training:0"], feeds)
    assert (y.tolist(), seen.tolist()) == ([2, 4], True)


def test_a_fed_variable_reaches_what_takes_a_reference_or_a_handle(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        ref = v1.get_variable("ref", [2], use_resource=False)
        handle = v1.get_variable("handle", [3, 2], use_resource=True)
        v1.assign_add(ref, [1.0, 1.0], name="plus")
        tf.gather(handle, [2, 0], name="rows")
        tf.function(lambda: handle.read_value() * 2.0)()
        call = v1.get_default_graph().get_operations()[-1]
        tf.identity(call.outputs[0], name="doubled")
        v1.train.Saver().export_meta_graph(str(tmp_path / "m.meta"))
    value = np.arange(6, dtype=np.float32).reshape(3, 2)
    feeds = {"ref:0": np.array([5, 6], np.float32), "handle:0": value}
    plus, rows, doubled = _run(tmp_path / "m.meta", ["plus:0", "rows:0", "doubled:0"], feeds)
    assert plus.tolist() == [6, 7]
    np.testing.assert_array_equal(rows, value[[2, 0]])
    np.testing.assert_array_equal(doubled, value * 2)


def test_a_resource_is_nothing_to_fetch(tmp_path: Path) -> None:
    queue = tf.raw_ops.FIFOQueueV2
    meta = saved(tmp_path, lambda: queue(component_types=[tf.float32], name="queue"))
    with refused("queue:0 cannot be fetched: it is a resource"):
        run(meta, ["queue:0"])


def test_a_table_that_waits_for_its_keys_is_said(tmp_path: Path) -> None:
    def build() -> None:
        table = tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.float32)
        keys = v1.FIFOQueue(1, [tf.int64], [[1]]).dequeue(name="keys")
        tf.raw_ops.InitializeTableV2(table_handle=table, keys=keys, values=[1.0])
        tf.raw_ops.LookupTableFindV2(
            table_handle=table, keys=[tf.constant(1, tf.int64)], default_value=0.0, name="y"
        )

    meta = saved(tmp_path, build)
    with refused("the start of the graph.* longer than --time_limit=0.2 .*waits for keys"):
        run(meta, ["y:0"], trust_graph=True, time_limit=TimeLimit(0.2))


def _add() -> None:
    tf.add(v1.get_variable("v", initializer=1.0), 1.0, name="y")


def _look_up() -> None:
    keys = v1.lookup.KeyValueTensorInitializer([1], [2], tf.int64, tf.int64)
    table = v1.lookup.StaticHashTable(keys, -1)
    tf.identity(table.lookup(tf.constant([1], tf.int64)), name="y")


@pytest.mark.parametrize(("build", "filled"), [(_add, ""), (_look_up, ", which fills its tables,")])
def test_the_import_has_its_own_clock(
    tmp_path: Path, build: Callable[[], None], filled: str
) -> None:
    """What ends the process is set before the import, the start and a run, and called off."""
    lines: list[str] = []
    limit = TimeLimit(9, lambda seconds, line: lines.append(line if seconds else "stop"))
    run(saved(tmp_path, build), ["y:0"], time_limit=limit)
    start = f"the start of the graph{filled}"
    found = [line.partition(" took")[0] for line in lines]
    assert found == ["the import of the graph", "stop", start, "stop", "one run", "stop"]
    assert not [line for line in lines if "--batch_size" in line]


def test_a_constant_that_cannot_be_made_is_told_in_plain_words(tmp_path: Path) -> None:
    meta = saved(tmp_path, lambda: tf.identity(tf.constant([1.0, 2.0], name="damaged"), name="y"))
    meta.nodes["damaged"].attr["value"].tensor.tensor_content = b"123"
    reason = "a constant is damaged, or needs more memory than there is or is allowed"
    with refused(f"run at damaged: {reason}$"):
        run(meta, ["y:0"])


def test_a_message_that_is_no_text_is_a_line_all_the_same(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("w", initializer=W, use_resource=False)
    meta = read_meta_graph(str(tmp_path / "m.meta"))
    meta.nodes["w"].attr["container"].s = b"\xbc-"
    with refused(r"cannot be run at w: container contains invalid characters: \\xbc-"):
        run(meta, ["w:0"])


# What takes the place of fed tensors, and how variables are given their values.


def test_a_scope_is_free_of_the_file_s_names() -> None:
    assert free_scope(of_nodes(("fedora", "Add", [])), "fed") == "fed"
    assert free_scope(of_nodes(("fed", "Add", [])), "fed") == "fed_1"
    assert free_among(["fedora", "a/fed"], "fed") == "fed"
    assert free_among(["Fed/x", "fed_1/y/z"], "fed") == "fed_2"


@pytest.mark.parametrize(
    ("node", "op", "expected"),
    [
        ("x", "Placeholder", "x"),
        ("a/x", "PlaceholderV2", "a/x"),
        ("y", "Add", "fed/value"),
        ("_x", "Placeholder", "fed/value"),
        ("x+y", "Placeholder", "fed/value"),
    ],
)
def test_a_placeholder_keeps_its_name_where_that_is_free(node: str, op: str, expected: str) -> None:
    meta = of_nodes((node, op, []))
    with tf.Graph().as_default():
        tensor = placeholder(meta, f"{node}:0", tf.int32, [None, 2], "fed")
        for dtype in (tf.resource, tf.variant):
            with refused(r":0 cannot be fed: it is"):
                placeholder(meta, f"{node}:0", dtype, [], "fed")
    assert (tensor.op.name, tensor.dtype, tensor.shape.as_list()) == (expected, tf.int32, [None, 2])


_SIZES = (10, 300, 20, 30, 400)


@pytest.mark.parametrize(
    ("limit", "steps"), [(1 << 20, [5]), (4 * 320, [2, 2, 1]), (1, [1, 1, 1, 1, 1])]
)
def test_variables_are_assigned_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, steps: list[int]
) -> None:
    monkeypatch.setattr(session, "_BYTES_A_STEP", limit)

    def build() -> None:
        for index, size in enumerate(_SIZES):
            value = np.full(size, index, np.float32)
            v1.get_variable(f"v{index}", initializer=value, use_resource=index % 2 == 0)

    meta = saved(tmp_path, build)
    names = [f"v{index}" for index in range(len(_SIZES))]
    found = Restoring(meta, names, [], "restored").steps({})
    assert [len(step.targets) for step in found] == [len(step.feeds) for step in found] == steps
    for optimize in (True, False):
        with load_inference_graph(meta, [f"{n}:0" for n in names], optimize=optimize) as graph:
            for index, value in enumerate(graph.run()):
                np.testing.assert_array_equal(value, np.full(_SIZES[index], index, np.float32))


# What is random. They have a seed too, and draw nothing: a generator or queue as such, data,
# dropout on GPUs only.
_NOT_DRAWING = (
    "AnonymousRandomSeedGenerator",
    "CudnnRNN",
    "DeleteRandomSeedGenerator",
    "ExperimentalRandomDataset",
    "RandomDataset",
    "RandomShuffleQueue",
)


def _draws(name: str) -> bool:
    definition = op_def_registry.get(name)
    if definition is None or not definition.is_stateful or name.startswith(_NOT_DRAWING):
        return False
    seeded = any(attribute.name == "seed" for attribute in definition.attr)
    by_state = name.startswith(("StatefulStandard", "StatefulTruncated", "StatefulUniform"))
    return seeded or by_state or name in ("RngReadAndSkip", "StatefulRandomBinomial")


def test_every_operation_that_draws_is_known() -> None:
    names = [name for name in dir(tf.raw_ops) if name[0].isupper()]
    assert {name for name in names if _draws(name)} == RANDOM_OPS


def test_a_second_run_tells_what_is_random(tmp_path: Path) -> None:
    """NaN is no other value, whatever its bits; without a random node nothing runs twice."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None], name="x")
        tf.sqrt(x, name="root")
        tf.cast(x / x, tf.bfloat16, name="narrow")
        tf.add(x, tf.random.uniform([]), name="noise")
        tf.strings.as_string(x, name="text")

    meta = saved(tmp_path, build)
    fed = np.array([-1.0, 0.0, 4.0], np.float32)
    names = ["root:0", "narrow:0", "noise:0", "text:0"]
    with load_inference_graph(meta, names, ["x:0"]) as graph:
        results = graph.run(fed)
        results[0][0] = -results[0][0]
        assert warn_if_random(graph, [fed], results) == ["noise:0"]
        assert graph.random_nodes == ["random_uniform/RandomUniform"]
    with load_inference_graph(meta, ["root:0"], ["x:0"]) as graph:
        assert warn_if_random(graph, [fed], [np.zeros(7)]) == []


# Shapes of what is fed, where the tensor's own node does not say them.


def _kernel(*sizes: int, resource: bool = False) -> tf.Tensor:
    return v1.get_variable("k", sizes, use_resource=resource)


def _product(x: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.MatMul(a=tf.nn.relu(tf.cast(x, tf.float32)), b=_kernel(7, 2), name="y")


def _any() -> tf.Tensor:
    return v1.placeholder(tf.float32, [None, None])


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (_product, "[?, 7]"),
        (lambda x: tf.raw_ops.MatMul(a=x, b=_kernel(7, 2), transpose_a=True), "[7, ?]"),
        (lambda x: tf.raw_ops.MatMul(a=_kernel(7, 3, resource=True), b=x), "[3, ?]"),
        (lambda x: tf.nn.conv2d(x, _kernel(3, 3, 5, 2), 1, "SAME"), "[?, ?, ?, 5]"),
        (lambda x: tf.nn.conv3d(x, _kernel(1, 1, 1, 5, 2), [1] * 5, "SAME"), "[?, ?, ?, ?, 5]"),
        (lambda x: tf.nn.conv2d(x * 2 - 1, _kernel(3, 3, 1, 2), 1, "SAME"), "[?, ?, ?, 1]"),
        (lambda x: tf.raw_ops.MatMul(a=tf.nn.bias_add(x, _kernel(7)), b=_any()), "[?, 7]"),
        (lambda x: x + _kernel(7), "of any shape"),
    ],
)
def test_an_open_placeholder_has_the_shape_that_its_takers_demand(
    build: Any, expected: str
) -> None:
    meta = with_shapes(of_graph(lambda: build(v1.placeholder(tf.float32, name="x"))), {}, None)
    assert str(describe_tensors(meta, ["x:0"])[0]) == f"x:0 float32 {expected}"


@pytest.mark.parametrize("is_saved", [True, False])
@pytest.mark.parametrize(("take", "rows"), [("", ()), ("_many", (3,)), ("_up_to", (None,))])
def test_a_queue_gives_the_shapes_of_its_components(take: str, rows: Any, is_saved: bool) -> None:
    def build() -> None:
        queue = v1.RandomShuffleQueue(9, 1, [tf.int64, tf.float32], [[], [5, 4]])
        tf.identity(getattr(queue, f"dequeue{take}")(*[3][: len(rows)])[1], name="y")

    meta = of_graph(build)
    if not is_saved:
        rows = rows and (None,)
        for node in meta.proto.graph_def.node:
            node.attr.pop("_output_shapes", None)
    found = describe_tensors(meta, [meta.nodes["y"].input[0], "y:0"])
    assert [info.shape for info in found] == [(*rows, 5, 4)] * 2


def test_what_is_said_of_a_shape_goes_before_what_is_demanded() -> None:
    meta = of_graph(lambda: _product(v1.placeholder(tf.float32, name="x")))
    said = with_shapes(meta, {"x": (6, None)}, None)
    assert [i.shape for i in describe_tensors(said, ["x:0", "y:0"])] == [(6, 7), (6, 2)]
    wrong = with_shapes(meta, {"x": (None, 8)}, None)
    with refused("Dimensions must be equal, but are 8 and 7"):
        describe_tensors(wrong, ["y:0"])


@pytest.mark.parametrize("saved_shape", [[None, 3], []])
def test_a_placeholder_of_an_old_producer_has_the_shape_that_was_saved(saved_shape: Any) -> None:
    meta = of_graph(lambda: v1.placeholder(tf.float32, saved_shape, name="x"))
    meta.proto.graph_def.versions.producer = 21
    meta.nodes["x"].attr["shape"].shape.Clear()
    assert describe_tensors(meta, ["x:0"])[0].shape == tuple(saved_shape)
    del meta.nodes["x"].attr["_output_shapes"]
    assert describe_tensors(meta, ["x:0"])[0].shape is None
