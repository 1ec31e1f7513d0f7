"""What is refused before an import, as a stock client would crash on it; looking without a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT32

from metagraph.importing import check_well_formed, disarmed_graph, take_by_value
from metagraph.meta import MetaGraphFile
from metagraph.opening import open_model
from metagraph.session import load_inference_graph
from tests.metagraph.made import control_flow, of_graph, refused, run, saved

v1 = tf.compat.v1


def _calls(*pairs: tuple[str, str]) -> GraphDef:
    """A library in which the first of each pair calls the second."""
    graph_def = GraphDef()
    functions = {}
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        functions[name] = graph_def.library.function.add()
        functions[name].signature.name = name
    for caller, callee in pairs:
        call = functions[caller].node_def.add(name="call", op="PartitionedCall")
        call.attr["f"].func.name = callee
        call.attr["Tin"].list.SetInParent()
        call.attr["Tout"].list.SetInParent()
    return graph_def


def _body() -> GraphDef:
    """A function with a product and a constant."""
    with tf.Graph().as_default() as graph:
        tf.function(lambda a: tf.matmul(a, a) + tf.constant(2.0))(tf.zeros([2, 2]))
    return graph.as_graph_def()


def _node(graph_def: GraphDef, op: str) -> NodeDef:
    (function,) = graph_def.library.function
    return next(node for node in function.node_def if node.op == op)


def _constant(*sizes: int) -> NodeDef:
    node = NodeDef(name="c", op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = node.attr["dtype"].type = DT_FLOAT
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    return node


def _add(graph_def: GraphDef, op: str, *inputs: str, **attributes: int) -> None:
    node = graph_def.node.add(name="n", op=op, input=inputs)
    for name, value in attributes.items():
        node.attr[name].i = value


MOST, BEYOND = 2**31 - 1, "zeros:9223372036854775807"


def _of_another_dtype(graph_def: GraphDef) -> None:
    _node(graph_def, "Const").attr["value"].tensor.dtype = DT_INT32


def _of_another_type(graph_def: GraphDef) -> None:
    _node(graph_def, "MatMul").attr["transpose_b"].list.SetInParent()


def _of_a_large_constant(graph_def: GraphDef) -> None:
    graph_def.library.function[0].node_def.append(_constant(10**12))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_of_another_dtype, "has dtype number 1 and a value of dtype number 3"),
        (_of_another_type, "the attribute transpose_b of MatMul .* is no bool"),
        (lambda g: _node(g, "MatMul").attr.pop("T"), "the attribute T of MatMul .* is no type"),
        (lambda g: _add(g, "Identity", BEYOND), f"node n has the input {BEYOND}"),
        (lambda g: _add(g, "Merge", "zeros", "^zeros", N=MOST), f"1 inputs, where it says {MOST}"),
        (lambda g: _add(g, "RefMerge", "zeros", N=2), "1 inputs, where it says 2"),
        (lambda g: _add(g, "AsString", "zeros", width=MOST), f"width {MOST}"),
        (_of_a_large_constant, r"the constant c of shape \[10+\], its constants take more than"),
    ],
    ids=["dtype", "type", "no type", "output", "Merge", "RefMerge", "AsString", "constant"],
)
def test_what_ends_the_process_or_takes_its_memory(
    damage: Callable[[GraphDef], object], said: str
) -> None:
    graph_def = _body()
    check_well_formed(graph_def, "m.meta")
    damage(graph_def)
    with refused(f"m.meta is .*{said}"):
        check_well_formed(graph_def, "m.meta")


@pytest.mark.parametrize("pairs", [[("f", "f")], [("f", "g"), ("g", "h"), ("h", "g")]])
def test_functions_that_call_themselves(pairs: list[tuple[str, str]]) -> None:
    with refused(r"its function \w calls \w"):
        check_well_formed(_calls(*pairs), "m.meta")


def test_calls_that_are_too_deep_or_too_many() -> None:
    chain = [(f"f{i}", f"f{i + 1}") for i in range(5000)]
    check_well_formed(_calls(*chain[:50]), "m.meta")
    with refused("101 deep"):
        check_well_formed(_calls(*chain), "m.meta")
    check_well_formed(_calls(*chain[:10], *chain[:10]), "m.meta")
    with refused(r"1\d{6} nodes"):
        check_well_formed(_calls(*chain[:40], *chain[:40]), "m.meta")


@pytest.mark.parametrize(
    ("op", "dtype", "size"),
    [
        ("HostConst", tf.float32, 1 << 29),
        ("Const", tf.complex128, 1 << 27),
        ("Const", tf.string, 1 << 28),
        ("Const", tf.uint8, (1 << 30) + 1),
    ],
)
def test_constants_are_counted_as_they_lie_in_memory(op: str, dtype: tf.DType, size: int) -> None:
    def constant(size: int) -> GraphDef:
        node = _constant(size)
        node.op = op
        node.attr["dtype"].type = dtype.as_datatype_enum
        node.attr["value"].tensor.dtype = dtype.as_datatype_enum
        return GraphDef(node=[node])

    check_well_formed(constant(size // 2), "m.meta")
    with refused("its constants take more than 1024 MiB"):
        check_well_formed(constant(size), "m.meta")


@pytest.mark.parametrize("sizes", [[], [0, 1 << 62], [-1], [1 << 28], [3]])
def test_constants_of_sizes_that_can_be_held_pass(sizes: list[int]) -> None:
    check_well_formed(GraphDef(node=[_constant(*sizes)]), "m.meta")


def test_what_the_file_holds_of_a_constant_is_not_counted() -> None:
    node = _constant(1 << 28)
    node.attr["value"].tensor.tensor_content = bytes(100)
    check_well_formed(GraphDef(node=[node, _constant(25)]), "m.meta")
    with refused(r"the constant c of shape \[26\]"):
        check_well_formed(GraphDef(node=[node, _constant(26)]), "m.meta")


def test_only_what_is_needed_is_looked_at(tmp_path: Path) -> None:
    meta = saved(tmp_path, lambda: v1.placeholder(tf.float32, [None], name="x") * 2.0)
    meta.proto.graph_def.node.append(_constant(10**12))
    run(meta, ["mul:0"], {"x:0": np.ones(1, np.float32)})
    with refused("the constant c"):
        load_inference_graph(meta, ["c:0"])


def _harmful(target: Path) -> MetaGraphFile:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        tf.matmul(x, tf.ones([3, 2]), name="y")
        tf.raw_ops.DebugIdentityV2(
            input=tf.constant(1.0), debug_urls=[f"file://{target}"], name="writes"
        )

    return of_graph(build)


def test_a_disarmed_graph_has_the_static_shapes_and_what_is_refused_cannot_run(
    tmp_path: Path,
) -> None:
    meta = _harmful(tmp_path)
    graph = disarmed_graph(meta, ["y:0"])
    assert graph.get_tensor_by_name("y:0").shape.as_list() == [None, 2]
    assert [op.name for op in graph.get_operations()] == ["x", "ones", "y"]
    graph = disarmed_graph(meta, ["writes:0"])
    with v1.Session(graph=graph) as session, pytest.raises(tf.errors.InvalidArgumentError):
        session.run("writes:0")
    assert list(tmp_path.iterdir()) == []


# Graphs that old tools froze: constants where references and handles to variables are taken.


def _loop(w: Any) -> Any:
    """A loop over a reference, which each of three rounds adds one to."""
    raw = tf.raw_ops
    count, first = raw.Enter(data=0, frame_name="f"), raw.RefEnter(data=w, frame_name="f")
    # What comes round is not there yet: it is put in below.
    merged, taken = raw.Merge(inputs=[count, count]), raw.RefMerge(inputs=[first, first])
    with tf.control_dependencies([merged.output]):  # Constants of the loop, not of before it.
        going = raw.LoopCond(input=merged.output < 3)
    count = raw.Switch(data=merged.output, pred=going)
    value = raw.RefSwitch(data=taken.output, pred=going)
    with tf.control_dependencies([count.output_true]):
        again = raw.NextIteration(data=count.output_true + 1)
        added = raw.AssignAdd(ref=value.output_true, value=[1.0, 1.0])
    merged.output.op._update_input(1, again)
    taken.output.op._update_input(1, raw.RefNextIteration(data=added))
    return raw.RefExit(data=value.output_false)


def _both_ways(w: Any) -> Any:
    """A conditional, one of whose branches writes."""
    on = v1.placeholder_with_default(False, [], "on")
    return tf.cond(on, lambda: tf.identity(v1.assign_sub(w, [1.0, 3.0])), lambda: tf.identity(w))


OF_REFERENCES: dict[str, Callable[[Any], Any]] = {
    "ref assign": lambda w: v1.assign(w, [4.0, 5.0]),
    "ref assign_add": lambda w: v1.assign_add(w, [4.0, 5.0]),
    "ref assign_sub": lambda w: v1.assign_sub(w, [4.0, 5.0]),
    "ref identity": lambda w: tf.raw_ops.RefIdentity(input=w),
    "ref rows": lambda w: v1.scatter_update(w, [[1]], [[7.0]]),
    "ref added rows": lambda w: v1.scatter_add(w, [1, 1], [7.0, 1.0]),
    "ref points": lambda w: tf.raw_ops.ScatterNdSub(ref=w, indices=[[1]], updates=[7.0]),
    "ref loop": _loop,
    "ref both ways": _both_ways,
    "resource both ways": lambda w: tf.cond(
        v1.placeholder_with_default(False, [], "on"), lambda: w.read_value() * 2, w.read_value
    ),
    "resource rows": lambda w: tf.gather(w, [1, 0]),
}


@pytest.mark.parametrize("name", OF_REFERENCES)
def test_constants_in_place_of_variables_are_taken_by_value(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="absl")
    with control_flow(new=False), tf.Graph().as_default() as graph, v1.Session() as session:
        w = v1.get_variable("w", initializer=[1.0, 2.0], use_resource="resource" in name)
        tf.identity(OF_REFERENCES[name](w), name="y")
        session.run(v1.global_variables_initializer())
        values = {v.op.name: session.run(v) for v in v1.global_variables()}
        feeds = [{"on:0": on} for on in (False, True)] if "ways" in name else [{}]
        expected = [session.run("y:0", fed) for fed in feeds]
        frozen = v1.graph_util.extract_sub_graph(graph.as_graph_def(), ["y"])
    for node in frozen.node:
        if node.name in values:
            value, own = tf.make_tensor_proto(values[node.name]), node.name
            node.CopyFrom(NodeDef(name=own, op="Const"))
            node.attr["dtype"].type = value.dtype
            node.attr["value"].tensor.CopyFrom(value)
    with pytest.raises(ValueError, match=r"expected|_ref"), tf.Graph().as_default():
        tf.import_graph_def(frozen)
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    meta = open_model(f"{tmp_path}/frozen.pb")
    assert "has constants for variables, which" in caplog.text
    for fed, value in zip(feeds, expected, strict=True):
        np.testing.assert_array_equal(run(meta, ["y:0"], fed)[0], value)


def test_of_two_nodes_of_one_name_each_is_what_it_is() -> None:
    """The names of a damaged graph need not tell its nodes apart."""
    graph_def = GraphDef(
        node=[
            NodeDef(name="c", op="Const"),
            NodeDef(name="a", op="RefIdentity", input=["c"]),
            NodeDef(name="a", op="RestoreV2"),
        ]
    )
    assert take_by_value(graph_def) == ["a"]
    assert [node.op for node in graph_def.node] == ["Const", "Identity", "RestoreV2"]


def test_references_to_variables_stay() -> None:
    def build() -> None:
        w = v1.get_variable("w", initializer=[1.0, 2.0], use_resource=False)
        _loop(w)
        v1.scatter_add(w, [1], [7.0])

    meta = of_graph(build)
    before = meta.proto.SerializeToString(deterministic=True)
    assert take_by_value(meta.proto.graph_def) == []
    assert meta.proto.SerializeToString(deterministic=True) == before
