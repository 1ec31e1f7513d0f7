"""Arrays out of files: those that NumPy wrote, bytes written by hand, and bad ones."""

import gzip
import io
import os
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.arrays import read_idx, read_npy, read_npz
from tests.data.conftest import error_line
from tests.data.idx_files import TYPES, idx_bytes

LIMIT = 10_000
Put = Callable[[bytes], str]

ARRAYS: dict[str, Any] = {
    "X": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "Y": np.array([1.5, -2.0]),
    "with/slash:0": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    "scalar": np.float32(7),
    "empty": np.zeros((0, 5), np.float16),
    "words": np.array(["a", "öß"]),
}


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """The bytes of an .npy file with this header, by the format's description."""
    encoded = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(encoded)) + encoded + data


def claim(shape: str, descr: str = "'|u1'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes bytes to a file and returns its path; the name tells nothing of the content."""

    def write(content: bytes) -> str:
        (tmp_path / "file").write_bytes(content)
        return str(tmp_path / "file")

    return write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_read(save: Callable[..., None], tmp_path: Path) -> None:
    save(tmp_path / "ä b.npz", **ARRAYS)
    arrays = read_npz(f"{tmp_path}/ä b.npz", LIMIT)
    assert arrays.keys() == ARRAYS.keys()
    for key, expected in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], expected, strict=True)
        np.save(tmp_path / "a.npy", expected)
        np.testing.assert_array_equal(read_npy(f"{tmp_path}/a.npy", LIMIT), expected, strict=True)
    large = np.arange(200_000)  # More than one read.
    save(tmp_path / "large.npz", X=large)
    assert np.array_equal(read_npz(f"{tmp_path}/large.npz", 1_600_000)["X"], large)


def test_bytes_of_the_npy_format(put: Put) -> None:
    path = put(npz({"X.npy": npy(claim("(2, 2)", "'<u2'"), b"\x01\x00\x02\x00\x03\x00\xff\xff")}))
    assert read_npz(path, LIMIT)["X"].tolist() == [[1, 2], [3, 65535]]
    content = io.BytesIO()
    np.lib.format.write_array(content, ARRAYS["X"], version=(2, 0))
    np.testing.assert_array_equal(read_npy(put(content.getvalue()), LIMIT), ARRAYS["X"])
    with error_line(r"has the .npy version \(3, 0\)"):
        read_npy(put(npy(claim("(0,)"), version=b"\x03\x00")), LIMIT)


def test_required_keys_are_read_alone(tmp_path: Path, put: Put) -> None:
    path = f"{tmp_path}/a.npz"
    np.savez(path, X=np.zeros(2), Y=np.ones(2), other=np.array([{}], object))
    arrays = read_npz(path, LIMIT, required=("Y", "X"))
    assert {key: array.tolist() for key, array in arrays.items()} == {"X": [0, 0], "Y": [1, 1]}
    with error_line(r"a\.npz: holds no array Z; it holds X, Y, other"):
        read_npz(path, LIMIT, required=("X", "Z"))
    path = put(npz({"readme.txt": b"no array", "X.npy": npy(claim("(1,)"), b"\x05")}))
    assert {key: array.tolist() for key, array in read_npz(path, LIMIT).items()} == {"X": [5]}
    path = put(npz({"readme.txt": b"no array"}))
    assert read_npz(path, LIMIT) == {}
    with error_line("holds no array X and no Y; it holds none"):
        read_npz(path, LIMIT, required=("X", "Y"))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("unpickled",)


