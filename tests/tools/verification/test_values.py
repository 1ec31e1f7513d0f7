"""Every tensor is read, whatever its format, and damage is told with the tensor's name."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.prediction import stock
from tools.verify_checkpoint import read_all

v1 = tf.compat.v1


def _several(path: Path, **saver_options: object) -> str:
    with stock.checkpoint(path / "m", **saver_options):
        v1.get_variable("a", initializer=np.arange(1000.0), use_resource=False)
        v1.get_variable("b", initializer=np.arange(6).reshape(2, 3), use_resource=False)
        v1.get_variable("words", initializer=["x", "yy"], use_resource=False)
    return f"{path}/m"


@pytest.mark.parametrize("version", [v1.train.SaverDef.V1, v1.train.SaverDef.V2])
@pytest.mark.parametrize("sharded", [False, True])
def test_it_counts_what_it_reads(version: int, sharded: bool, tmp_path: Path) -> None:
    found = read_all(_several(tmp_path, write_version=version, sharded=sharded))
    assert (found.tensors, found.problems, found.step) == (3, [], None)
    assert found.value_bytes == 1000 * 8 + 6 * 8


def test_one_damaged_tensor_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    prefix = _several(tmp_path)
    data = tmp_path / "m.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    found = read_all(prefix)
    assert found.tensors == 3
    (line,) = found.problems
    assert line.startswith("1 of its 3 tensors cannot be read: a: ")
    assert "hecksum" in line


def test_the_step_is_that_of_the_variable(ours: Path) -> None:
    assert read_all(f"{ours}/my-model-280").step == 280
