"""What a checkpoint is said to hold, against what was put into it."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints import manifest
from errors import CheckpointError
from metagraph.parsing import DEFAULT_MAX_BYTES
from tests.checkpoints.test_stored_tensors import save
from tests.prediction import stock
from tests.tools.conftest import Tool
from tools.checkpoint_contents import Contents, read_contents

v1 = tf.compat.v1


def _contents(prefix: str | Path) -> Contents:
    return read_contents(str(prefix), DEFAULT_MAX_BYTES)


def _roles(contents: Contents) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for tensor in contents.tensors:
        found.setdefault(tensor["role"], set()).add(tensor["path"])
    return found


def test_roles_by_the_graph(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        w = v1.get_variable("w", [3, 2], use_resource=False)
        v1.get_variable("bn/moving_mean", [2], trainable=False, use_resource=False)
        v1.get_variable("is_training", initializer=True, trainable=False, use_resource=False)
        step = v1.train.get_or_create_global_step()
        v1.get_variable("w/ExponentialMovingAverage", [3, 2], trainable=False, use_resource=False)
        v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(w), step)
    assert _roles(_contents(tmp_path / "m")) == {
        "model": {"w", "bn/moving_mean"},
        "slot": {"w/Momentum"},
        "other": {"is_training", "global_step", "w/ExponentialMovingAverage"},
    }


def test_an_average_alone_is_the_model(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"w/ExponentialMovingAverage": [1.0], "ids": np.arange(3)})
    assert _roles(_contents(prefix)) == {"model": {"w/ExponentialMovingAverage", "ids"}}


def test_sizes(tmp_path: Path) -> None:
    values = {"t": tf.constant(["abc", ""]), "x": np.zeros([3, 0, 2]), "y": np.zeros([3, 4], "f2")}
    contents = _contents(save(tmp_path / "m", values))
    sizes = {tensor["key"]: (tensor["values"], tensor["bytes"]) for tensor in contents.tensors}
    assert sizes == {"t": (2, None), "x": (0, 0), "y": (12, 24)}


@pytest.mark.parametrize("keras", [False, True], ids=["v1", "keras"])
def test_objects(keras: bool, tmp_path: Path) -> None:
    variable = tf.Variable([1.0, 2.0], name="weights")
    kind = tf.keras.optimizers.SGD if keras else v1.train.MomentumOptimizer
    optimizer = kind(0.1, momentum=0.9)
    optimizer.apply_gradients([(tf.ones([2]), variable)])
    checkpoint = tf.train.Checkpoint(net={"a/b.c": variable}, optimizer=optimizer)
    contents = _contents(checkpoint.save(str(tmp_path / "c")))
    slots = (
        {"optimizer/_iterations", "optimizer/_learning_rate", "optimizer/_variables/2"}
        if keras
        else {"net/a/b.c (optimizer/momentum)"}
    )
    own = "optimizer/_trainable_variables/0" if keras else "net/a/b.c"
    assert _roles(contents) == {
        "model": {own} if own in _roles(contents)["model"] else {"net/a/b.c"},
        "slot": slots,
        "other": {"_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter"},
    }
    (model,) = (tensor for tensor in contents.tensors if tensor["role"] == "model")
    assert model["variables"] == ["weights"]


def test_the_graph_of_objects_may_be_anything(tmp_path: Path) -> None:
    for number, text in enumerate([b"\xff\xff", b""]):
        values = {"_CHECKPOINTABLE_OBJECT_GRAPH": tf.constant(text), "w": [1.0]}
        contents = _contents(save(tmp_path / f"m{number}", values))
        assert [tensor["variables"] for tensor in contents.tensors] == [[], []]
    odd = save(tmp_path / "odd", {"_CHECKPOINTABLE_OBJECT_GRAPH": [1.0, 2.0]})
    assert [tensor["variables"] for tensor in _contents(odd).tensors] == [[]]
    number_one = save(tmp_path / "one", {"_CHECKPOINTABLE_OBJECT_GRAPH": 1.0})
    assert [tensor["variables"] for tensor in _contents(number_one).tensors] == [[]]


def test_a_damaged_graph_is_said_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("w", [3], use_resource=False)
    (tmp_path / "m.meta").write_bytes(b"\xff\xff\xff")
    contents = _contents(tmp_path / "m")
    assert contents.meta is None
    assert [tensor["key"] for tensor in contents.tensors] == ["w"]
    assert "read without its graph" in caplog.text


def _damage_index(folder: Path) -> None:
    path = folder / "my-model-300.index"
    path.write_bytes(path.read_bytes()[:-1])


def _damage_manifest(folder: Path) -> None:
    (folder / "my-model-300.manifest").write_text("{}")


@pytest.mark.parametrize("damage", [_damage_index, _damage_manifest])
def test_damage_is_one_line(
    damage: Callable[[Path], None], linear_run: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(linear_run, tmp_path / "model"))
    damage(folder)
    with pytest.raises(CheckpointError, match=r"^[^\n]*my-model-300[^\n]*$"):
        _contents(folder / "my-model-300")


@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.
def test_slices_that_only_the_graph_tells_of(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m", write_version=v1.train.SaverDef.V1):
        v1.get_variable("w", [4, 3], partitioner=v1.fixed_size_partitioner(2), use_resource=False)
    (tensor,) = _contents(tmp_path / "m").tensors
    assert (tensor["slices"], tensor["variables"]) == (2, ["w/part_0", "w/part_1"])


def test_a_saved_model_has_its_graph(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [2], name="x")
        y = x * v1.get_variable("scope/w", [2], use_resource=True)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "s"), {"x": x}, {"y": y})
    prefix = tmp_path / "s" / "variables" / "variables"
    contents = _contents(prefix)
    assert contents.meta is not None
    assert contents.meta.path == os.path.join(tmp_path, "s", "saved_model.pb")
    assert isinstance(contents.meta.proto, MetaGraphDef)
    assert [tensor["variables"] for tensor in contents.tensors] == [["scope/w"]]


def test_hostile_facts_of_a_manifest(linear_run: Path, tmp_path: Path, tool: Tool) -> None:
    """What JSON has not becomes text; a time that no clock has, its number."""
    folder = Path(shutil.copytree(linear_run, tmp_path / "model"))
    said = manifest.read(str(folder), 300)
    assert said is not None
    said = said._replace(saved_at=1e300, config={"rate": math.nan, "more": [math.inf, "a\nb"]})
    (folder / "my-model-300.manifest").write_bytes(manifest.encode(said))
    ended = tool("inspect_checkpoint", folder / "my-model-300", "--format=json")
    assert json.loads(ended.out)["manifest"]["config"] == {
        "rate": "NaN",
        "more": ["Infinity", "a\nb"],
    }
    text = tool("inspect_checkpoint", folder / "my-model-300").out
    assert 'config      more ["Infinity", "a\\nb"], rate NaN\n' in text
    assert "saved 1e+300" in text
    assert "1e+300" in tool("inspect_checkpoint", folder).out