def test_objects_are_never_unpickled(tmp_path: Path, put: Put) -> None:
    np.savez(tmp_path / "a.npz", X=np.array([Bomb()], object))
    np.save(tmp_path / "a.npy", np.array([Bomb()], object))
    with error_line(r"a\.npz: X: is an array of objects, which are never unpickled"):
        read_npz(f"{tmp_path}/a.npz", LIMIT)
    in_a_field = put(npy(claim("(1,)", "[('a', '<f4'), ('b', '|O')]"), bytes(12)))
    for path in (f"{tmp_path}/a.npy", in_a_field):
        with error_line(r"is an array of objects"):
            read_npy(path, LIMIT)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (claim("(10**12,)"), b"", "Cannot parse|malformed"),
        (claim(f"({10**12},)"), b"", "claims 1,000,000,000,000 bytes; at most 10,000"),
        (claim(f"({2**40}, {2**40})"), b"", "claims 1,208,925,819,614,629,174,706,176 bytes"),
        (claim("()", "[('a', '<f4', (9999,))]"), b"", "claims 39,996 bytes"),
        (claim(f"({10**12},)", "'|S0'"), b"", "its values are of no bytes"),
        (claim("(-1,)"), b"", r"claims the shape \[-1\]"),
        (claim("(4,)"), b"abc", r"claims 4 bytes of uint8 \[4\], but it holds 3"),
        (claim("(4,)"), b"abcde", r"claims 4 bytes of uint8 \[4\], but it holds 5"),
        (claim("(4,)"), bytes(10**6), r"claims 4 bytes of uint8 \[4\], but it holds 1,000,000"),
        (claim(f"(0, {2**70})"), b"", "cannot be unpacked"),
        (claim("(1,)", "'nonsense'"), b"a", "not a valid dtype"),
        ("(" * 9000, b"", "cannot be unpacked"),
        ("-" * 9000 + "1", b"", "cannot be unpacked"),
        ("[" * 20000, b"", "cannot be unpacked.*large"),
        ("{'descr': '|u1'}", b"", "cannot be unpacked"),
    ],
)
def test_hostile_header_is_refused_before_memory_is_taken(
    header: str, data: bytes, message: str, put: Put
) -> None:
    with error_line(message):
        read_npy(put(npy(header, data)), LIMIT)
    with error_line(message):
        read_npz(put(npz({"X.npy": npy(header, data)})), LIMIT)


def test_limit_is_for_all_arrays_together(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, X=np.zeros(600, np.uint8), Y=np.zeros(400, np.uint8))
    assert len(read_npz(path, 1000)) == 2
    with error_line("claims 1,000 bytes; at most 999 are unpacked"):
        read_npz(path, 999)


def claiming_less(packed: bytes, length: int, claimed: int) -> bytes:
    """An archive that says, before its one member and in the directory, that it is shorter."""
    true_size, false_size = struct.pack("<I", length), struct.pack("<I", claimed)
    assert packed.count(true_size) == 2
    return packed.replace(true_size, false_size)


ONE = npy(claim("(1,)"), b"a")
LARGE = npy(claim("(4,)"), bytes(10**6))
PLAIN = npz({"X.npy": ONE})
FLAGS = PLAIN.index(b"PK\x01\x02") + 8  # Of the member, in the directory.
PACKED_OTHERWISE = "X: is encrypted, or packed in a way that np.savez does not use"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (claiming_less(npz({"X.npy": LARGE}), len(LARGE), len(LARGE) - 10**6 + 4), "unpacked.*CRC"),
        (npz({"X.npy": ONE}, zipfile.ZIP_BZIP2), PACKED_OTHERWISE),
        (npz({"X.npy": ONE}, zipfile.ZIP_LZMA), PACKED_OTHERWISE),
        (PLAIN[:FLAGS] + b"\x01" + PLAIN[FLAGS + 1 :], PACKED_OTHERWISE),
        *((content, r"file: is no \.npz file") for content in [b"", b"PK", npz({}), b"no archive"]),
    ],
)
def test_a_bad_archive_is_one_line(content: bytes, message: str, put: Put) -> None:
    with error_line(message):
        read_npz(put(content), LIMIT)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_every_cut_is_an_error(save: Callable[..., None], put: Put) -> None:
    content = io.BytesIO()
    save(content, np.arange(5))
    read = read_npy if save is np.save else read_npz
    for length in range(len(content.getvalue())):
        with error_line("damaged|cut short|no .npz file|but it holds"):
            read(put(content.getvalue()[:length]), LIMIT)


