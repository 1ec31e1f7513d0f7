"""The reader and the writer of bundles, against TensorFlow's own, on every kind of tensor."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from checkpoints import bundle, index_table
from checkpoints.bundle import Slice, slice_key, write_bundle
from checkpoints.reader import CheckpointReader
from errors import CheckpointError
from tests.checkpoints.index_files import checksum, number, table
from tests.checkpoints.test_stored_tensors import save, save_shards
from tests.test_thirdparty import THIRD_PARTY

v1 = tf.compat.v1
DATA, INDEX = ".data-00000-of-00001", ".index"
Array = np.ndarray[Any, Any]


def _made(seed: int = 0) -> dict[str, Array]:
    """Tensors of every dtype that a Saver saves, and of several ranks."""
    rng = np.random.default_rng(seed)
    values: dict[str, Array] = {"texts": np.array([[b"a\0", b"", b"x" * 300]], object)}
    values["text"] = np.array(b"\xff\0", object)
    for kind in range(1, bundle.MOST_NUMBER + 1):
        dtype = bundle.as_dtype(kind)
        if not dtype.size or "q" in dtype or dtype in ("int2", "uint2", "float4_e2m1fn"):
            continue  # SaveV2 takes no quantized array from NumPy, and none of so few bits.
        value = rng.integers(0, 7, (2, 3)).astype(dtype.as_numpy_dtype)
        values |= {dtype.name: value, f"{dtype.name}/one": value[0, 0], dtype.name * 2: value[:0]}
    return {name: np.asarray(value) for name, value in values.items()}


def _check_equal(prefix: str) -> CheckpointReader:
    """Opens a checkpoint that reads as TensorFlow reads it."""
    ours, theirs = CheckpointReader(prefix), v1.train.NewCheckpointReader(prefix)
    assert ours.shapes == theirs.get_variable_to_shape_map()
    assert ours.dtypes == theirs.get_variable_to_dtype_map()
    for key, dtype in ours.dtypes.items():
        expected = np.asarray(theirs.get_tensor(key), object if dtype == bundle.STRING else None)
        _check_same(ours.read(key), expected)
    return ours


def _check_same(found: Array, expected: Array) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if found.dtype == object:
        assert found.tolist() == expected.tolist()
    assert found.dtype == object or found.tobytes() == expected.tobytes()


def test_every_dtype_is_told_and_read_as_tensorflow_does(tmp_path: Path) -> None:
    _check_equal(save(tmp_path / "m", _made()))
    told = ("name", "size", "is_floating", "is_integer", "is_complex", "is_bool")
    for kind in range(1, bundle.MOST_NUMBER + 1):
        ours, theirs = bundle.as_dtype(kind), tf.as_dtype(kind)
        assert ours == theirs == tf.as_dtype(ours)
        assert [getattr(ours, name) for name in told] == [getattr(theirs, name) for name in told]
        if ours.size and not ours.is_complex and "q" not in ours and not ours.is_bool:
            assert (ours.min, ours.max) == (
                theirs.min,
                theirs.max,
            ) or ours == "float4_e2m1fn"
        if ours.size:
            assert ours.as_numpy_dtype == np.dtype(theirs.as_numpy_dtype)
    with pytest.raises(TypeError):
        tf.as_dtype(bundle.MOST_NUMBER + 1)  # Else this TensorFlow has one more.


def test_what_is_written_has_the_bytes_of_tensorflows_own_writer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    many = {f"layer_{rng.integers(10**9)}/{i}": np.array([i], np.float32) for i in range(9000)}
    for number_of, values in enumerate((_made(), many, {"a\xff\0b": np.zeros(3)})):
        theirs, ours = tmp_path / f"theirs{number_of}", tmp_path / f"ours{number_of}"
        save(theirs, values)
        write_bundle(str(ours), values)
        for suffix in (DATA, INDEX):
            assert Path(f"{ours}{suffix}").read_bytes() == Path(f"{theirs}{suffix}").read_bytes()


def test_slices_and_shards(tmp_path: Path) -> None:
    """One tensor in slices of many places, along both dimensions and whole along one."""
    _check_equal(save_shards(tmp_path / "shards"))
    value = np.arange(300 * 70, dtype=np.float32).reshape(300, 70)
    slices, values = dict[str, str](), dict[str, Array]()
    for count, (row, column) in enumerate(itertools.product((0, 100, 200), (0, 65))):
        width = 65 if column == 0 else 5
        slices[f"w#{count}"] = f"300 70 {row},100:{column},{width}"
        values[f"w#{count}"] = value[row : row + 100, column : column + width]
    slices |= {"v#0": "300 70 0,299:-", "v#1": "300 70 299,1:-"}
    values |= {"v#0": value[:299], "v#1": value[299:]}
    reader = _check_equal(save(tmp_path / "m", values, slices))
    _check_same(reader.read("w"), value)
    _check_same(reader.read("v"), value)
    reader.index = {k: e for k, e in reader.index.items() if k != sorted(reader.index)[1]}
    with pytest.raises(CheckpointError, match="m is damaged: v: it lacks a slice"):
        [reader.read(key) for key in ("v", "w")]


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (((0, 2), (1, 2)), "its slices overlap"),
        (((0, 2), (2, 1)), "its slices do not fill it"),
        (((0, 2), (0, 2)), "its slices do not fill it"),
    ],
)
def test_slices_that_are_no_tensor(
    tmp_path: Path, slices: tuple[tuple[int, int], ...], message: str
) -> None:
    entry = BundleEntryProto(dtype=1)
    entry.shape.dim.add(size=4)
    rows = {b"": BundleHeaderProto(num_shards=1).SerializeToString(), b"w": b""}
    content = bytes(8)
    for start, length in slices:
        entry.slices.add().extent.add(start=start, length=length)
        stored = BundleEntryProto(dtype=1, size=4 * length)
        stored.crc32c = checksum(content[: 4 * length])
        stored.shape.dim.add(size=length)
        rows[slice_key(b"w", Slice((start,), (length,)))] = stored.SerializeToString()
    rows[b"w"] = entry.SerializeToString()
    (tmp_path / f"m{INDEX}").write_bytes(table(dict(sorted(rows.items()))))
    (tmp_path / f"m{DATA}").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        CheckpointReader(str(tmp_path / "m")).read("w")


@pytest.mark.skipif(not THIRD_PARTY.is_dir(), reason="needs the checkpoints of public projects")
def test_checkpoints_of_public_projects() -> None:
    found = sorted(THIRD_PARTY.rglob(f"*{INDEX}"))
    assert found
    for path in found:
        _check_equal(str(path).removesuffix(INDEX))


def test_a_checkpoint_of_a_big_endian_machine(tmp_path: Path) -> None:
    value = np.arange(6, dtype=np.int32)
    content = value.astype(">i4").tobytes()
    entry = BundleEntryProto(dtype=3, size=24, crc32c=checksum(content))
    entry.shape.dim.add(size=6)
    header = BundleHeaderProto(num_shards=1, endianness=BundleHeaderProto.BIG)
    rows = {b"": header.SerializeToString(), b"w": entry.SerializeToString()}
    (tmp_path / f"m{INDEX}").write_bytes(table(rows))
    (tmp_path / f"m{DATA}").write_bytes(content)
    _check_same(_check_equal(str(tmp_path / "m")).read("w"), value)


def test_on_one_of_tensorflows_own_file_systems(tmp_path: Path) -> None:
    values = _made()
    write_bundle("ram://folder/m", values)
    reader = _check_equal("ram://folder/m")
    assert {*reader.shapes} == {*values}
    with pytest.raises(CheckpointError, match="has no variables"):
        CheckpointReader("ram://folder/none")
    write_bundle(f"file://{tmp_path}/m", values)
    _check_equal(str(tmp_path / "m"))


# Damage.


def test_whatever_damage_tensorflow_finds_is_found(tmp_path: Path) -> None:
    """A thousand: a byte changed, bytes zeroed, a file cut short or with more at its end."""
    whole = save(tmp_path / "whole", {**_made(), "w": np.arange(500, dtype=np.float32)})
    contents = {suffix: Path(whole + suffix).read_bytes() for suffix in (INDEX, DATA)}
    expected = _read_all(tf.train.load_checkpoint(whole))
    rng, found = np.random.default_rng(1), 0
    for case in range(1000):
        suffix = (INDEX, DATA)[case % 2]
        prefix = str(tmp_path / "damaged")
        for name, content in contents.items():
            Path(prefix + name).write_bytes(_damaged(content, rng) if name == suffix else content)
        theirs = _outcome(tf.train.load_checkpoint, prefix)
        ours = _outcome(CheckpointReader, prefix)
        if theirs is None:
            found += 1
            assert ours is None, case
        assert ours is None or ours == expected, case
    assert found > 800


def _damaged(content: bytes, rng: np.random.Generator) -> bytes:
    place, changed = int(rng.integers(len(content))), bytearray(content)
    kind = int(rng.integers(5))
    if kind < 2:
        changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        changed[place : place + 64] = bytes(len(changed[place : place + 64]))
    elif kind == 3:
        del changed[place:]
    else:
        changed[place:place] = rng.bytes(5)
    return bytes(changed)


def _read_all(reader: Any) -> dict[str, Any]:
    if isinstance(reader, CheckpointReader):
        return {key: reader.read(key).tolist() for key in sorted(reader.shapes)}
    kinds = sorted(reader.get_variable_to_dtype_map().items())
    texts = {key: object if dtype == tf.string else None for key, dtype in kinds}
    return {key: np.asarray(reader.get_tensor(key), kind).tolist() for key, kind in texts.items()}


def _outcome(opened: Callable[[str], Any], prefix: str) -> dict[str, Any] | None:
    """All values; None where they cannot be read. What TensorFlow raises is of many kinds."""
    kinds: tuple[type[Exception], ...] = (CheckpointError,)
    if opened is not CheckpointReader:
        kinds = (tf.errors.OpError, RuntimeError, ValueError, IndexError, SystemError, TypeError)
    try:
        return _read_all(opened(prefix))
    except kinds:
        return None


# Blocks that Snappy has compressed.


def test_an_index_that_snappy_has_compressed(tmp_path: Path) -> None:
    """TensorFlow reads it too."""
    values = {f"some/rather/long/scope/of/{i:03}": np.ones(3) for i in range(200)}
    rows = dict(index_table.table_entries(Path(save(tmp_path / "m", values) + INDEX).read_bytes()))
    plain = table(rows)
    packed = table(rows, compress=_compressed)
    assert len(packed) < len(plain) * 0.9
    Path(f"{tmp_path}/m{INDEX}").write_bytes(packed)
    _check_equal(str(tmp_path / "m"))


def _compressed(content: bytes) -> bytes:
    """As Snappy may write it: what comes again is a reference, the rest stands as it is."""
    out, position, since = number(len(content)), 0, 0

    def literal(stop: int) -> bytes:
        pieces = [content[at : min(at + 60, stop)] for at in range(since, stop, 60)]
        return b"".join(bytes([len(piece) - 1 << 2]) + piece for piece in pieces)

    while position < len(content):
        length = next((n for n in (32, 8) if len(content) - position >= n), 0)
        before = content.rfind(content[position : position + length], 0, position) if length else -1
        if before < 0 or position - before >= 1 << 16:
            position += 1
            continue
        out += literal(position) + bytes([length - 1 << 2 | 2])
        out += (position - before).to_bytes(2, "little")
        position = since = position + length
    return out + literal(len(content))


def test_blocks_of_every_element_and_bad_ones() -> None:
    """Elements: https://github.com/google/snappy/blob/main/format_description.txt."""
    long = bytes(range(256)) * 2
    packed = number(len(long) + 8 + 10) + b"\xf4\xff\x01" + long
    packed += b"\x11\x04"  # Eight bytes, such as four twice, from four bytes before.
    packed += b"\x24" + b"0123456789"
    assert index_table._unpacked(packed, 1 << 20) == long + long[-4:] * 2 + b"0123456789"
    for bad, message in (
        (number(1 << 40) + b"\x00a", "too large"),
        (number(9) + b"\x00a", "not as long as it says"),
        (number(4) + b"\x01\x05", "what is before it"),
        (number(4) + b"\x00a\x0e\x00\x00", "what is before it"),
        (b"\xff" * 11, "a number is too long"),
    ):
        with pytest.raises(ValueError, match=message):
            index_table._unpacked(bad, 1 << 20)


def test_bfloat16_is_numpys_as_ml_dtypes_has_it(tmp_path: Path) -> None:
    value = np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16)
    write_bundle(str(tmp_path / "m"), {"w": value})
    assert tf.train.load_checkpoint(str(tmp_path / "m")).get_tensor("w").tolist() == value.tolist()
