"""Variables on disk, against TensorFlow's own reader and writer; hostile indexes are refused.

The indexes are written here byte by byte: TensorFlow aborts the process over some of them.
"""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from checkpoints import bundle, index_table
from checkpoints.bundle import VariableSpec, write_bundle
from checkpoints.index_table import table_entries
from checkpoints.reader import CheckpointReader, read_variables, restore_newest
from errors import CheckpointError
from tests.checkpoints.conftest import SPECS, values_at
from tests.checkpoints.index_files import MAGIC, block, checksum, number, table
from tests.conftest import Patch
from tests.prediction import stock

v1 = tf.compat.v1
VALUES = values_at(7)


def _write(prefix: Path) -> str:
    write_bundle(str(prefix), VALUES)
    return str(prefix)


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """The prefix of a bundle that holds `VALUES`."""
    return _write(tmp_path / "b")


def test_a_stock_savers_checkpoints_are_read_or_stepped_over(tmp_path: Path) -> None:
    """By TensorFlow's reader, whose errors are of many kinds, wherever the cut is."""
    for step in (7, 8):
        with stock.checkpoint(tmp_path / f"my-model-{step}"):
            for name, value in VALUES.items():
                v1.get_variable(name, initializer=value, use_resource=False)
    found = read_variables(f"{tmp_path}/my-model-8", SPECS)
    assert all(found[name].tobytes() == VALUES[name].tobytes() for name in VALUES)
    data = tmp_path / "my-model-8.data-00000-of-00001"
    content = data.read_bytes()
    for size in range(len(content)):
        data.write_bytes(content[:size])
        restored = restore_newest(str(tmp_path), SPECS)
        assert restored is not None
        assert restored.step == 7
        with pytest.raises(CheckpointError):
            _read_all(CheckpointReader(f"{tmp_path}/my-model-8"))


