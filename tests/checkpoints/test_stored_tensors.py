"""Sizes, shards and slices, against what was saved and against the sizes of the files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from checkpoints.reader import CheckpointReader, stored_tensors
from errors import CheckpointError
from tests.prediction import stock

v1 = tf.compat.v1


def save(prefix: Path, values: Mapping[str, Any], slices: Mapping[str, str] | None = None) -> str:
    """Writes tensors as a Saver does; `slices` is name -> shape and slice, as SaveV2 takes it.

    A name may have `#` and a number at its end, for further slices of one tensor.
    """
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=[name.partition("#")[0] for name in values],
        shape_and_slices=[(slices or {}).get(name, "") for name in values],
        tensors=[*values.values()],
    )
    return str(prefix)


def save_shards(prefix: Path) -> str:
    """`w` [4, 3] in two slices, one in each of two data files; `b` [2] and `c` [] in one each."""
    first, second = np.ones([1, 3], np.float32), np.ones([3, 3], np.float32)
    parts = [
        save(prefix.with_name("p0"), {"w": first, "b": [1.0, 2.0]}, {"w": "4 3 0,1:0,3"}),
        save(prefix.with_name("p1"), {"w": second, "c": np.int64(3)}, {"w": "4 3 1,3:0,3"}),
    ]
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix))
    return str(prefix)


def test_whole_tensors_fill_the_file(tmp_path: Path) -> None:
    texts = tf.constant(["a", "bcd"])
    prefix = save(tmp_path / "m", {"x": np.zeros([5, 2]), "t": texts, "e": np.zeros([0, 2])})
    found = stored_tensors(CheckpointReader(prefix))
    size = Path(f"{prefix}.data-00000-of-00001").stat().st_size
    assert sum(tensor.disk_bytes or 0 for tensor in found.values()) == size
    assert (found["x"].disk_bytes, found["e"].disk_bytes) == (80, 0)


def test_any_name_of_a_tensor_in_slices(tmp_path: Path) -> None:
    rows, name = np.ones([2], np.float32), "\N{PILE OF POO}/\xff"
    slices = {name: "4 0,2", f"{name}#1": "4 2,2"}
    prefix = save(tmp_path / "m", dict.fromkeys(slices, rows), slices)
    assert stored_tensors(CheckpointReader(prefix)) == {name: (2, 16)}


@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.
@pytest.mark.parametrize("sharded", [False, True])
def test_of_v1_little_is_known(sharded: bool, tmp_path: Path) -> None:
    options = {"write_version": v1.train.SaverDef.V1, "sharded": sharded}
    with stock.checkpoint(tmp_path / "m", write_meta_graph=False, **options):
        v1.get_variable("w", [4, 3], partitioner=v1.fixed_size_partitioner(3), use_resource=False)
        v1.get_variable("b", [2], use_resource=False)
    reader = CheckpointReader(f"{tmp_path}/m")
    assert reader.version == "V1"
    assert stored_tensors(reader) == {"w": (None, None), "b": (None, None)}


def test_a_shard_that_there_is_none_of(tmp_path: Path) -> None:
    reader = CheckpointReader(save(tmp_path / "m", {"x": np.zeros(5)}))
    reader.index = {b"x": reader.index[b"x"]._replace(shard_id=1)}
    with pytest.raises(CheckpointError, match="m is damaged: it has no shard 1"):
        stored_tensors(reader)
