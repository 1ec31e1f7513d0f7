"""Records of .tfrecord files, written by TensorFlow and then damaged."""

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from errors import DataError
from prediction.rows import RecordRows, count_records, read_records
from tests.prediction.conftest import info

RECORDS = [b"", b"one", b"two\0", b"x" * 5000]
INFO = info(tf.string, None)


@pytest.fixture
def path(tmp_path: Path) -> str:
    with tf.io.TFRecordWriter(f"{tmp_path}/a.tfrecord") as writer:
        for record in RECORDS:
            writer.write(record)
    return f"{tmp_path}/a.tfrecord"


def test_records_in_order_from_any_start(path: str) -> None:
    assert count_records(path, 5000) == len(RECORDS)
    for start in range(len(RECORDS) + 1):
        assert [*read_records(path, start)] == RECORDS[start:]


def test_batches_in_any_order(path: str) -> None:
    rows = RecordRows(path, INFO, 5000)
    for start, stop in itertools.combinations([0, 1, 2, 4, 1, 3], 2):
        if start < stop:
            assert rows.batch(start, stop).tolist() == RECORDS[start:stop]


def test_a_file_that_is_cut_short_anywhere(path: str, tmp_path: Path) -> None:
    content = Path(path).read_bytes()
    ends = set(itertools.accumulate((len(record) + 16 for record in RECORDS), initial=0))
    cut = tmp_path / "cut.tfrecord"
    for length in range(60):
        cut.write_bytes(content[:length])
        if length in ends:
            assert count_records(str(cut), 5000) == sorted(ends).index(length)
        else:
            with pytest.raises(DataError, match=r"is no \.tfrecord file, or is cut short"):
                count_records(str(cut), 5000)


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 2**40])
def test_a_record_of_a_hostile_length_takes_no_memory(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(struct.pack("<QI", size, 0) + bytes(100))
    with pytest.raises(DataError, match=f"record 0 claims {size:,} bytes"):
        count_records(f"{tmp_path}/a", 2**70)


def test_a_record_over_the_limit(path: str) -> None:
    with pytest.raises(DataError, match="record 3 claims 5,000 bytes; at most 4,999"):
        count_records(path, 4999)


def test_a_checksum_that_does_not_fit(path: str) -> None:
    content = np.fromfile(path, np.uint8)
    content[-100] ^= 1
    content.tofile(path)
    with pytest.raises(DataError, match="the checksum of a record does not fit"):
        [*read_records(path)]


def test_a_compressed_file(tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(f"{tmp_path}/a", tf.io.TFRecordOptions("GZIP")) as writer:
        writer.write(b"a")
    with pytest.raises(DataError, match="is compressed; unpack it with gunzip"):
        count_records(f"{tmp_path}/a", 100)
