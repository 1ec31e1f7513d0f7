"""Hostile indexes, written here byte by byte: TensorFlow aborts the process over some of them."""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from checkpoints import bundle
from checkpoints.bundle import VariableSpec, check_index, read_bundle, table_entries
from checkpoints.reader import CheckpointReader
from errors import CheckpointError
from tests.checkpoints.index_files import MAGIC, block, number, table


def _entry(sizes: Sequence[int], dtype: int = 1) -> BundleEntryProto:
    entry = BundleEntryProto(dtype=dtype, size=4)
    for size in sizes:
        entry.shape.dim.add(size=size)
    return entry


def _sliced(start: int, length: int) -> BundleEntryProto:
    entry = _entry([4])
    entry.slices.add().extent.add(start=start, length=length)
    return entry


def _write(path: Path, entry: BundleEntryProto) -> str:
    header = BundleHeaderProto(num_shards=1).SerializeToString()
    path.write_bytes(table({b"": header, b"w": entry.SerializeToString()}))
    return str(path)


@pytest.mark.parametrize(
    "entry",
    [_entry([]), _entry([0, 3]), _sliced(1, 3), _sliced(0, 4)],
    ids=["scalar", "empty", "slice", "whole"],
)
def test_what_can_be_passes(tmp_path: Path, entry: BundleEntryProto) -> None:
    check_index(_write(tmp_path / "m.index", entry))


def _hidden(start: int) -> bytes:
    """A block with one entry, and a restart at `start`."""
    entry = number(0) + number(1) + number(3) + b"kabc"
    return entry + struct.pack("<II", start, 1)


def test_entries_that_a_scan_does_not_see_are_refused() -> None:
    """TensorFlow starts to read where a restart points to, such as into a value."""
    assert list(bundle._block_entries(_hidden(0))) == [(b"k", b"abc")]
    for start in (3, 7, 2**31):
        with pytest.raises(ValueError, match="a restart is at no entry"):
            list(bundle._block_entries(_hidden(start)))


def _shared(*rows: tuple[int, bytes, bytes]) -> bytes:
    """A block of entries, each with the size of what its key shares with the one before it."""
    entries = [
        number(shared) + number(len(rest)) + number(len(value)) + rest + value
        for shared, rest, value in rows
    ]
    return b"".join(entries) + struct.pack("<II", 0, 1)


def test_a_key_that_shares_its_beginning() -> None:
    block = _shared((0, b"conv/b", b"1"), (5, b"w", b"2"), (0, b"x", b""))
    expected = [(b"conv/b", b"1"), (b"conv/w", b"2"), (b"x", b"")]
    assert list(bundle._block_entries(block)) == expected
    with pytest.raises(ValueError, match="not inside of its block"):
        list(bundle._block_entries(_shared((0, b"a", b""), (2, b"b", b""))))


