"""Counting fields before parsing, against the parsed message."""

import pytest
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.parsing import has_more_fields


@pytest.fixture
def graph() -> GraphDef:
    """Fields: 2 nodes; of the first, name, op, attr with key, value, tensor, content: 10."""
    graph = GraphDef()
    node = graph.node.add(name="a" * 300, op="Const")
    node.attr["value"].tensor.tensor_content = b"\x0a\0" * 500  # It is no message.
    graph.node.add(name="b")
    return graph


def test_each_field_at_all_depths_counts(graph: GraphDef) -> None:
    content = graph.SerializeToString()
    assert has_more_fields(content, GraphDef.DESCRIPTOR, 9)
    assert not has_more_fields(content, GraphDef.DESCRIPTOR, 10)


def test_numbers_of_all_kinds_are_stepped_over() -> None:
    node = NodeDef()
    node.attr["f"].f = 1.0
    node.attr["i"].i = -1
    node.attr["l"].list.b.extend([True] * 1000)
    content = node.SerializeToString() + b"\x99\x3f" + bytes(8)  # An unknown field of 64 bits.
    assert has_more_fields(content, NodeDef.DESCRIPTOR, 13)
    assert not has_more_fields(content, NodeDef.DESCRIPTOR, 14)


@pytest.mark.parametrize("content", [b"\xff" * 50, b"\x0a\xff\xff\xff\x7f" * 9, b"\x0b" * 50])
def test_what_is_no_message_ends(content: bytes) -> None:
    assert not has_more_fields(content, GraphDef.DESCRIPTOR, 20)
