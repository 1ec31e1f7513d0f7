"""Reading --feed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from errors import DataError, PredictionError
from prediction.plan import Feed, feed_value, read_feeds
from tests.prediction.conftest import info

LIMIT = 10_000


def _value(text: str, dtype: tf.DType, *shape: int | None) -> Any:
    (feed,) = read_feeds([text], LIMIT)
    return feed_value(feed, info(dtype, *shape))


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("0.5", tf.float32, 0.5),
        ("3", tf.float32, 3.0),
        ("-3", tf.int64, -3),
        ("true", tf.bool, True),
        ("False", tf.bool, False),
        ("[1, 2]", tf.int32, [1, 2]),
        ("[[1, 2.5], [3, 4]]", tf.float64, [[1, 2.5], [3, 4]]),
        ("(1, 2)", tf.float32, [1, 2]),
        ("[]", tf.int64, []),
        ("[]", tf.string, []),
        ("NaN", tf.float32, np.nan),
        ("hello, world", tf.string, b"hello, world"),
        ("0.5", tf.string, b"0.5"),
        ('["a", "é"]', tf.string, [b"a", b"\xc3\xa9"]),
        ('"a b"', tf.string, b"a b"),
        ("'a'", tf.string, b"a"),
        ("'True'", tf.bool, True),
        ('"false"', tf.bool, False),
        ("TRUE", tf.bool, True),
        ("yes", tf.bool, True),
        ("off", tf.bool, False),
        ("1", tf.bool, True),
        ("[1, 0]", tf.bool, [True, False]),
        ("9223372036854775807", tf.uint64, 2**63 - 1),
        ("[18446744073709551615]", tf.uint64, [2**64 - 1]),
        ("2", tf.complex64, 2),
        ("[1, -2.5]", tf.complex128, [1, -2.5]),
        ("[1, 2+3j]", tf.complex64, [1, 2 + 3j]),
    ],
)
def test_literals(text: str, dtype: tf.DType, expected: Any) -> None:
    found = _value(f"t={text}", dtype, *[None] * np.ndim(expected))
    np.testing.assert_array_equal(found, np.array(expected, dtype.as_numpy_dtype))
    assert found.dtype == dtype.as_numpy_dtype


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.5", "takes int64, found float64"),
        ("[1, 2]", r"takes int64 \[\], found int64 \[2\]"),
        ("[[1], [2, 3]]", "differ in length"),
        ("true", "takes int64, found bool"),
        ("null", "takes a number"),
        ('{"a": 1}', "takes a number"),
        ("1e", "is no literal"),
        ("", "is no literal"),
        ("__import__('os')", "is no literal"),
        ("10000000000000000000000", "takes a number"),
        ("[" * 5000, "is no literal"),
        ("-" * 100_000 + "1", "is no literal"),
        ("1" * 200_000, "belongs into a .npy"),
    ],
)
def test_what_is_no_value_of_the_tensor_is_refused(text: str, message: str) -> None:
    with pytest.raises(PredictionError, match=message) as caught:
        _value(f"t:0={text}", tf.int64)
    assert str(caught.value).startswith("--feed t:0=")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "dtype", "message"),
    [
        ("maybe", tf.bool, "'maybe' is no literal; t:0 takes true, false, or a JSON list of them"),
        ("2", tf.bool, "takes bool, found int64; expected true or false"),
        ('"a', tf.string, "is no literal; t:0 takes a text, or a JSON list of texts in quotes"),
        ('["1", 2.5', tf.string, "is no literal; t:0 takes a text"),
        ("[1]", tf.string, "takes a text, or a JSON list of texts in quotes; found int64"),
        ("'3'", tf.float32, r"takes a number \(float32\), .*; found a text in quotes"),
        (r"'\d'", tf.float32, "found a text in quotes"),
        ("[1, 70000]", tf.float16, "float16, which cannot hold 70000: .* from -65504 to 65504"),
        ("1e39", tf.float32, r"cannot hold 1e\+39: it has numbers from -3.40282e\+38 to"),
        ("16777217", tf.float32, "cannot hold 16777217 exactly"),
        ("[1, 300]", tf.uint8, "cannot hold 300: it has whole numbers from 0 to 255"),
        ("-1", tf.uint64, "cannot hold -1: it has whole numbers from 0 to 18446744073709551615"),
        ("[1, 1.5]", tf.int8, r"takes int8, found float64 \(such as 1.5\); .* from -128 to 127"),
        ("[NaN, 1]", tf.int8, r"found float64 \(such as nan\); expected whole numbers"),
        ("1.0", tf.int8, r"found float64 \(such as 1.0\); expected whole numbers .* as integers"),
    ],
)
def test_what_is_expected_is_said(text: str, dtype: tf.DType, message: str) -> None:
    rank = 1 if text.startswith("[") else 0
    with pytest.raises(PredictionError, match=message) as caught:
        _value(f"t={text}", dtype, *[None] * rank)
    assert "\n" not in str(caught.value)


def test_a_npy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a=b.npy", np.arange(3))
    np.testing.assert_array_equal(_value(f"t={tmp_path}/a=b.npy", tf.float32, None), [0, 1, 2])


def test_a_npz_file_feeds_each_of_its_tensors(tmp_path: Path) -> None:
    arrays = {"a/b:0": np.arange(3), "c:1": np.ones(2)}
    np.savez(tmp_path / "f.npz", **arrays)  # type: ignore[arg-type]
    feeds = read_feeds([f"{tmp_path}/f.npz", "t=1"], LIMIT)
    assert [feed.name for feed in feeds] == ["a/b:0", "c:1", "t"]
    np.testing.assert_array_equal(feeds[0].value, arrays["a/b:0"])


@pytest.mark.parametrize("text", ["t", "=1", "  =1"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(
        PredictionError, match=r"expected name=file\.npy, name=literal or file\.npz"
    ):
        read_feeds([text], LIMIT)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}]))
    np.save(tmp_path / "large.npy", np.zeros(LIMIT))
    for name, message in [
        ("absent.npy", "absent.npy"),
        ("objects.npy", "never unpickled"),
        ("large.npy", "at most 10,000"),
    ]:
        with pytest.raises(DataError, match=message):
            read_feeds([f"t={tmp_path}/{name}"], LIMIT)
    with pytest.raises(DataError, match=r"absent\.npz"):
        read_feeds([f"{tmp_path}/absent.npz"], LIMIT)


def test_a_value_along_with_the_rows_may_be_longer_than_a_batch() -> None:
    fixed = info(tf.float32, 4)
    values = np.arange(10, dtype=np.float32)
    assert feed_value(Feed("t", "here", values), fixed, num_rows=10) is values
    for num_rows in (None, 9):
        with pytest.raises(PredictionError, match=r"takes float32 \[4\], found float32 \[10\]"):
            feed_value(Feed("t", "here", values), fixed, num_rows)
