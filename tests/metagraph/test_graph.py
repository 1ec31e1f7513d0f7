"""A graph as data: looked back through, cut to what is needed, and made silent."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError
from metagraph.graph import (
    View,
    nodes_by_op,
    reachable,
    simpler,
    source,
    sub_graph,
    text_at,
    views,
)
from metagraph.meta import MetaGraphFile, read_meta_graph
from tests.metagraph.made import of_graph, of_nodes, of_proto, run, saved
from tests.prediction import stock

v1 = tf.compat.v1


@pytest.fixture
def meta() -> MetaGraphFile:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None], name="x")
        left, right = tf.unstack(tf.stack([x, x], name="both"), name="halves")
        with tf.control_dependencies([left]):
            tf.add(right, 1.0, name="y")
        tf.negative(left, name="other")

    return of_graph(build)


@pytest.mark.parametrize(
    ("fetches", "feeds", "names", "taken"),
    [
        (["y:0"], [], "x both halves y/y y", []),
        # A fed node is not waited for: halves:0 is only that.
        (["y:0"], ["halves:0", "halves:1"], "y/y y", ["halves:1"]),
        # A node that is fed in part stays.
        (["y:0", "other:0"], ["halves:1"], "x both halves y/y y other", ["halves:1"]),
    ],
)
def test_all_that_is_needed_stays_and_nothing_else(
    meta: MetaGraphFile, fetches: list[str], feeds: list[str], names: str, taken: list[str]
) -> None:
    before = meta.proto.SerializeToString(deterministic=True)
    part = sub_graph(meta, fetches, feeds)
    assert {node.name for node in part.graph_def.node} == set(names.split())
    assert part.feeds == set(taken)
    assert part.unfed == (("x:0",) if "x" in names.split() else ())
    inputs = {node.name: list(node.input) for node in part.graph_def.node}
    assert inputs["y"] == ["halves:1", "y/y"]
    assert inputs["y/y"] == ([] if feeds else ["^halves"])
    assert meta.proto.SerializeToString(deterministic=True) == before


def test_functions_that_are_called_come_along_through_other_functions() -> None:
    proto = of_nodes(("y", "outer", []), ("z", "unused", [])).proto
    for name, calls in (("outer", ["inner"]), ("inner", []), ("unused", ["inner"])):
        _function(proto, name, calls)
    part = sub_graph(of_proto(proto), ["y:0"])
    names = [function.signature.name for function in part.graph_def.library.function]
    assert names == ["outer", "inner"]


def test_what_ties_a_node_to_its_origin_is_dropped(meta: MetaGraphFile) -> None:
    for node in meta.proto.graph_def.node:
        node.device = "/job:ps/task:3"
        node.attr["_class"].list.s.append(b"loc:@x")
        node.attr["_output_shapes"].list.shape.add()
    nodes = {node.name: node for node in sub_graph(meta, ["other:0"]).graph_def.node}
    assert {node.device for node in nodes.values()} == {""}
    assert not {"_class", "_output_shapes"} & set(nodes["other"].attr)
    assert "_output_shapes" in nodes["x"].attr  # An old placeholder's shape is only there.


@pytest.mark.parametrize("first_input", ["n49999", "n0", "^n7", "n25000:3"])
def test_long_cycles_that_no_tensorflow_has_made_end(first_input: str) -> None:
    chain = [(f"n{i}", "Identity", [f"n{i - 1}" if i else first_input]) for i in range(50_000)]
    meta = of_nodes(*chain)
    part = sub_graph(meta, ["n49999:0"], ["n10:1"])
    assert len(part.names) == len(part.graph_def.node) == 50_000
    assert reachable(meta, ["n49999"]) == part.names


def test_recursive_functions_end() -> None:
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="y", op="f")
    _function(proto, "f", ["g"])
    _function(proto, "g", ["f"])
    part = sub_graph(of_proto(proto), ["y:0"])
    assert {f.signature.name for f in part.graph_def.library.function} == {"f", "g"}


def test_nodes_are_found_by_their_operation_in_functions_too() -> None:
    proto = of_nodes(("a", "RandomUniform", []), ("b", "Add", [])).proto
    _function(proto, "f", ["RandomUniform"])
    found = nodes_by_op(proto.graph_def)
    assert found == {"RandomUniform": ["a", "f/call0"], "Add": ["b"]}


# Looking back through a graph and its functions, hostile ones included.


def _function(proto: MetaGraphDef, name: str, calls: list[str], wanted: bool = False) -> None:
    function = proto.graph_def.library.function.add()
    function.signature.name = name
    function.signature.input_arg.add(name="handle")
    for number, other in enumerate(calls):
        function.node_def.add(name=f"call{number}", op=other, input=["handle"])
    if wanted:
        function.node_def.add(name="copy", op="Identity", input=["handle"])
        function.node_def.add(name="found", op="Wanted", input=["copy:output:0"])


def _found(proto: MetaGraphDef) -> list[View]:
    return list(views(of_proto(proto), {"Wanted"}))


def test_arguments_are_seen_through_at_any_depth() -> None:
    proto = of_nodes(
        ("table", "HashTableV2", []),
        ("init", "outer", ["table", "^table"]),
        ("unwanted", "other", ["table"]),  # It has nothing that is wanted, and is left out.
    ).proto
    _function(proto, "outer", ["inner"])
    _function(proto, "inner", [], wanted=True)
    _function(proto, "other", [])
    graph, outer, inner = _found(proto)
    assert (graph.root, outer.root, inner.root) == (None, "init", "init")
    found = source(inner, inner.nodes["found"].input[0])
    assert found is not None
    assert (found.name, found.node.op) == ("table:0", "HashTableV2")


def test_calls_that_multiply_or_recur_end() -> None:
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="call", op="f0", input=["call"])
    for depth in range(40):
        _function(proto, f"f{depth}", [f"f{depth + 1}"] * 10)
    _function(proto, "f40", ["f40", "f0"], wanted=True)
    assert len(_found(proto)) <= 1000


@pytest.mark.parametrize("text", ["a", "gone", "c:x", "c:999999999999"])
def test_where_nothing_is_found_the_walk_ends(text: str) -> None:
    meta = of_nodes(("a", "Identity", ["b"]), ("b", "Reshape", ["a", "a"]), ("c", "Const", []))
    (graph,) = _found(meta.proto)
    assert source(graph, text) is None


# Texts of constants, compared with what TensorFlow says that they are.


def _const(*texts: bytes, shape: tuple[int, ...]) -> NodeDef:
    node = NodeDef(name="c", op="Const")
    node.attr["dtype"].type = tf.string.as_datatype_enum
    tensor = node.attr["value"].tensor
    tensor.dtype = tf.string.as_datatype_enum
    tensor.string_val.extend(texts)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return node


@pytest.mark.parametrize(
    ("texts", "shape"),
    [
        ((b"a",), ()),
        ((b"a", b"b", b"c", b"d"), (2, 2)),
        ((b"a", b"b"), (5,)),
        ((b"\xc3\xbc",), (2, 1)),
        ((b"",), (1,)),
    ],
)
def test_each_text_is_where_tensorflow_has_it(
    texts: tuple[bytes, ...], shape: tuple[int, ...]
) -> None:
    node = _const(*texts, shape=shape)
    expected = [bytes(t) for t in tf.make_ndarray(node.attr["value"].tensor).reshape(-1)]
    found = [text_at(node, index) for index in range(len(expected))]
    assert [text and text.encode() for text in found] == [
        text.decode() and text for text in expected
    ]
    assert text_at(node, len(expected)) is None
    assert text_at(node, -1) is None
    hostile = _const(b"a", b"b", shape=(2**40, 2**20))  # It costs no memory.
    assert text_at(hostile, 2**59) == "b"


@pytest.mark.parametrize(
    "node",
    [
        NodeDef(name="p", op="Placeholder"),
        NodeDef(name="c", op="Const"),
        _const(shape=(1,)),
        _const(b"a", b"b", shape=(1,)),
        _const(b"a", shape=(-1,)),
        _const(b"a", shape=(0,)),
        _const(b"\xff", shape=()),
    ],
    ids=["no constant", "no value", "no text", "too many", "negative", "empty", "no UTF-8"],
)
def test_what_has_no_such_text_gives_none(node: NodeDef) -> None:
    assert text_at(node, 0) is None


# What a graph prints reaches nobody; what it computes stays.


raw = tf.raw_ops

LOUD = "\x1b[31mFORGED"


def _printed(x: tf.Tensor) -> tf.Tensor:
    """Twice x, by way of both operations, which print before it comes."""
    x = raw.Print(input=x, data=[tf.constant(LOUD), x], message=LOUD, first_n=9)
    with tf.control_dependencies([raw.PrintV2(input=LOUD, output_stream="stdout")]):
        return tf.add(x, x)


def _in_a_dataset(x: tf.Tensor) -> tf.Tensor:
    data = tf.data.Dataset.range(1).map(lambda i: _printed(tf.cast(i + 2, tf.float32)))
    return tf.add(v1.data.make_one_shot_iterator(data).get_next(), x - x)


@pytest.mark.parametrize(
    "build",
    [_printed, tf.function(_printed), _in_a_dataset],
    ids=["graph", "function", "dataset"],
)
def test_nothing_is_printed_and_the_values_stay(
    build: Callable[[tf.Tensor], tf.Tensor], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def save() -> None:
        x = v1.placeholder(tf.float32, [], name="x")
        scale = v1.get_variable("scale", initializer=3.0, use_resource=False)
        tf.multiply(build(x), scale, name="y")

    meta = saved(tmp_path, save)
    capfd.readouterr()
    two = {"x:0": np.float32(2)}
    assert stock.run(tmp_path / "m.meta", ["y:0"], two)[0] == 12
    loud = capfd.readouterr()
    assert "FORGED" in loud.out  # A stock client prints.
    assert "FORGED" in loud.err
    assert run(meta, ["y:0"], two)[0] == 12
    assert capfd.readouterr() == ("", "")


def test_what_is_only_printed_needs_no_value(tmp_path: Path) -> None:
    def build() -> None:
        weight = v1.get_variable("weight", initializer=3.0, use_resource=False)
        told = v1.placeholder(tf.float32, [], name="told")
        raw.Print(input=weight, data=[told], name="y")

    meta = saved(tmp_path, build)
    assert run(meta, ["y:0"]) == run(meta, ["y:0"], {"told:0": np.float32(1)}) == [3]


@pytest.mark.parametrize(
    ("op", "inputs", "kept", "silent", "attributes"),
    [
        ("Print", ["a:1", "b", "^c"], ["a:1", "^c"], "Identity", ["T"]),
        ("PrintV2", ["b", "^c"], ["^c"], "NoOp", []),
    ],
)
def test_only_control_inputs_and_the_value_that_is_passed_on_stay(
    op: str, inputs: list[str], kept: list[str], silent: str, attributes: list[str]
) -> None:
    node = NodeDef(name="n", op=op, input=inputs)
    for name in ("T", "message", "_grappler:x"):
        node.attr[name].s = b""
    plain = simpler(node)
    assert (plain.op, list(plain.input), sorted(plain.attr)) == (silent, kept, attributes)


# What only says where work is done.


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_places_the_work_of_one_replica_is_seen_through(replicas: int) -> None:
    raw = tf.raw_ops

    def build() -> None:
        x = v1.placeholder(tf.float32, [None], "x")
        w = tf.constant([2.0])
        raw.TPUReplicateMetadata(num_replicas=replicas, name="placed")
        with tf.control_dependencies([v1.get_default_graph().get_operation_by_name("placed")]):
            y = tf.identity(raw.TPUReplicatedInput(inputs=[x] * replicas), "sharded")
            y = y * raw.TPUPartitionedInput(inputs=[w] * replicas)
        y = raw.TPUPartitionedOutput(inputs=y, num_splits=replicas)[0]
        y = raw.NcclAllReduce(
            input=y, reduction="sum", num_devices=replicas, shared_name="", name="reduced"
        )
        tf.identity(raw.TPUReplicatedOutput(input=y, num_replicas=replicas)[0], name="y")

    meta = of_graph(build)
    meta.nodes["sharded"].op = "XlaSharding"
    for node in meta.nodes.values():
        node.attr["_tpu_replicate"].s = b"cluster"
    if replicas == 1:
        assert run(meta, ["y:0"], {"x:0": np.array([3], np.float32)})[0].tolist() == [6]
        return
    with pytest.raises(CheckpointError, match=r"NcclAllReduce|No OpKernel"):
        run(meta, ["y:0"], {"x:0": np.array([3], np.float32)})


@pytest.mark.parametrize(("send", "receive"), [("_Send", "_Recv"), ("_HostSend", "_HostRecv")])
def test_what_one_device_sends_to_another_arrives(send: str, receive: str, tmp_path: Path) -> None:
    """As in the graph that a device runs; the end of a function is there as well."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None], "x")
        tf.square(v1.placeholder_with_default(x * 2, [None], "received"), name="y")

    def part(proto: MetaGraphDef) -> None:
        nodes = {node.name: node for node in proto.graph_def.node}
        sender = proto.graph_def.node.add(name="sent", op=send, input=["mul"])
        end = proto.graph_def.node.add(name="end", op="_Retval", input=["y"])
        sender.attr["T"].type = end.attr["T"].type = nodes["y"].attr["T"].type
        sender.attr["tensor_name"].s = b"edge_1"
        nodes["received"].CopyFrom(NodeDef(name="received", op=receive))
        nodes["received"].attr["tensor_type"].type = sender.attr["T"].type
        nodes["received"].attr["tensor_name"].s = b"edge_1"

    meta = saved(tmp_path, build)
    stock.edit_meta(Path(meta.path), part)
    meta = read_meta_graph(meta.path)
    assert run(meta, ["end:0"], {"x:0": np.array([3], np.float32)})[0].tolist() == [36]
    assert sub_graph(meta, ["y:0"]).unfed == ("x:0",)
