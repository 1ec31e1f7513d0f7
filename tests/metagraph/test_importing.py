"""What is refused before an import, as a stock client would crash on it; looking without a run."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT32
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError
from metagraph.importing import check_well_formed, declared, disarmed_graph
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.session import load_inference_graph
from tests.prediction import stock

v1 = tf.compat.v1


def _calls(*pairs: tuple[str, str]) -> GraphDef:
    """A library in which the first of each pair calls the second."""
    graph_def = GraphDef()
    names = dict.fromkeys(name for pair in pairs for name in pair)
    functions = {name: graph_def.library.function.add() for name in names}
    for name, function in functions.items():
        function.signature.name = name
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


def _constant_of_another_dtype(graph_def: GraphDef) -> None:
    _node(graph_def, "Const").attr["value"].tensor.dtype = DT_INT32


def _attribute_of_another_type(graph_def: GraphDef) -> None:
    _node(graph_def, "MatMul").attr["transpose_b"].list.SetInParent()


def _attribute_missing(graph_def: GraphDef) -> None:
    del _node(graph_def, "MatMul").attr["T"]


def _output_of_a_number_beyond_all(graph_def: GraphDef) -> None:
    graph_def.node.add(name="a", op="Identity", input=["zeros:9223372036854775807"])


def _merge_of_more_than_there_are(graph_def: GraphDef) -> None:
    graph_def.node.add(name="m", op="Merge", input=["zeros", "^zeros"]).attr["N"].i = 2**31 - 1


def _text_beyond_all(graph_def: GraphDef) -> None:
    graph_def.node.add(name="t", op="AsString", input=["zeros"]).attr["width"].i = 2**31 - 1


def _constant_beyond_all(graph_def: GraphDef) -> None:
    graph_def.library.function[0].node_def.append(_constant(10**12))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_constant_of_another_dtype, "has dtype number 1 and a value of dtype number 3"),
        (_attribute_of_another_type, "the attribute transpose_b of MatMul .* is no bool"),
        (_attribute_missing, "the attribute T of MatMul .* is no type"),
        (_output_of_a_number_beyond_all, "node a has the input zeros:9223372036854775807"),
        (_merge_of_more_than_there_are, "1 inputs, where it says 2147483647"),
        (_text_beyond_all, "width 2147483647"),
        (_constant_beyond_all, r"the constant c of shape \[10+\], its constants take more than"),
    ],
)
def test_what_ends_the_process_or_takes_its_memory(
    damage: Callable[[GraphDef], None], said: str
) -> None:
    graph_def = _body()
    check_well_formed(graph_def, "m.meta")
    damage(graph_def)
    with pytest.raises(CheckpointError, match=f"m.meta is .*{said}"):
        check_well_formed(graph_def, "m.meta")


@pytest.mark.parametrize("pairs", [[("f", "f")], [("f", "g"), ("g", "h"), ("h", "g")]])
def test_functions_that_call_themselves(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(CheckpointError, match=r"its function \w calls \w"):
        check_well_formed(_calls(*pairs), "m.meta")


def test_calls_that_are_too_deep_or_too_many() -> None:
    chain = [(f"f{i}", f"f{i + 1}") for i in range(5000)]
    check_well_formed(_calls(*chain[:50]), "m.meta")
    with pytest.raises(CheckpointError, match="101 deep"):
        check_well_formed(_calls(*chain), "m.meta")
    check_well_formed(_calls(*chain[:10], *chain[:10]), "m.meta")
    with pytest.raises(CheckpointError, match=r"1\d{6} nodes"):
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
    with pytest.raises(CheckpointError, match="its constants take more than 1024 MiB"):
        check_well_formed(constant(size), "m.meta")


@pytest.mark.parametrize("sizes", [[], [0, 1 << 62], [-1], [1 << 28], [3]])
def test_constants_of_sizes_that_can_be_held_pass(sizes: list[int]) -> None:
    check_well_formed(GraphDef(node=[_constant(*sizes)]), "m.meta")


def test_what_the_file_holds_of_a_constant_is_not_counted() -> None:
    node = _constant(1 << 28)
    node.attr["value"].tensor.tensor_content = bytes(100)
    check_well_formed(GraphDef(node=[node, _constant(25)]), "m.meta")
    with pytest.raises(CheckpointError, match=r"the constant c of shape \[26\]"):
        check_well_formed(GraphDef(node=[node, _constant(26)]), "m.meta")


def test_only_what_is_needed_is_looked_at(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", initializer=np.float32(1), use_resource=False)
        tf.identity(v1.placeholder(tf.float32, [None], name="x") * 2.0, name="y")
    stock.edit_meta(
        tmp_path / "m.meta", lambda proto: proto.graph_def.node.append(_constant(10**12))
    )
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    load_inference_graph(meta, ["y:0"], ["x:0"]).close()
    with pytest.raises(CheckpointError, match="the constant c"):
        load_inference_graph(meta, ["c:0"])


def _harmful(target: Path) -> MetaGraphFile:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        tf.matmul(x, tf.ones([3, 2]), name="y")
        tf.raw_ops.DebugIdentityV2(
            input=tf.constant(1.0), debug_urls=[f"file://{target}"], name="writes"
        )
        return MetaGraphFile("m.meta", "m", v1.train.export_meta_graph(graph=graph))


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


def test_what_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    meta = _harmful(tmp_path)
    meta.nodes["y"].op = "NoSuchOperation"
    with pytest.raises(CheckpointError, match=r"m\.meta cannot be imported: .*NoSuchOperation"):
        disarmed_graph(meta, ["y:0"])


# What a file itself says of its tensors, compared with what TensorFlow had inferred.


@pytest.fixture(scope="module")
def graph() -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        tf.split(x, 2, axis=1, name="halves")  # As many outputs as a number says.
        tf.unique(tf.constant([3, 3]), name="unique")  # Of two dtypes.
        v1.placeholder(tf.int64, name="anything")
        tf.raw_ops.IdentityN(input=[x, tf.constant(True)], name="both")  # Of a list of dtypes.
        v1.get_variable("w", [2, 3], tf.float64, use_resource=False)  # A reference.
    return graph


def _declaring(graph: tf.Graph, shapes: bool = True) -> MetaGraphFile:
    with graph.as_default():
        proto = v1.train.export_meta_graph(graph=graph)
    proto.graph_def.CopyFrom(graph.as_graph_def(add_shapes=shapes))
    return MetaGraphFile("m.meta", "m", proto)


def test_what_is_declared_is_what_was_inferred(graph: tf.Graph) -> None:
    names = ("x:0", "halves:0", "halves:1", "unique:0", "unique:1", "anything:0", "both:1", "w:0")
    for name in names:
        tensor = graph.get_tensor_by_name(name)
        found = declared(_declaring(graph), name)
        assert found is not None
        assert found[0] == tensor.dtype.base_dtype
        assert str(found[1]) == str(tensor.shape)
    without = declared(_declaring(graph, shapes=False), "halves:1")
    assert without is not None
    assert (without[0], without[1].rank) == (tf.float32, None)
    assert declared(_declaring(graph), "halves:2") is None


def _foreign(output: Mapping[str, object]) -> tuple[MetaGraphFile, NodeDef]:
    """A node of an operation that only the file defines, with such an output; none without."""
    proto = MetaGraphDef()
    node = proto.graph_def.node.add(name="n", op="Foreign")
    if output:
        definition = proto.meta_info_def.stripped_op_list.op.add(name="Foreign")
        definition.output_arg.add(name="out", **output)
    return MetaGraphFile("m.meta", "m", proto), node


@pytest.mark.parametrize(("count", "found"), [(2**60, True), (0, False), (-5, False)])
def test_a_hostile_number_of_outputs_costs_no_memory(count: int, found: bool) -> None:
    meta, node = _foreign({"type": DT_INT32, "number_attr": "N"})
    node.attr["N"].i = count
    assert declared(meta, "n:999999999") is None
    assert (declared(meta, "n:0") is not None) == found


def test_what_is_not_defined_or_has_no_dtype_is_nothing() -> None:
    assert declared(_foreign({})[0], "n:0") is None
    meta, node = _foreign({"type_attr": "T"})
    node.attr["T"].type = 9999
    assert declared(meta, "n:0") is None
