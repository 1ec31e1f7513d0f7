import io
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.arrays import read_npy, read_npz
from errors import DataError
from tests.data.conftest import DataErrorLine

LIMIT = 10_000

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
def put(tmp_path: Path) -> Callable[[bytes], str]:
    """Writes bytes to a file and returns its path."""

    def write(content: bytes) -> str:
        (tmp_path / "file.npz").write_bytes(content)
        return str(tmp_path / "file.npz")

    return write


Put = Callable[[bytes], str]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_saves(save: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "ä b.npz"
    save(path, **ARRAYS)
    arrays = read_npz(str(path), LIMIT)
    assert arrays.keys() == ARRAYS.keys()
    for key, expected in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], expected, strict=True)


@pytest.mark.parametrize("key", ARRAYS)
def test_reads_an_npy_that_numpy_saves(key: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, ARRAYS[key])
    np.testing.assert_array_equal(read_npy(str(path), LIMIT), ARRAYS[key], strict=True)


def test_reads_bytes_exactly(put: Put) -> None:
    path = put(npz({"X.npy": npy(claim("(2, 2)", "'<u2'"), b"\x01\x00\x02\x00\x03\x00\xff\xff")}))
    assert read_npz(path, LIMIT)["X"].tolist() == [[1, 2], [3, 65535]]


def test_reads_a_header_of_version_2(put: Put) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, ARRAYS["X"], version=(2, 0))
    np.testing.assert_array_equal(read_npy(put(content.getvalue()), LIMIT), ARRAYS["X"])


def test_array_larger_than_one_read(tmp_path: Path) -> None:
    expected = np.arange(200_000, dtype=np.int64)
    np.savez(tmp_path / "a.npz", X=expected)
    assert np.array_equal(read_npz(str(tmp_path / "a.npz"), 1_600_000)["X"], expected)


def test_required_keys_are_read_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.zeros(2), Y=np.ones(2), other=np.array([{}], object))
    arrays = read_npz(str(tmp_path / "a.npz"), LIMIT, required=("Y", "X"))
    assert {key: array.tolist() for key, array in arrays.items()} == {"X": [0, 0], "Y": [1, 1]}


def test_members_that_are_no_arrays_are_left_out(put: Put) -> None:
    path = put(npz({"readme.txt": b"hello", "X.npy": npy(claim("(1,)"), b"\x05")}))
    assert {key: array.tolist() for key, array in read_npz(path, LIMIT).items()} == {"X": [5]}


def test_missing_key_is_named_beside_those_there_are(
    tmp_path: Path, data_error_line: DataErrorLine
) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros(2), Y=np.ones(2))
    with data_error_line(r"a\.npz: holds no array X; it holds Y, images"):
        read_npz(str(tmp_path / "a.npz"), LIMIT, required=("X", "Y"))


def test_archive_without_arrays(put: Put, data_error_line: DataErrorLine) -> None:
    path = put(npz({"readme.txt": b"hello"}))
    assert read_npz(path, LIMIT) == {}
    with data_error_line("holds no array X and no Y; it holds none"):
        read_npz(path, LIMIT, required=("X", "Y"))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("unpickled",)


def test_objects_are_never_unpickled(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    np.savez(tmp_path / "a.npz", X=np.array([Bomb()], object))
    np.save(tmp_path / "a.npy", np.array([Bomb()], object))
    with data_error_line(r"a\.npz: X: is an array of objects, which are never unpickled"):
        read_npz(str(tmp_path / "a.npz"), LIMIT)
    with data_error_line(r"a\.npy: is an array of objects"):
        read_npy(str(tmp_path / "a.npy"), LIMIT)


def test_objects_in_a_field_are_never_unpickled(put: Put, data_error_line: DataErrorLine) -> None:
    header = claim("(1,)", "[('a', '<f4'), ('b', '|O')]")
    with data_error_line("array of objects"):
        read_npy(put(npy(header, bytes(12))), LIMIT)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (claim("(10**12,)"), b"", "Cannot parse|malformed"),
        (claim(f"({10**12},)"), b"", "claims 1,000,000,000,000 bytes; at most 10,000"),
        (claim(f"({2**40}, {2**40})"), b"", "claims 1,208,925,819,614,629,174,706,176 bytes"),
        (claim("()", "[('a', '<f4', (9999,))]"), b"", "claims 39,996 bytes"),
        (claim(f"({10**12},)", "'|S0'"), b"", "claims 1,000,000,000,000 bytes"),
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
    header: str, data: bytes, message: str, put: Put, data_error_line: DataErrorLine
) -> None:
    with data_error_line(message):
        read_npy(put(npy(header, data)), LIMIT)
    with data_error_line(message):
        read_npz(put(npz({"X.npy": npy(header, data)})), LIMIT)