def _read_all(reader: CheckpointReader) -> None:
    """As every other reader does."""
    for key in reader.shapes:
        reader.read(key)


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("layer/w", None, "is not in this model"),
        ("new", ((1,), "float32"), "is missing"),
        ("layer/b", ((3,), "float32"), r"is float32 \[2\], this model has float32 \[3\]"),
        ("global_step", ((), "int32"), r"is int64 \[\], this model has int32 \[\]"),
    ],
)
def test_each_difference_is_named(prefix: str, name: str, spec: Any, message: str) -> None:
    expected = SPECS | ({name: VariableSpec(*spec)} if spec else {})
    if spec is None:
        del expected[name]
    with pytest.raises(CheckpointError, match=f"{name} {message}"):
        read_variables(prefix, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.
@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("name", ["a[b]/m", "a*/m", "a?/m", "a\\b/m", "m[0]/q*[1]/m", "x/m[1]-*"])
def test_a_path_that_looks_like_a_pattern(
    tmp_path: Path, name: str, version: str, monkeypatch: Patch
) -> None:
    """In the format V1 TensorFlow is given it with escapes, of which no line tells."""
    (tmp_path / name).parent.mkdir(parents=True)
    if version == "V1":
        (tmp_path / name).write_bytes(_of_v1(tmp_path / "plain"))
    else:
        _write(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for prefix in (name, str(tmp_path / name)):
        reader = CheckpointReader(prefix)
        assert reader.version == version
        assert reader.read("layer/w").tolist() == VALUES["layer/w"].tolist()
    data = tmp_path / (name if version == "V1" else f"{name}.data-00000-of-00001")
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(CheckpointError) as caught:
        CheckpointReader(name).read("layer/w")
    assert "\\\\" not in str(caught.value).replace("a\\\\b", "")
    assert name in str(caught.value)


def _of_v1(path: Path) -> bytes:
    """What a checkpoint of `VALUES` in the format V1 is, which is written at a path."""
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in VALUES.items():
            v1.get_variable(name, initializer=value, use_resource=False)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1)
        saver.save(session, str(path), write_meta_graph=False, write_state=False)
    return path.read_bytes()


def test_no_other_folder_is_taken_for_it(tmp_path: Path) -> None:
    """TensorFlow would find the other's index, and read the files of neither."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "a[b]").mkdir()
    _write(tmp_path / "ab" / "m")
    with pytest.raises(CheckpointError, match=r"a\[b\]/m has no variables"):
        CheckpointReader(f"{tmp_path}/a[b]/m")


# Indexes that TensorFlow would abort over.


def _entry(sizes: Sequence[int], dtype: int = 1) -> BundleEntryProto:
    entry = BundleEntryProto(dtype=dtype, size=4)
    for size in sizes:
        entry.shape.dim.add(size=size)
    return entry


def _sliced(*extents: tuple[int, int]) -> BundleEntryProto:
    entry = _entry([4])
    part = entry.slices.add()
    for start, length in extents:
        part.extent.add(start=start, length=length)
    return entry


HEADER = BundleHeaderProto(num_shards=1).SerializeToString()


def _index(path: Path, entry: BundleEntryProto) -> str:
    path.write_bytes(table({b"": HEADER, b"w": entry.SerializeToString()}))
    return str(path)


@pytest.mark.parametrize(
    "entry",
    [_entry([]), _entry([0, 3]), _sliced((1, 3)), _sliced((0, 4))],
    ids=["scalar", "empty", "slice", "whole"],
)
def test_what_can_be_passes(tmp_path: Path, entry: BundleEntryProto) -> None:
    bundle.read_index(_index(tmp_path / "m.index", entry))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_entry([-5]), r"no tensor has the shape \[-5\]"),
        (_entry([1 << 62, 1 << 62]), "no tensor has the shape"),
        (_entry([1 << 62, 1 << 62, 0]), "no tensor has the shape"),
        (_entry([1] * 255), "no tensor has the shape"),
        # The first is that of a reference.
        *((_entry([1], dtype), f"there is no tensor of dtype {dtype}") for dtype in (101, 0, 77)),
        *((_sliced(extent), "a slice is not inside") for extent in ((-1, 1), (0, -1), (2, 3))),
        (_sliced(), "a slice has 0 dimensions, its tensor 1"),
        *(
            (BundleEntryProto(dtype=1, **place), "a place in its files is negative")
            for place in ({"size": -4}, {"size": 4, "offset": -4}, {"size": 4, "shard_id": -1})
        ),
    ],
    ids=range(14),
)
def test_what_cannot_be_is_refused(tmp_path: Path, entry: BundleEntryProto, message: str) -> None:
    """By every reader, that of a resumed run too."""
    prefix = _index(tmp_path / "m.index", entry).removesuffix(".index")
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(4))
    expected = rf"m is damaged: its index .*{message}"
    with pytest.raises(CheckpointError, match=expected) as caught:
        CheckpointReader(prefix)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=expected):
        read_variables(prefix, {"w": VariableSpec((1,), "float32")})


def test_any_change_of_a_byte_ends_in_time_and_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.index"
    content = Path(_index(path, _entry([4, 4]))).read_bytes()
    rng = np.random.default_rng(0)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] = int(rng.integers(256))
        path.write_bytes(changed)
        with suppress(CheckpointError):  # Some leave an index that can be.
            bundle.read_index(str(path))
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            bundle.read_index(str(path))


def _rows(*rows: tuple[int, bytes, bytes]) -> bytes:
    """A block of entries, each with the size of what its key shares with the one before it."""
    entries = [
        number(shared) + number(len(rest)) + number(len(value)) + rest + value
        for shared, rest, value in rows
    ]
    return b"".join(entries) + struct.pack("<II", 0, 1)


def test_a_key_that_shares_its_beginning() -> None:
    rows = _rows((0, b"conv/b", b"1"), (5, b"w", b"2"), (0, b"x", b""))
    expected = [(b"conv/b", b"1"), (b"conv/w", b"2"), (b"x", b"")]
    assert list(index_table._block_entries(rows)) == expected
    with pytest.raises(ValueError, match="not inside of its block"):
        list(index_table._block_entries(_rows((0, b"a", b""), (2, b"b", b""))))


def test_keys_that_would_take_all_memory(monkeypatch: Patch) -> None:
    """Each of these is one byte longer than the one before, and all are in a few bytes a key."""
    entries = {b"w" * size: b"" for size in range(20)}
    assert [*table_entries(table(entries))] == [*entries.items()]
    content = table(entries)
    monkeypatch.setattr(index_table, "MAX_BYTES", len(content))
    assert [*table_entries(content)]
    shared = index_table.write_table([*{b"w" * size: b"" for size in range(50)}.items()])
    monkeypatch.setattr(index_table, "MAX_BYTES", len(shared))
    with pytest.raises(ValueError, match="its keys are too long"):
        list(table_entries(shared))


def _one_block(entries: bytes, kind: bytes, index: bytes) -> bytes:
    content = b"".join(
        part + struct.pack("<I", checksum(part)) for part in (entries + kind, index + b"\0")
    )
    handles = number(0) + number(0) + number(len(entries) + 5) + number(len(index))
    return content + handles.ljust(40, b"\0") + MAGIC


def test_other_tables_are_refused(tmp_path: Path) -> None:
    """A block that is read many times or packed, and a key that comes twice."""
    path = tmp_path / "m.index"
    impossible, possible = (_entry(sizes).SerializeToString() for sizes in ([-5], [1]))
    entries = block({b"": HEADER, b"w": possible})
    handle = number(0) + number(len(entries))
    many = {bytes([i]): handle for i in range(100)}
    twice = _rows((0, b"", HEADER), (0, b"w", impossible), (0, b"w", possible))
    last = number(0) + number(len(twice))
    endless = b"\xff" * 40 + struct.pack("<II", 0, 1)
    place = number(0) + number(len(endless))
    for content, message in (
        (_one_block(entries, b"\0", block(many)), "its blocks overlap"),
        (_one_block(entries, b"\2", block({b"\xff": handle})), "compressed in an unknown way"),
        (_one_block(endless, b"\0", block({b"\xff": place})), "a number is too long"),
        (_one_block(twice, b"\0", block({b"\xff": last})), "no tensor has the shape"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            bundle.read_index(str(path))


def test_an_index_that_is_no_file_or_a_large_one(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "m.index"
    with pytest.raises(CheckpointError, match="there is no file"):
        bundle.read_index(str(path))
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="no regular file"):
        bundle.read_index(str(path))
    path.unlink()
    monkeypatch.setattr(index_table, "MAX_BYTES", 9)
    with pytest.raises(CheckpointError, match=r"more than the limit of 0\.0 MiB$"):
        bundle.read_index(_index(path, _entry([])))
