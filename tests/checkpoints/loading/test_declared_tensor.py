"""What a file itself says of its tensors, compared with what TensorFlow had inferred."""

import pytest
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.importing import declared
from metagraph.meta import MetaGraphFile

v1 = tf.compat.v1


@pytest.fixture
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


def _meta(graph: tf.Graph) -> MetaGraphFile:
    with graph.as_default():
        proto = v1.train.export_meta_graph(graph=graph)
    proto.graph_def.CopyFrom(graph.as_graph_def(add_shapes=True))
    return MetaGraphFile("m.meta", "m", proto)


NAMES = ("x:0", "halves:0", "halves:1", "unique:0", "unique:1", "anything:0", "both:1", "w:0")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_was_inferred(graph: tf.Graph, name: str) -> None:
    tensor = graph.get_tensor_by_name(name)
    found = declared(_meta(graph), name)
    assert found is not None
    assert found[0] == tensor.dtype.base_dtype
    assert found[1].rank == tensor.shape.rank
    assert found[1].rank is None or found[1].as_list() == tensor.shape.as_list()


def test_without_shapes_the_dtype_is_known(graph: tf.Graph) -> None:
    meta = _meta(graph)
    for node in meta.proto.graph_def.node:
        node.attr.pop("_output_shapes", None)
    found = declared(meta, "halves:1")
    assert found is not None
    assert (found[0], found[1].rank) == (tf.float32, None)


def test_an_output_that_is_not_there_has_nothing(graph: tf.Graph) -> None:
    assert declared(_meta(graph), "halves:2") is None


def _node(op: str) -> tuple[MetaGraphFile, NodeDef]:
    """A node of an operation of which the file has no definition."""
    proto = MetaGraphDef()
    node = proto.graph_def.node.add(name="n", op=op)
    return MetaGraphFile("m.meta", "m", proto), node


def test_an_operation_that_the_file_does_not_define_has_nothing() -> None:
    assert declared(_node("Foreign")[0], "n:0") is None


@pytest.mark.parametrize(("count", "found"), [(2**60, True), (0, False), (-5, False)])
def test_a_hostile_number_of_outputs_costs_no_memory(count: int, found: bool) -> None:
    meta, node = _node("Foreign")
    definition = meta.proto.meta_info_def.stripped_op_list.op.add(name="Foreign")
    definition.output_arg.add(name="out", type=tf.int32.as_datatype_enum, number_attr="N")
    node.attr["N"].i = count
    assert declared(meta, "n:999999999") is None
    assert (declared(meta, "n:0") is not None) == found


def test_what_is_no_dtype_is_nothing() -> None:
    meta, node = _node("Foreign")
    definition = meta.proto.meta_info_def.stripped_op_list.op.add(name="Foreign")
    definition.output_arg.add(name="out", type_attr="T")
    node.attr["T"].type = 9999
    assert declared(meta, "n:0") is None