@pytest.mark.parametrize("read", [read_npz, read_npy, read_idx])
def test_a_file_that_cannot_be_read(tmp_path: Path, read: Callable[[str, int], Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("none", "No such file"),
        ("", "s a directory"),
        ("pipe", "no regular file"),
    ):
        with error_line(message):
            read(str(tmp_path / name), LIMIT)


# IDX: two images of 2 x 3 pixels.
CONTENT = bytes.fromhex("00000803 00000002 00000002 00000003 000102030405 fafbfcfdfeff")
IMAGES = [[[0, 1, 2], [3, 4, 5]], [[250, 251, 252], [253, 254, 255]]]
PACKED = gzip.compress(CONTENT)


@pytest.mark.parametrize(
    "content", [CONTENT, PACKED, gzip.compress(CONTENT[:9]) + gzip.compress(CONTENT[9:])]
)
def test_the_bytes_of_the_idx_format(put: Put, content: bytes) -> None:
    values = read_idx(put(content), LIMIT)
    assert values.dtype == np.uint8
    assert values.tolist() == IMAGES


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_comes_in_the_machines_order(put: Put, kind: str) -> None:
    values = np.array([[1, -2, 100], [3, 4, -128]]).astype(kind)
    found = read_idx(put(idx_bytes(values)), LIMIT)
    assert found.dtype == np.dtype(kind)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values)
    assert read_idx(put(idx_bytes(values[:0])), LIMIT).shape == (0, 3)  # No row is no damage.


def header(*dimensions: int, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(dimensions)]) + struct.pack(f">{len(dimensions)}I", *dimensions)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file.* found an empty file"),
        (CONTENT[:3], "is no IDX file.* found 00 00 08"),
        (b"\x08\x03\0\0" + CONTENT[4:], "is no IDX file.* found 08 03 00 00"),
        (b"\0\0\x0a\x03" + CONTENT[4:], "is no IDX file.* found 00 00 0a 03"),
        (b"\0\0\x08\x00" + CONTENT[4:], "is no IDX file.* found 00 00 08 00"),
        (b"\0\0\x08\xff" + bytes(4 * 255), "cannot be unpacked"),
        (b"<!DOCTYPE html>", "is no IDX file.* found 3c 21 44 4f"),
        (gzip.compress(b"<!DOCTYPE html>"), "is no IDX file.* found 3c 21 44 4f"),
        (CONTENT[:15], "cannot be unpacked, is it damaged or cut short"),
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
        (header(10_001), "claims 10,001 bytes; at most 10,000 are unpacked"),
        (header(*[2**32 - 1] * 32, kind=14), "at most 10,000 are unpacked"),
    ],
)
def test_a_bad_idx_file_is_one_line(put: Put, content: bytes, message: str) -> None:
    with error_line(message):
        read_idx(put(content), LIMIT)


def test_memory_follows_what_is_there_and_not_what_is_claimed(put: Put) -> None:
    """Of a header of 64 megabytes, of one that claims a gigabyte, of 64 megabytes after values."""
    long_header = b"\x93NUMPY\x02\x00" + struct.pack("<I", 64 << 20) + b" " * (64 << 20)
    cases: list[tuple[Any, bytes, str]] = [
        (read_npz, npz({"X.npy": long_header}), "cannot be unpacked"),
        (read_idx, header(2**30), "is cut short"),
        (read_idx, header(5) + bytes(2**26), "but it holds more"),
    ]
    cases += [(read, gzip.compress(content), message) for read, content, message in cases[1:]]
    for read, content, message in cases:
        path = put(content)
        tracemalloc.start()
        with error_line(message):
            read(path, 2**31)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**22
