"""Graphs that end the process, or never end, in a stock client: refused in a line."""

from collections.abc import Callable

import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from errors import CheckpointError
from metagraph.importing import check_well_formed

FLOAT, INT32 = 1, 3  # As numbers of types.proto.


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
        product = tf.function(lambda a: tf.matmul(a, a) + tf.constant(2.0))
        product(tf.zeros([2, 2]))
    return graph.as_graph_def()


def _node(graph_def: GraphDef, op: str) -> NodeDef:
    nodes = [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]
    return next(node for node in nodes if node.op == op)


def _constant(graph_def: GraphDef) -> None:
    _node(graph_def, "Const").attr["value"].tensor.dtype = INT32


def _attribute_of_another_type(graph_def: GraphDef) -> None:
    _node(graph_def, "MatMul").attr["transpose_b"].list.SetInParent()


def _attribute_missing(graph_def: GraphDef) -> None:
    del _node(graph_def, "MatMul").attr["T"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_constant, "has dtype number 1 and a value of dtype number 3"),
        (_attribute_of_another_type, "the attribute transpose_b of MatMul .* is no bool"),
        (_attribute_missing, "the attribute T of MatMul .* is no type"),
    ],
)
def test_a_function_with_a_node_that_contradicts_itself(
    damage: Callable[[GraphDef], None], said: str
) -> None:
    graph_def = _body()
    check_well_formed(graph_def, "m.meta")
    damage(graph_def)
    with pytest.raises(CheckpointError, match=f"m.meta.*{said}"):
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


def test_a_merge_that_counts_its_inputs_wrong() -> None:
    graph_def = GraphDef()
    merge = graph_def.node.add(name="merge", op="Merge", input=["a", "b", "^c"])
    merge.attr["N"].i = 2
    check_well_formed(graph_def, "m.meta")
    merge.attr["N"].i = 2**31 - 1
    with pytest.raises(CheckpointError, match="merge has 2 inputs, where it says 2147483647"):
        check_well_formed(graph_def, "m.meta")


def test_a_text_of_gigabytes_a_number() -> None:
    graph_def = GraphDef()
    node = graph_def.node.add(name="text", op="AsString", input=["a"])
    node.attr["width"].i = 12
    check_well_formed(graph_def, "m.meta")
    node.attr["width"].i = 2**31 - 1
    with pytest.raises(CheckpointError, match="text has width"):
        check_well_formed(graph_def, "m.meta")


def test_a_queue_that_is_asked_for_a_list_of_numbers() -> None:
    with tf.Graph().as_default() as graph:
        queue = tf.compat.v1.FIFOQueue(4, [tf.float32], shapes=[[2]])
        queue.dequeue_many(2)
    graph_def = graph.as_graph_def()
    check_well_formed(graph_def, "m.meta")
    _node(graph_def, "Const").attr["value"].tensor.tensor_shape.dim.add(size=0)
    with pytest.raises(CheckpointError, match="is no single number"):
        check_well_formed(graph_def, "m.meta")


@pytest.mark.parametrize("number", [2**31, 2**63 - 1, 10**30])
def test_an_output_of_a_number_that_no_operation_has(number: int) -> None:
    graph_def = GraphDef()
    graph_def.node.add(name="1234567890", op="NoOp")
    graph_def.node.add(name="a", op="Identity", input=["1234567890"])
    check_well_formed(graph_def, "m.meta")
    graph_def.node[1].input[0] = f"1234567890:{number}"
    with pytest.raises(CheckpointError, match=f"node a has the input 1234567890:{number}"):
        check_well_formed(graph_def, "m.meta")


@pytest.mark.parametrize("in_function", [False, True])
@pytest.mark.parametrize(
    ("op", "attribute", "inputs"),
    [("ConcatV2", "N", ["a", "b", "axis"]), ("Pack", "N", ["a"]), ("Unpack", "num", ["a"])],
)
def test_more_inputs_or_outputs_than_there_can_be(
    op: str, attribute: str, inputs: list[str], in_function: bool
) -> None:
    """TensorFlow fills its memory with a list of two milliards of them before it counts."""
    graph_def = GraphDef()
    function = graph_def.library.function.add()
    function.signature.name = "called"
    nodes = function.node_def if in_function else graph_def.node
    node = nodes.add(name="many", op=op, input=inputs)
    for name in ("T", "Tidx"):
        node.attr[name].type = FLOAT if name == "T" else INT32
    node.attr["axis"].i = 0
    node.attr[attribute].i = len(inputs)
    check_well_formed(graph_def, "m.meta")
    node.attr[attribute].i = 2**31 - 1
    with pytest.raises(CheckpointError, match=f"node many has {attribute} = 2147483647, expected"):
        check_well_formed(graph_def, "m.meta")
