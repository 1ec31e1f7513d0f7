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

from data.arrays import NpyStore, open_npy, read_idx, read_npy, read_npz
from data.files import HeldStore
from errors import BadRowsError
from tests.conftest import Patch
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
    save(tmp_path / "none.npz")
    assert read_npz(f"{tmp_path}/none.npz", LIMIT) == {}
    large = np.arange(200_000)  # More than one read; the limit is for all arrays together.
    save(tmp_path / "large.npz", X=large[:50_000], Y=large)
    assert np.array_equal(read_npz(f"{tmp_path}/large.npz", 2_000_000)["Y"], large)
    with error_line("claims 2,000,000 bytes; at most 1,999,999 are unpacked"):
        read_npz(f"{tmp_path}/large.npz", 1_999_999)


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
    arrays = read_npz(path, LIMIT, lambda _: ("Y", "X"))
    assert {key: array.tolist() for key, array in arrays.items()} == {"X": [0, 0], "Y": [1, 1]}
    with error_line(r"a\.npz: holds no array Z; it holds X, Y, other"):
        read_npz(path, LIMIT, lambda _: ("X", "Z"))
    path = put(npz({"readme.txt": b"no array", "X.npy": npy(claim("(1,)"), b"\x05")}))
    assert {key: array.tolist() for key, array in read_npz(path, LIMIT).items()} == {"X": [5]}
    assert read_npz(put(npz({})), LIMIT) == {}  # As np.savez leaves one without arrays.
    path = put(npz({"readme.txt": b"no array"}))
    assert read_npz(path, LIMIT) == {}
    with error_line("holds no array X and no Y; it holds none"):
        read_npz(path, LIMIT, lambda _: ("X", "Y"))


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


OTHER_TEXTS = ("(" * 9000, "-" * 9000 + "1", "{'descr': '|u1'}")


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
        *((text, b"", "cannot be unpacked") for text in OTHER_TEXTS),
        ("[" * 20000, b"", "cannot be unpacked.*large"),
    ],
)
def test_hostile_header_is_refused(header: str, data: bytes, message: str, put: Put) -> None:
    with error_line(message):
        read_npy(put(npy(header, data)), LIMIT)
    with error_line(message):
        read_npz(put(npz({"X.npy": npy(header, data)})), LIMIT)


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
        *((content, r"file: is no \.npz file") for content in [b"", b"PK", b"no archive"]),
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
    cases = {"none": "No such file", "": "s a directory", "pipe": "no regular file"}
    for name, message in cases.items():
        with error_line(message):
            read(str(tmp_path / name), LIMIT)


# IDX: two images of 2 x 3 pixels.
CONTENT = bytes.fromhex("00000803 00000002 00000002 00000003 000102030405 fafbfcfdfeff")
IMAGES = [[[0, 1, 2], [3, 4, 5]], [[250, 251, 252], [253, 254, 255]]]
PACKED = gzip.compress(CONTENT)
CUT = "cannot be unpacked, is it damaged or cut short"


@pytest.mark.parametrize(
    "content", [CONTENT, PACKED, gzip.compress(CONTENT[:9]) + gzip.compress(CONTENT[9:])]
)
def test_the_bytes_of_the_idx_format(put: Put, content: bytes) -> None:
    expected = np.array(IMAGES, np.uint8)
    np.testing.assert_array_equal(read_idx(put(content), LIMIT), expected, strict=True)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_comes_in_the_machines_order(put: Put, kind: str) -> None:
    values = np.array([[1, -2, 100], [3, 4, -128]]).astype(kind)
    found = read_idx(put(idx_bytes(values)), LIMIT)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values, strict=True)
    assert read_idx(put(idx_bytes(values[:0])), LIMIT).shape == (0, 3)  # No row is no damage.


def header(*dimensions: int, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(dimensions)]) + struct.pack(f">{len(dimensions)}I", *dimensions)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file.* found empty"),
        (CONTENT[:3], "is no IDX file.* found 00 00 08"),
        *(
            (bytes.fromhex(start) + CONTENT[4:], f"is no IDX file.* found {start}")
            for start in ("08 03 00 00", "00 00 0a 03", "00 00 08 00", "3c 21 44 4f")
        ),
        (gzip.compress(b"<!DOCTYPE html>"), "is no IDX file.* found a web page"),
        (b"\0\0\x08\xff" + bytes(4 * 255), "cannot be unpacked"),
        *((cut, CUT) for cut in (CONTENT[:15], *(PACKED[:end] for end in (-9, -1, 2, 12)))),
        (CONTENT[:-1], r"is cut short: its header claims 12 bytes, \[2, 2, 3\], but it holds 11"),
        (CONTENT + b"\0", "12 bytes.* but it holds more"),
        (gzip.compress(CONTENT + b"\0"), "12 bytes.* but it holds more"),
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


# Rows of an .npy file, compared with the array that NumPy wrote.

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 4, 3), np.uint8)
ORDERS = [[], [7], [0, 1, 2, 3], [3, 2, 1], [49, 0, 1, 1, 30, 31, 32], list(range(50))]


def saved(folder: Path, array: Any) -> str:
    np.save(folder / "x.npy", array)
    return str(folder / "x.npy")


