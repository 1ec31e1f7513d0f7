"""Which arrays fit which tensors, told value by value; arrays as JSON."""

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from errors import PredictionError
from metagraph.description import constant, fit, json_value
from tests.metagraph.made import refused
from tests.prediction.conftest import info

GOES_OVER: list[tuple[Any, tf.DType]] = [
    (np.array([1, -2, 2**24]), tf.float32),
    (np.array([2**53]), tf.float64),
    (np.array([255], np.uint8), tf.float16),
    (np.array([200]), tf.uint8),
    (np.array([3], np.uint64), tf.int32),
    (np.array([1.5, np.nan, -np.inf]), tf.float32),
    (np.array([1.5], ">f4"), tf.float32),
    (np.array([1.5 - 2j]), tf.complex64),
    (np.array([1.5, -np.inf]), tf.complex64),
    (np.array([0.1], np.float32), tf.complex128),
    (np.array([2**24, -1]), tf.complex64),
    (np.array([2**31 - 1, 255], np.int32), tf.float64),
]

DOES_NOT: list[tuple[Any, tf.DType, str]] = [
    (np.array([1, 2**24 + 1]), tf.float32, "cannot hold 16777217"),
    (np.array([0, -1]), tf.uint64, "cannot hold -1"),
    (np.array([2**63], np.uint64), tf.int64, "cannot hold 9223372036854775808"),
    (np.array([2**63 - 1]), tf.float64, "cannot hold 9223372036854775807"),
    (np.array([2**31 - 1], np.int32), tf.float32, "cannot hold 2147483647"),
    (np.array([300]), tf.uint8, "cannot hold 300"),
    (np.array([1.0, 1e39]), tf.float32, "cannot hold 1e[+]39"),
    (np.array([1.0]), tf.int64, "takes int64, found float64"),
    (np.array([True]), tf.float32, "takes float32, found bool"),
    (np.array([1]), tf.bool, "takes bool, found int64"),
    (np.array(["a"]), tf.float32, "takes float32, found <U1"),
    (np.array([1 + 1j]), tf.float32, "found complex128"),
    (np.array([2**63 - 1]), tf.complex128, "cannot hold 9223372036854775807"),
    (np.array([1.0]), tf.string, "takes strings, found float64"),
]


@pytest.mark.parametrize(("value", "dtype"), GOES_OVER)
def test_what_keeps_its_meaning_goes_over(value: Any, dtype: tf.DType) -> None:
    found = fit(value, info(dtype, None), "here")
    assert found.dtype == dtype.as_numpy_dtype
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize(("value", "dtype", "message"), DOES_NOT)
def test_what_does_not_is_refused(value: Any, dtype: tf.DType, message: str) -> None:
    with refused(f"^here: t:0 .*{message}", PredictionError):
        fit(value, info(dtype, None), "here")


def test_the_right_dtype_costs_no_copy() -> None:
    value = np.zeros(3, np.float32)
    assert fit(value, info(tf.float32, None), "here") is value


def test_texts_and_bytes_become_strings() -> None:
    strings = info(tf.string, None)
    assert fit(np.array(["é", ""]), strings, "here").tolist() == [b"\xc3\xa9", b""]
    assert fit(np.array([b"ab"]), strings, "here").tolist() == [b"ab"]


@pytest.mark.parametrize(
    ("shape", "found"),
    [((None, 3), (4,)), ((None, 3), (4, 2)), ((), (1,)), ((2,), (3,)), ((None,), ())],
)
def test_another_shape_is_refused(shape: tuple[int | None, ...], found: tuple[int, ...]) -> None:
    expected = str(list(shape)).replace("None", "[?]")
    with refused(rf"here: t:0 takes float32 \{expected}, found float32 \[", PredictionError):
        fit(np.zeros(found, np.float32), info(tf.float32, *shape), "here")


def test_a_resource_cannot_be_fed() -> None:
    with refused("t:0 cannot be fed: it is a resource", PredictionError):
        fit(np.zeros(2), info(tf.resource, None), "x.npy")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]"),
        (np.array(2.5), "2.5"),
        (np.array([True, False]), "[true, false]"),
        (np.array([1.5, np.nan, np.inf, -np.inf]), '[1.5, "NaN", "Infinity", "-Infinity"]'),
        (np.array(np.float32("nan")), '"NaN"'),
        (np.array([b"a", b"\xc3\xa9", b"\xff"], object), '["a", "é", "\\\\xff"]'),
        (np.array(b"a", object), '"a"'),
        (np.zeros((0, 2), object), "[]"),
        (np.zeros((2, 0)), "[[], []]"),
        (np.array([1 + 2j]), '["(1+2j)"]'),
    ],
)
def test_json_value(array: Any, expected: str) -> None:
    assert json.dumps(json_value(array), ensure_ascii=False, allow_nan=False) == expected


def test_packed_texts_are_as_tensorflow_reads_them() -> None:
    texts = [b"a", b"", b"longer " * 40, b""]
    content = b"\x01\x00\x98\x02\x00" + b"".join(texts)
    packed = TensorProto(dtype=tf.string.as_datatype_enum, tensor_content=content)
    packed.tensor_shape.dim.add().size = 4
    found = constant(packed)
    assert found.tolist() == texts
    serialized = packed.SerializeToString()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        read = session.run(tf.io.parse_tensor(serialized, tf.string))
    assert read.tolist() == found.tolist()
    for damaged in (content[:-1], content[:3], b"\xff" * 20, b"\x81"):
        packed.tensor_content = damaged
        with pytest.raises(ValueError, match=r"cut short|too long|reshape"):
            constant(packed)


def test_float32_reads_back_to_the_bit() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    found = np.array(json.loads(json.dumps(json_value(values))), np.float32)
    assert found.tobytes() == values.tobytes()
