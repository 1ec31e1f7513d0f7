"""Reading variables from the checkpoints that stock Savers write, whole and broken."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.variable_values import Variable, read_values
from tests.prediction import stock

v1 = tf.compat.v1

VALUES: dict[str, npt.NDArray[Any]] = {
    "layer/w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, np.int64),
}
VARIABLES = [Variable(k, tf.as_dtype(v.dtype), tf.TensorShape(v.shape)) for k, v in VALUES.items()]


def _save(prefix: Path, **options: object) -> None:
    with stock.checkpoint(prefix, **options):
        for name, value in VALUES.items():
            v1.get_variable(name, initializer=value, use_resource=False)
        v1.get_variable("not/asked/for", [3], use_resource=False)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    _save(tmp_path / "m-7")
    return tmp_path / "m-7"


def _assert_read(prefix: Path | str) -> None:
    found = read_values(str(prefix), VARIABLES)
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert found[name].dtype == value.dtype
        assert found[name].tobytes() == value.tobytes()


def test_the_variables_that_are_asked_for_are_read(prefix: Path) -> None:
    _assert_read(prefix)


def test_a_shape_that_is_not_known_takes_any(prefix: Path) -> None:
    variable = Variable("layer/w", tf.float32, tf.TensorShape(None))
    assert read_values(str(prefix), [variable])["layer/w"].shape == (2, 3)


def test_no_variables_need_no_files(tmp_path: Path) -> None:
    assert read_values(f"{tmp_path}/absent", []) == {}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the old format.
def test_the_format_of_2016_is_read(tmp_path: Path, sharded: bool) -> None:
    version = tf.compat.v1.train.SaverDef.V1
    _save(tmp_path / "m", write_version=version, sharded=sharded)
    assert not list(tmp_path.glob("*.index"))
    _assert_read(tmp_path / "m")


def test_the_state_file_and_folders_of_its_name_are_not_looked_at(prefix: Path) -> None:
    prefix.mkdir()  # tf.train.load_checkpoint would follow a state file in it.
    (prefix / "checkpoint").write_text('model_checkpoint_path: "other"\n')
    (prefix.parent / "checkpoint").write_text('model_checkpoint_path: "C:\\\\gone\\\\m-9"\n')
    _assert_read(prefix)


def test_a_file_at_the_bare_prefix_is_not_taken_for_the_old_format(prefix: Path) -> None:
    prefix.write_bytes(b"\x80\x04 a pickle")
    _assert_read(prefix)


def test_an_empty_base_name_works(prefix: Path) -> None:
    for suffix in ("index", "data-00000-of-00001"):
        shutil.copy(f"{prefix}.{suffix}", prefix.parent / f".{suffix}")
    _assert_read(f"{prefix.parent}/")


def test_a_relative_prefix_works(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prefix.parent)
    _assert_read(prefix.name)


def _refused(prefix: Path, variables: list[Variable], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_values(str(prefix), variables)
    assert "\n" not in str(caught.value)


def test_a_missing_data_file_is_named(prefix: Path) -> None:
    Path(f"{prefix}.data-00000-of-00001").unlink()
    _refused(prefix, VARIABLES, r"m-7\.index is there, .*m-7\.data-00000-of-00001 is missing")


def test_a_missing_shard_is_named(prefix: Path) -> None:
    data = Path(f"{prefix}.data-00000-of-00001")
    data.rename(f"{prefix}.data-00000-of-00002")
    _refused(prefix, VARIABLES, "lacks shard 00001 of its 2 data files")


def test_missing_files_are_named(tmp_path: Path) -> None:
    _refused(tmp_path / "m", VARIABLES, r"expected .*/m\.index and .*/m\.data-00000-of-00001")


def test_missing_variables_are_named(prefix: Path) -> None:
    missing = [Variable(f"n{i}", tf.float32, tf.TensorShape([])) for i in range(12)]
    _refused(prefix, [*VARIABLES, *missing], r"lacks 12 of the 14 .*: n0, n1, .*, n9 and 2 more$")


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (Variable("layer/w", tf.float32, tf.TensorShape([3, 2])), r"float32 \[2, 3\].*\(3, 2\)"),
        (Variable("layer/w", tf.float32, tf.TensorShape([2])), r"layer/w is float32 \[2, 3\]"),
        (Variable("step", tf.int32, tf.TensorShape([])), r"step is int64 \[\].*int32 \(\)"),
    ],
)
def test_another_shape_or_dtype_is_refused(prefix: Path, variable: Variable, message: str) -> None:
    _refused(prefix, [variable], f"does not fit its graph: .*{message}")


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_damage_is_told(prefix: Path, suffix: str, how: str) -> None:
    path = Path(f"{prefix}.{suffix}")
    content = bytearray(path.read_bytes())
    content[8] ^= 0x10
    path.write_bytes(content[: len(content) // 2] if how == "cut" else content)
    _refused(prefix, VARIABLES, "m-7 is damaged")