def store(folder: Path, array: Any = PIXELS) -> NpyStore:
    """Of images of 4 pixels in a column."""
    return NpyStore(saved(folder, array), (4, 3))


@pytest.fixture(params=[True, False], ids=["by position", "in turn"])
def either_way(request: pytest.FixtureRequest, monkeypatch: Patch) -> None:
    """Also as on a system without positioned reads, or from a remote path."""
    if not request.param:
        monkeypatch.delattr(os, "preadv")


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", ["u1", "<f2", "<f4", ">f4", "<f8"])
def test_rows_are_those_of_the_array_and_floats_become_float32(dtype: str, tmp_path: Path) -> None:
    array = PIXELS if dtype == "u1" else (PIXELS / 255).astype(dtype)
    rows = store(tmp_path, array)
    given = np.dtype(np.uint8 if dtype == "u1" else np.float32)
    assert (rows.shape, rows.dtype) == ((50, 4, 3), given)
    for order in ORDERS:
        taken = rows.take(np.array(order, np.int64))
        np.testing.assert_array_equal(taken, array[order].astype(given), strict=True)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_the_file_is_closed_with_the_object(tmp_path: Path) -> None:
    rows = store(tmp_path)

    def is_open() -> bool:
        targets = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
        return os.path.realpath(tmp_path / "x.npy") in targets

    assert is_open()
    assert sys.getrefcount(rows) == 2
    del rows
    assert not is_open()


def test_no_more_than_the_rows_is_in_memory(tmp_path: Path) -> None:
    """Forty gigabytes, of which the disk holds a few pages."""
    rows, row_bytes = 10**7, 4096
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (rows, row_bytes)}
    np.lib.format.write_array_header_1_0(header, described)
    with open(tmp_path / "x.npy", "wb") as file:
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + rows * row_bytes)
        file.seek(-1, os.SEEK_END)
        file.write(b"\x07")
    taken = NpyStore(str(tmp_path / "x.npy"), (row_bytes,)).take(np.array([0, rows - 1]))
    assert taken[:, -1].tolist() == [0, 7]


def test_rows_that_are_gone_and_rows_that_are_no_numbers_are_skipped(tmp_path: Path) -> None:
    array = (PIXELS / 255).astype(np.float64)
    array[7, 0, 0] = np.nan
    rows, path = store(tmp_path, array), tmp_path / "x.npy"
    os.truncate(path, path.stat().st_size - array[:10].nbytes)
    held = HeldStore(rows, len(array))
    assert sorted(held.fill(keep_bad=True)) == [7, *range(40, 50)]
    assert np.array_equal(held.take(np.arange(8, 40)), array[8:40].astype(np.float32))


def test_rows_that_are_gone_or_no_numbers_are_named(tmp_path: Path) -> None:
    rows, path = store(tmp_path), tmp_path / "x.npy"
    os.truncate(path, path.stat().st_size - 12 * 10 - 1)  # The last ten rows and a byte.
    assert np.array_equal(rows.take(np.arange(39)), PIXELS[:39])
    with pytest.raises(BadRowsError, match=r"x\.npy: row 40 is not there any more; .*short") as bad:
        rows.take(np.array([5, 40, 38, 39, 49]))
    assert sorted(bad.value.errors) == [1, 3, 4]
    array = (PIXELS / 255).astype(np.float64)
    array[7, 0, 0], array[30, 1, 1], array[31, 2, 2] = np.nan, np.inf, 1e300
    rows = store(tmp_path, array)
    assert rows.take(np.array([6, 8])).shape == (2, 4, 3)
    with pytest.raises(BadRowsError, match=r"x\.npy: row 30 holds NaN or infinity") as bad:
        rows.take(np.array([1, 30, 2, 7, 31]))
    assert sorted(bad.value.errors) == [1, 3, 4]


def test_arrays_of_any_dtype_by_rows(tmp_path: Path) -> None:
    array = np.arange(600, dtype=">i8").reshape(50, 4, 3)
    path = saved(tmp_path, array)
    rows = open_npy(path, 10**6, 1)
    assert rows is not None
    assert (rows.shape, rows.dtype, len(rows)) == (array.shape, array.dtype, 50)
    for start, stop in [(0, 10), (40, 50), (5, 6), (0, 50), (20, 20)]:
        np.testing.assert_array_equal(rows.take(np.arange(start, stop)), array[start:stop])
    os.truncate(path, 1000)
    with error_line("row 40 is not there any more"):
        rows.take(np.arange(40, 50))


def test_what_is_not_read_by_rows(tmp_path: Path) -> None:
    for values in (np.asfortranarray(PIXELS), np.float32(3)):
        assert open_npy(saved(tmp_path, values), 10**6, 1) is None
    with error_line(r"x\.npy: is in Fortran's order, .*; save np\.ascontiguousarray"):
        store(tmp_path, np.asfortranarray(PIXELS))
    path = saved(tmp_path, PIXELS)
    assert open_npy(path, 10**6, PIXELS.nbytes + 1) is None
    with error_line("claims 600 bytes; at most 599 are unpacked"):
        open_npy(path, 599, 1)
    with error_line("array of objects, which are never unpickled"):
        open_npy(saved(tmp_path, np.array([None, 1])), 10**6, 1)
