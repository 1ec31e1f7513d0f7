"""Texts of constants, compared with what TensorFlow says that they are."""

import pytest
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.graph import text_at


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


def test_a_hostile_shape_costs_no_memory() -> None:
    node = _const(b"a", b"b", shape=(2**40, 2**20))
    assert text_at(node, 2**59) == "b"


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


def test_numbers_are_no_texts() -> None:
    node = _const(b"a", shape=())
    node.attr["value"].tensor.dtype = tf.int32.as_datatype_enum
    assert text_at(node, 0) is None
