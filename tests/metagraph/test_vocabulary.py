"""Vocabulary files, read as TensorFlow's own text initializer reads them."""

from pathlib import Path

import pytest
import tensorflow as tf

from errors import CheckpointError
from metagraph import tables
from metagraph.tables import TextFormat, read_vocabulary

v1 = tf.compat.v1

WHOLE, NUMBER = -2, -1


def _stock(
    path: Path, text: TextFormat, key_dtype: tf.DType, value_dtype: tf.DType
) -> dict[object, object]:
    """What a table holds that TensorFlow has filled from the file."""
    with tf.Graph().as_default(), v1.Session() as session:
        table = tf.raw_ops.HashTableV2(key_dtype=key_dtype, value_dtype=value_dtype)
        fill = tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=str(path), **text._asdict()
        )
        session.run(fill)
        exported = tf.raw_ops.LookupTableExportV2(
            table_handle=table, Tkeys=key_dtype, Tvalues=value_dtype
        )
        keys, values = session.run(exported)
        return dict(zip(keys.tolist(), values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("content", "text", "key_dtype", "value_dtype"),
    [
        (b"a\nb\nc\n", TextFormat(WHOLE, NUMBER), tf.string, tf.int64),
        (b"a\r\nb\r\nc", TextFormat(WHOLE, NUMBER), tf.string, tf.int64),
        (b"a\nb\nc\n", TextFormat(NUMBER, WHOLE, 2), tf.int64, tf.string),
        (b"a\nb\n", TextFormat(WHOLE, NUMBER, offset=5), tf.string, tf.int64),
        (b"x\t1\ny\t-22\n", TextFormat(0, 1), tf.string, tf.int64),
        (b"x,1.5,p q\ny,2,\n", TextFormat(2, 1, delimiter=","), tf.string, tf.float32),
        (b"7 a\n8 b\n", TextFormat(0, 1, delimiter=" "), tf.int64, tf.string),
        (b"\xff\xfe \xc3\xa9\n", TextFormat(WHOLE, NUMBER), tf.string, tf.int64),
    ],
)
def test_keys_and_values_are_those_of_tensorflow(
    tmp_path: Path, content: bytes, text: TextFormat, key_dtype: tf.DType, value_dtype: tf.DType
) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    keys, values = read_vocabulary(str(path), text, key_dtype, value_dtype)
    assert (keys.dtype, values.dtype) == (key_dtype.as_numpy_dtype, value_dtype.as_numpy_dtype)
    found = dict(zip(keys.tolist(), values.tolist(), strict=True))
    assert found == _stock(path, text, key_dtype, value_dtype)


@pytest.mark.parametrize("content", [b"", b"\r\r"])
def test_an_empty_file_is_refused_as_tensorflow_refuses_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    text = TextFormat(WHOLE, NUMBER)
    if not content:
        with pytest.raises(tf.errors.OpError):
            _stock(path, text, tf.string, tf.int64)
    with pytest.raises(CheckpointError, match=r"vocabulary\.txt is empty: .* at least one line"):
        read_vocabulary(str(path), text, tf.string, tf.int64)


def test_a_pointer_to_a_file_is_no_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        read_vocabulary(str(path), TextFormat(WHOLE, NUMBER), tf.string, tf.int64)


@pytest.mark.parametrize(
    ("content", "text", "message"),
    [
        (b"a\n\nb\n", TextFormat(WHOLE, NUMBER), r"line 2: it is empty"),
        (b"a\n", TextFormat(WHOLE, NUMBER, 2), r"has 1 lines, its table is made for 2"),
        (b"a\t1\nb\n", TextFormat(0, 1), r"line 2: expected int64 in column 1 .* found b'b'"),
        (b"a\tx\n", TextFormat(0, 1), r"line 1: expected int64 in column 1"),
        (b"a\t99999999999999999999\n", TextFormat(0, 1), r"line 1: expected int64"),
        (b"a\n", TextFormat(WHOLE, WHOLE), r"cannot give int64 values by the index -2"),
        (b"a\n", TextFormat(-3, NUMBER), r"cannot give string values by the index -3"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, content: bytes, text: TextFormat, message: str
) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_vocabulary(str(path), text, tf.string, tf.int64)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TextFormat(WHOLE, NUMBER)
    with pytest.raises(CheckpointError, match="there is no file"):
        read_vocabulary(str(tmp_path / "absent"), text, tf.string, tf.int64)
    with pytest.raises(CheckpointError, match="no regular file"):
        read_vocabulary(str(tmp_path), text, tf.string, tf.int64)
    with pytest.raises(CheckpointError, match="no regular file"):
        read_vocabulary("/dev/zero", text, tf.string, tf.int64)
    path = tmp_path / "long"
    path.write_bytes(b"0123456789")
    monkeypatch.setattr(tables, "MAX_BYTES", 9)
    with pytest.raises(CheckpointError, match="more than the limit"):
        read_vocabulary(str(path), text, tf.string, tf.int64)
