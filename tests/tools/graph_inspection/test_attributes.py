"""Attributes are decoded; of a constant only the first values, whatever its shape says."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.tensor_pb2 import TensorProto

from tools.graph_subject import attribute_text, attribute_value


def _list(**fields: list[Any]) -> AttrValue:
    return AttrValue(list=AttrValue.ListValue(**fields))


def _shape(*sizes: int) -> Any:
    return tf.TensorShape([None if s < 0 else s for s in sizes]).as_proto()


@pytest.mark.parametrize(
    ("value", "plain", "text"),
    [
        (AttrValue(s=b"NHWC"), "NHWC", "NHWC"),
        (AttrValue(s=b"\xff"), "\\xff", "\\xff"),
        (AttrValue(i=-3), -3, "-3"),
        (AttrValue(f=0.5), 0.5, "0.5"),
        (AttrValue(f=float("nan")), "nan", "nan"),
        (AttrValue(b=True), True, "true"),
        (AttrValue(type=1), "float32", "float32"),
        (AttrValue(type=101), "float32_ref", "float32_ref"),
        (AttrValue(type=99), "dtype 99", "dtype 99"),
        (AttrValue(shape=_shape(-1, 3)), [None, 3], "[?, 3]"),
        (AttrValue(shape=tf.TensorShape(None).as_proto()), None, "?"),
        (AttrValue(placeholder="T"), {"placeholder": "T"}, "as the caller's T"),
        (AttrValue(), None, "?"),
        (_list(i=[1, 2, 2, 1]), [1, 2, 2, 1], "[1, 2, 2, 1]"),
        (_list(type=[1, 9]), ["float32", "int64"], "[float32, int64]"),
        (_list(shape=[_shape(2), _shape(-1)]), [[2], [None]], "[[2], [?]]"),
        (_list(s=[b"a", b"b"]), ["a", "b"], "[a, b]"),
        (_list(), [], "[]"),
    ],
    ids=str.split(
        "text bytes int float nan bool dtype ref unknown_dtype shape no_rank placeholder nothing "
        "ints dtypes shapes texts empty"
    ),
)
def test_attributes_are_decoded(value: AttrValue, plain: Any, text: str) -> None:
    assert attribute_value(value) == plain
    assert attribute_text(plain) == text


def test_a_function_has_its_name_and_attributes() -> None:
    value = AttrValue()
    value.func.name = "body"
    value.func.attr["T"].type = 1
    found = attribute_value(value)
    assert found == {"function": "body", "attributes": {"T": "float32"}}
    assert attribute_text(found) == "body(T=float32)"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
        np.arange(3, dtype=np.int64) - 1,
        np.array([True, False]),
        np.array([b"one", b"two"], object),
        np.float64(2.5),
        np.zeros([0, 3], np.float16),
        np.array([1 + 2j, 3j], np.complex64),
        np.array([1.5, 2.5], ml_dtypes.bfloat16),
        np.array([1.5, np.inf], np.float32),
    ],
    ids=str.split("float int bool string scalar empty complex bfloat16 infinite"),
)
def test_the_first_values_of_a_constant(array: Any) -> None:
    found = attribute_value(AttrValue(tensor=tf.make_tensor_proto(array)))
    assert found["shape"] == list(array.shape)
    assert found["dtype"] == tf.as_dtype(array.dtype).name
    expected = np.asarray(array).reshape(-1)[:8]
    if array.dtype.kind == "O":
        assert found["values"] == [value.decode() for value in expected]
    elif array.dtype.kind == "c":
        assert found["values"] == [str(value) for value in expected]
    else:
        assert [float(value) for value in found["values"]] == [float(x) for x in expected]


def test_equal_values_are_held_once() -> None:
    tensor = TensorProto(dtype=1, float_val=[1.0, 2.0], tensor_shape=_shape(1000))
    found = attribute_value(AttrValue(tensor=tensor))
    assert found["values"] == [1.0] + [2.0] * 7
    assert attribute_text(found).startswith("float32 [1000] = 1.0, 2.0, 2.0,")
    assert attribute_text(found).endswith("2.0, ...")


def test_a_hostile_shape_takes_no_memory() -> None:
    tensor = TensorProto(dtype=1, float_val=[3.0], tensor_shape=_shape(2**40, 2**20))
    assert attribute_value(AttrValue(tensor=tensor))["values"] == [3.0] * 8


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(dtype=1, tensor_content=b"\0", tensor_shape=_shape(4)),
        TensorProto(dtype=99, tensor_content=b"\0" * 16, tensor_shape=_shape(4)),
        TensorProto(dtype=20, tensor_shape=_shape(4)),
    ],
    ids=["too few bytes", "no such dtype", "a resource"],
)
def test_a_damaged_constant_is_said_to_be(tensor: TensorProto) -> None:
    found = attribute_value(AttrValue(tensor=tensor))
    assert found["values"] is None
    assert attribute_text(found).endswith("which cannot be read")


def test_a_negative_size_is_damage() -> None:
    tensor = TensorProto(dtype=1, float_val=[1.0])
    tensor.tensor_shape.dim.add().size = -5
    assert attribute_value(AttrValue(tensor=tensor))["values"] is None


def test_a_long_attribute_is_cut() -> None:
    text = attribute_text("x" * 5000)
    assert text == "x" * 2000 + "... (3000 characters more)"