def test_version_3_is_refused(put: Put, data_error_line: DataErrorLine) -> None:
    with data_error_line(r"has the .npy version \(3, 0\)"):
        read_npy(put(npy(claim("(0,)"), version=b"\x03\x00")), LIMIT)


def test_limit_is_for_all_arrays_together(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, X=np.zeros(600, np.uint8), Y=np.zeros(400, np.uint8))
    assert len(read_npz(path, 1000)) == 2
    with data_error_line("claims 1,000 bytes; at most 999 are unpacked"):
        read_npz(path, 999)


def test_member_that_unpacks_to_more_than_the_directory_says(
    put: Put, data_error_line: DataErrorLine
) -> None:
    member = npy(claim("(4,)"), bytes(10**6))
    content = npz({"X.npy": member})
    true_size, false_size = (struct.pack("<I", len(member) - extra) for extra in (0, 10**6 - 4))
    assert content.count(true_size) == 2  # In the member's own header and in the directory.
    with data_error_line("cannot be unpacked.*CRC"):
        read_npz(put(content.replace(true_size, false_size)), LIMIT)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_without_a_bound_is_refused(
    method: int, put: Put, data_error_line: DataErrorLine
) -> None:
    with data_error_line("X: is packed in a way that np.savez does not use"):
        read_npz(put(npz({"X.npy": npy(claim("(1,)"), b"a")}, method)), LIMIT)


def test_encrypted_member_is_refused(put: Put, data_error_line: DataErrorLine) -> None:
    content = npz({"X.npy": npy(claim("(1,)"), b"a")})
    directory = content.index(b"PK\x01\x02")
    encrypted = content[: directory + 8] + b"\x01" + content[directory + 9 :]
    with data_error_line("X: is encrypted"):
        read_npz(put(encrypted), LIMIT)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # It is what this test is about.
def test_key_that_is_there_twice_is_refused(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for value in (b"a", b"b"):
            archive.writestr("X.npy", npy(claim("(1,)"), value))
    with data_error_line("holds the array X twice"):
        read_npz(str(tmp_path / "a.npz"), LIMIT)


@pytest.mark.parametrize("content", [b"", b"PK", npz({}), b"hello, this is not a zip archive"])
def test_file_that_is_no_zip(content: bytes, put: Put, data_error_line: DataErrorLine) -> None:
    with data_error_line(r"file\.npz: is no \.npz file"):
        read_npz(put(content), LIMIT)


def test_file_that_is_no_npy(put: Put, data_error_line: DataErrorLine) -> None:
    with data_error_line("cannot be unpacked.*magic"):
        read_npy(put(b"hello, this is not an array"), LIMIT)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_cut_is_an_error(
    save: Callable[..., None], put: Put, data_error_line: DataErrorLine
) -> None:
    content = io.BytesIO()
    save(content, X=np.arange(5), Y=np.arange(3))
    for length in range(len(content.getvalue())):
        with data_error_line("damaged|cut short|no .npz file"):
            read_npz(put(content.getvalue()[:length]), LIMIT)


def test_every_cut_of_an_npy_is_an_error(put: Put, data_error_line: DataErrorLine) -> None:
    content = io.BytesIO()
    np.save(content, np.arange(5))
    for length in range(len(content.getvalue())):
        with data_error_line("cannot be unpacked|but it holds"):
            read_npy(put(content.getvalue()[:length]), LIMIT)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bits_give_an_error_or_the_same_arrays(save: Callable[..., None], put: Put) -> None:
    content = io.BytesIO()
    save(content, X=np.arange(5))
    whole = content.getvalue()
    # A member's header: 30 bytes, its name, and 20 bytes for sizes beyond 32 bits.
    member_start, member_end = 30 + len("X.npy") + 20, whole.index(b"PK\x01\x02")
    for place in range(member_start, member_end):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        try:
            arrays = read_npz(put(bytes(damaged)), LIMIT)
        except DataError:
            continue
        # A bit that fills up the last byte of packed data means nothing.
        assert place == member_end - 1
        assert arrays["X"].tolist() == list(range(5))


def test_missing_file_is_named(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    with data_error_line(r"none\.npz: .*No such file"):
        read_npz(str(tmp_path / "none.npz"), LIMIT)
    with data_error_line(r"none\.npy: .*No such file"):
        read_npy(str(tmp_path / "none.npy"), LIMIT)
