"""Values from one checkpoint to another, a few at a time."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from errors import ToolError
from tests.prediction import stock
from tools.edit_files import GROUP_BYTES, plan_tensors, read_contents, write_tensors

v1 = tf.compat.v1


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """A stock checkpoint of three kinds of values; `b` was made, and so lies, before `a`."""
    with stock.checkpoint(tmp_path / "model"):
        v1.get_variable("b", initializer=np.linspace(-3, 3, 20, dtype=np.float32))
        v1.get_variable("a", initializer=np.arange(6).reshape(2, 3))
        v1.get_variable("text", initializer=np.array([b"x", b"", b"long"], object))
    return str(tmp_path / "model")


def _write(
    prefix: str,
    target: str,
    cast: tf.DType | None = None,
    allow_overflow: bool = False,
    group_bytes: int = GROUP_BYTES,
) -> None:
    contents = read_contents(prefix)
    tensors = plan_tensors(contents, {key: f"n/{key}" for key in contents.keys}, cast)
    write_tensors(contents.reader, tensors, target, allow_overflow, group_bytes)


@pytest.mark.parametrize(("group_bytes", "shards"), [(1 << 20, 1), (1, 3), (100, 2)])
def test_values_are_the_same_however_many_are_written_at_once(
    prefix: str, tmp_path: Path, group_bytes: int, shards: int
) -> None:
    (tmp_path / "out").mkdir()
    _write(prefix, f"{tmp_path}/out/new", group_bytes=group_bytes)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"new.index"} | {f"new.data-{n:05d}-of-{shards:05d}" for n in range(shards)}
    old, new = tf.train.load_checkpoint(prefix), tf.train.load_checkpoint(f"{tmp_path}/out/new")
    assert new.get_variable_to_shape_map() == {"n/a": [2, 3], "n/b": [20], "n/text": [3]}
    for key in ("a", "b", "text"):
        one, other = old.get_tensor(key), new.get_tensor(f"n/{key}")
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_values_keep_the_order_they_lie_in(prefix: str, tmp_path: Path) -> None:
    """Whatever their names are: what is renamed there and back is the same file."""
    contents = read_contents(prefix)
    tensors = plan_tensors(contents, {"a": "z", "b": "y", "text": "x"}, None)
    write_tensors(contents.reader, tensors, f"{tmp_path}/new", allow_overflow=False)
    suffix = ".data-00000-of-00001"
    assert Path(f"{tmp_path}/new{suffix}").read_bytes() == Path(prefix + suffix).read_bytes()
    assert read_contents(f"{tmp_path}/new").keys == [
        {"a": "z", "b": "y", "text": "x"}[key] for key in contents.keys
    ]


@pytest.mark.parametrize("cast", [tf.float16, tf.bfloat16, tf.float64], ids=lambda d: d.name)
def test_only_floating_numbers_are_cast(prefix: str, tmp_path: Path, cast: tf.DType) -> None:
    _write(prefix, f"{tmp_path}/new", cast)
    new = tf.train.load_checkpoint(f"{tmp_path}/new")
    assert new.get_variable_to_dtype_map() == {"n/a": tf.int64, "n/b": cast, "n/text": tf.string}
    expected = np.linspace(-3, 3, 20, dtype=np.float32).astype(cast.as_numpy_dtype)
    assert new.get_tensor("n/b").tobytes() == expected.tobytes()


def test_what_overflows_is_refused_by_name_unless_it_is_allowed(tmp_path: Path) -> None:
    prefix = f"{tmp_path}/model"
    with stock.checkpoint(Path(prefix)):
        v1.get_variable("small", initializer=np.array([65504, np.inf, np.nan], np.float32))
        v1.get_variable("large", initializer=np.array([1, -70000, 80000], np.float32))
    with pytest.raises(ToolError, match=r"large holds -70000, too large for float16 \(2 such of 3"):
        _write(prefix, f"{tmp_path}/new", tf.float16)
    _write(prefix, f"{tmp_path}/new", tf.bfloat16)
    _write(prefix, f"{tmp_path}/newer", tf.float16, allow_overflow=True)
    value = tf.train.load_checkpoint(f"{tmp_path}/newer").get_tensor("n/large")
    np.testing.assert_array_equal(value, [1, -np.inf, np.inf])


def test_a_folder_that_cannot_be_written_is_one_line(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match="could not write into"):
        _write(prefix, f"{tmp_path}/file/new")
