"""IDX files against bytes written by hand, and every way in which they can be bad."""

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.arrays import is_idx, read_idx
from errors import DataError
from tests.data.conftest import DataErrorLine
from tests.data.idx_files import TYPES, idx_bytes

LIMIT = 10_000
Put = Callable[[bytes], str]

# Two images of 2 x 3 pixels.
CONTENT = bytes.fromhex("00000803 00000002 00000002 00000003 000102030405 fafbfcfdfeff")
IMAGES = [[[0, 1, 2], [3, 4, 5]], [[250, 251, 252], [253, 254, 255]]]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes bytes to a file and returns its path; the name tells nothing of the content."""

    def write(content: bytes) -> str:
        (tmp_path / "file").write_bytes(content)
        return str(tmp_path / "file")

    return write


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_bytes_of_the_format(put: Put, pack: Callable[[bytes], bytes]) -> None:
    values = read_idx(put(pack(CONTENT)), LIMIT)
    assert values.dtype == np.uint8
    assert values.tolist() == IMAGES


def test_two_gzip_members_are_one_file(put: Put) -> None:
    packed = gzip.compress(CONTENT[:9]) + gzip.compress(CONTENT[9:])
    assert read_idx(put(packed), LIMIT).tolist() == IMAGES


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_comes_in_the_machines_order(put: Put, kind: str) -> None:
    values = np.array([[1, -2, 100], [3, 4, -128]]).astype(kind)
    found = read_idx(put(idx_bytes(values)), LIMIT)
    assert found.dtype == np.dtype(kind)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values)


def test_no_row_is_no_damage(put: Put) -> None:
    assert read_idx(put(idx_bytes(np.zeros((0, 28, 28), np.uint8))), LIMIT).shape == (0, 28, 28)


def header(*dimensions: int, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(dimensions)]) + struct.pack(f">{len(dimensions)}I", *dimensions)


PACKED = gzip.compress(CONTENT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file.* found an empty file"),
        (CONTENT[:3], "is no IDX file.* found 00 00 08"),
        (b"\x08\x03\0\0" + CONTENT[4:], "is no IDX file.* found 08 03 00 00"),
        (b"\0\0\x0a\x03" + CONTENT[4:], "is no IDX file.* found 00 00 0a 03"),
        (b"\0\0\x08\x00" + CONTENT[4:], "is no IDX file.* found 00 00 08 00"),
        (b"\0\0\x08\xff" + bytes(4 * 255), "is no IDX file.* found 00 00 08 ff"),
        (b"<!DOCTYPE html>", "is no IDX file.* found 3c 21 44 4f"),
        (gzip.compress(b"<!DOCTYPE html>"), "is no IDX file.* found 3c 21 44 4f"),
        (CONTENT[:15], "is cut short: its header claims 3 dimensions"),
        (CONTENT[:-1], r"is cut short: its header claims 12 bytes, \[2, 2, 3\], but it holds 11"),
        (CONTENT + b"\0", "12 bytes.* but it holds more"),
        (gzip.compress(CONTENT + b"\0"), "12 bytes.* but it holds more"),
        (PACKED[:-9], "cannot be unpacked, is it damaged or cut short"),
        (PACKED[:-1], "cannot be unpacked, is it damaged or cut short"),
        (PACKED[:2], "cannot be unpacked, is it damaged or cut short"),
        (PACKED[:12], "cannot be unpacked, is it damaged or cut short"),
        (PACKED[:20] + b"\xff\xff" + PACKED[22:], "cannot be unpacked, is it damaged"),
        (PACKED[:-8] + bytes(4) + PACKED[-4:], "cannot be unpacked.*CRC"),
        (PACKED + b"more", "cannot be unpacked, is it damaged"),
        (header(10_001), "claims 10,001 bytes, .10001.; at most 10,000 are unpacked"),
        (header(*[2**32 - 1] * 32, kind=14), "at most 10,000 are unpacked"),
    ],
)
def test_a_bad_file_is_one_line(
    put: Put, data_error_line: DataErrorLine, content: bytes, message: str
) -> None:
    with data_error_line(message):
        read_idx(put(content), LIMIT)


def test_a_missing_file_and_a_folder(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    with data_error_line("No such file"):
        read_idx(str(tmp_path / "none"), LIMIT)
    with data_error_line("Is a directory"):
        read_idx(str(tmp_path), LIMIT)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_memory_follows_what_is_there_and_not_what_is_claimed(
    put: Put, data_error_line: DataErrorLine, pack: Callable[[bytes], bytes]
) -> None:
    """A header that claims a gigabyte, and five values with 64 megabytes behind them."""
    for content, message in (
        (header(2**30), "is cut short"),
        (header(5) + bytes(2**26), "but it holds more"),
    ):
        path = put(pack(content))
        tracemalloc.start()
        with data_error_line(message):
            read_idx(path, 2**31)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**22


def test_no_byte_of_the_header_can_be_another(put: Put) -> None:
    """But for the type: signed bytes are as long as unsigned ones."""
    for position in range(16):
        for byte in {0x00, 0x01, 0x7F, 0xFF, CONTENT[position] ^ 0x02} - {CONTENT[position]}:
            damaged = CONTENT[:position] + bytes([byte]) + CONTENT[position + 1 :]
            with pytest.raises(DataError):
                read_idx(put(damaged), LIMIT)


@pytest.mark.parametrize(
    ("start", "expected"),
    [(b"\0\0\x08\x03", True), (b"\0\0\x08", False), (b"\x1f\x8b\x08\0", False), (b"", False)],
)
def test_is_idx(start: bytes, expected: bool) -> None:
    assert is_idx(start) is expected


def test_a_pipe_is_not_waited_for(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    os.mkfifo(tmp_path / "pipe")
    with data_error_line("is no regular file"):
        read_idx(str(tmp_path / "pipe"), LIMIT)