def test_keys_that_would_take_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these is one byte longer than the one before, and all are in a few bytes a key."""
    entries = {b"w" * size: b"" for size in range(1, 20)}
    assert [*table_entries(table(entries))] == [*entries.items()]
    monkeypatch.setattr(bundle, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="its keys are too long"):
        list(table_entries(table(entries)))


def test_a_header_without_the_rest() -> None:
    content = table({b"": b"header", b"w": bytes(1000)})
    asked = list[tuple[int, int]]()

    def read(offset: int, count: int) -> bytes:
        asked.append((offset, count))
        return content[offset : offset + count]

    assert bundle.table_header(read, len(content), 2000) == b"header"
    assert len(asked) == 3
    with pytest.raises(ValueError, match="its first block is too large"):
        bundle.table_header(read, len(content), 100)
    no_header = table({b"w": b""})
    with pytest.raises(ValueError, match="it has no header"):
        bundle.table_header(lambda o, n: no_header[o : o + n], len(no_header), 2000)
    with pytest.raises(ValueError, match="does not end as a table does"):
        bundle.table_header(read, 10, 2000)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.index")
    with pytest.raises(CheckpointError, match="no regular file"):
        check_index(str(tmp_path / "m.index"))


def test_a_resumed_run_refuses_it_too(tmp_path: Path) -> None:
    """A stranger's checkpoint in the folder of a run: TensorFlow's reader would abort over it."""
    _write(tmp_path / "m.index", _entry([-5]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(4))
    with pytest.raises(CheckpointError, match=r"no tensor has the shape \[-5\]"):
        read_bundle(str(tmp_path / "m"), {"w": VariableSpec((1,), "float32")})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param(_entry([-5]), r"no tensor has the shape \[-5\]", id="negative"),
        pytest.param(_entry([1 << 62, 1 << 62]), "no tensor has the shape", id="overflow"),
        pytest.param(
            _entry([1 << 62, 1 << 62, 0]), "no tensor has the shape", id="overflow with zero"
        ),
        pytest.param(_entry([1] * 255), "no tensor has the shape", id="rank"),
        pytest.param(_entry([1], dtype=101), "there is no tensor of dtype 101", id="reference"),
        pytest.param(_entry([1], dtype=0), "there is no tensor of dtype 0", id="no dtype"),
        pytest.param(_entry([1], dtype=77), "there is no tensor of dtype 77", id="unknown dtype"),
        pytest.param(_sliced(-1, 1), "a slice is not inside", id="start"),
        pytest.param(_sliced(0, -1), "a slice is not inside", id="length"),
        pytest.param(_sliced(2, 3), "a slice is not inside", id="end"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, entry: BundleEntryProto, message: str) -> None:
    path = _write(tmp_path / "m.index", entry)
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(4))
    with pytest.raises(CheckpointError, match=rf"m is damaged: its index .*{message}") as caught:
        CheckpointReader(path.removesuffix(".index"))
    assert "\n" not in str(caught.value)


def test_a_slice_of_as_many_dimensions_as_its_tensor(tmp_path: Path) -> None:
    entry = _entry([4])
    entry.slices.add()
    with pytest.raises(CheckpointError, match="a slice has 0 dimensions, its tensor 1"):
        check_index(_write(tmp_path / "m.index", entry))


def test_any_change_of_a_byte_ends_in_time_and_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.index"
    content = Path(_write(path, _entry([4, 4]))).read_bytes()
    rng = np.random.default_rng(0)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] = int(rng.integers(256))
        path.write_bytes(changed)
        with suppress(CheckpointError):  # Some leave an index that can be.
            check_index(str(path))
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            check_index(str(path))


def test_one_block_is_not_read_many_times(tmp_path: Path) -> None:
    entries = block({b"": b"", b"w": _entry([1]).SerializeToString()})
    handle = number(0) + number(len(entries))
    index = block({bytes([i]): handle for i in range(100)})
    content = entries + bytes(5) + index + bytes(5)
    handles = number(0) + number(0) + number(len(entries) + 5) + number(len(index))
    path = tmp_path / "m.index"
    path.write_bytes(content + handles.ljust(40, b"\0") + MAGIC)
    with pytest.raises(CheckpointError, match="its blocks overlap"):
        check_index(str(path))


def test_a_long_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 9)
    with pytest.raises(CheckpointError, match=r"more than the limit of 0\.0 MiB$"):
        check_index(_write(tmp_path / "m.index", _entry([])))
    with pytest.raises(CheckpointError, match="there is no file"):
        check_index(str(tmp_path / "absent"))


def _packed_table(packed: bytes) -> bytes:
    """A table of one block, packed by Snappy."""
    content = packed + b"\x01" + bytes(4)
    index = block({b"\xff": number(0) + number(len(packed))})
    handles = number(0) + number(0) + number(len(content)) + number(len(index))
    return content + index + bytes(5) + handles.ljust(40, b"\0") + MAGIC


def test_packed_blocks_are_unpacked() -> None:
    noise = np.random.default_rng(0).bytes(100)
    plain = block({b"k": noise + b"abcd" * 20 + noise[:9]})
    head = plain[: plain.index(b"abcd")]  # 3 bytes of sizes, the key, the noise.
    packed = number(len(plain)) + bytes([60 << 2, len(head) - 1]) + head
    packed += bytes([3 << 2]) + b"abcd"  # A literal,
    packed += bytes([(64 - 1) << 2 | 2]) + struct.pack("<H", 4)  # which is copied on and on,
    packed += bytes([(12 - 1) << 2 | 3]) + struct.pack("<I", 4)
    packed += bytes([(9 - 4) << 2 | 1, 180])  # and from further back.
    packed += bytes([(8 - 1) << 2]) + plain[-8:]
    assert [v for _, v in table_entries(_packed_table(packed))] == [
        noise + b"abcd" * 20 + noise[:9]
    ]


@pytest.mark.parametrize(
    "packed",
    [
        number(1 << 40) + b"\x00a",
        number(8) + b"\x00a",
        number(8) + b"\x00a" + bytes([(7 - 1) << 2 | 2, 9, 0]),
        number(8) + b"\x00a" + bytes([(7 - 1) << 2 | 2, 0, 0]),
        number(8) + bytes([63 << 2]),
    ],
    ids=["bomb", "short", "before the start", "no offset", "cut"],
)
def test_what_cannot_be_unpacked_is_refused(packed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.index"
    path.write_bytes(_packed_table(packed))
    with pytest.raises(CheckpointError, match=r"a block (cannot be unpacked|unpacks to too much)"):
        check_index(str(path))


def test_a_packed_block_is_bounded_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = number(4) + bytes([3 << 2]) + b"abcd"
    monkeypatch.setattr(bundle, "MAX_BYTES", 4)
    assert bundle._unpacked(packed) == b"abcd"
    monkeypatch.setattr(bundle, "MAX_BYTES", 3)
    with pytest.raises(ValueError, match="unpacks to too much"):
        bundle._unpacked(packed)


@pytest.mark.parametrize("offset", [1, 3, 8, 64, 90])
@pytest.mark.parametrize("length", [1, 8, 63, 64])
def test_copies_of_snappy_repeat_what_they_write(offset: int, length: int) -> None:
    """Against the definition: one byte after the other."""
    start = np.random.default_rng(0).bytes(100)
    expected = bytearray(start)
    for _ in range(length):
        expected.append(expected[-offset])
    copy = bytes([(length - 1) << 2 | 2]) + struct.pack("<H", offset)
    packed = number(100 + length) + bytes([60 << 2, 99]) + start + copy
    assert bundle._unpacked(packed) == expected
