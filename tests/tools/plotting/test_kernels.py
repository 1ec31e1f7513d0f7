"""Kernels out of any graph."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from errors import CheckpointError, ToolError
from prediction.chosen_model import with_model
from prediction.request import PredictConfig
from tests.prediction import stock
from tools.plot_filters import Kernel, read_kernel

v1 = tf.compat.v1

THIRD_PARTY = Path(__file__).resolve().parents[4] / "shared" / "thirdparty"


def _kernel(meta: object, tensor: str | None = None) -> Kernel:
    config = PredictConfig(str(meta))
    return with_model(config, lambda m, model: read_kernel(config, m, model, tensor))


def _random(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _by_reader(prefix: object, key: str) -> npt.NDArray[Any]:
    return np.asarray(tf.train.load_checkpoint(str(prefix)).get_tensor(key))


def test_the_first_that_the_prediction_needs(cnn_run: Path) -> None:
    found = _kernel(cnn_run)
    assert found.name == "conv1/w:0"
    np.testing.assert_array_equal(found.values, _by_reader(cnn_run / "my-model-200", "conv1/w"))


def test_any_other_by_name(cnn_run: Path) -> None:
    found = _kernel(cnn_run / "my-model-190", "conv2/w")
    np.testing.assert_array_equal(found.values, _by_reader(cnn_run / "my-model-190", "conv2/w"))


def _build(use_resource: bool) -> None:
    """A first convolution that no prediction needs, and two that it does."""
    x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    kernels = {
        name: v1.get_variable(name, initializer=_random(*shape), use_resource=use_resource)
        for name, shape in {"aside": (2, 2, 3, 4), "one": (3, 3, 3, 5), "two": (1, 1, 5, 6)}.items()
    }
    tf.nn.conv2d(x, kernels["aside"], 1, "SAME")
    hidden = tf.nn.conv2d(x, tf.identity(kernels["one"]), 1, "SAME")
    y = tf.nn.conv2d(hidden, kernels["two"], 1, "SAME", name="y")
    v1.add_to_collection("predict", y)


@pytest.mark.parametrize("use_resource", [False, True])
def test_strangers_variables_of_both_kinds(tmp_path: Path, use_resource: bool) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _build(use_resource)
    found = _kernel(tmp_path / "m.meta")
    assert found.name == "one:0"
    np.testing.assert_array_equal(found.values, _random(3, 3, 3, 5))


def test_a_partitioned_variable_is_whole(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        with v1.variable_scope("conv", partitioner=v1.fixed_size_partitioner(2, axis=3)):
            w = v1.get_variable("w", [3, 3, 3, 8], initializer=v1.ones_initializer())
        v1.add_to_collection("predict", tf.nn.conv2d(x, w, 1, "SAME"))
    np.testing.assert_array_equal(_kernel(tmp_path / "m.meta").values, np.ones((3, 3, 3, 8)))


def test_a_frozen_graph_has_its_kernels_too(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 8, 8, 1], name="x")
        tf.nn.softmax(tf.nn.conv2d(x, _random(3, 3, 1, 2), 1, "SAME"), name="y")
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    found = _kernel(tmp_path / "frozen.pb")
    np.testing.assert_array_equal(found.values, _random(3, 3, 1, 2))


def test_a_filter_that_is_fed_is_no_weights(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("step", initializer=0)
        x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        fed = v1.placeholder(tf.float32, [3, 3, 3, 2], name="fed")
        v1.add_to_collection("predict", tf.nn.conv2d(x, fed, 1, "SAME", name="y"))
    with pytest.raises(ToolError, match="found no convolution that its prediction needs"):
        _kernel(tmp_path / "m.meta")
    with pytest.raises(ToolError, match="it follows from x:0, fed:0"):
        _kernel(tmp_path / "m.meta", "y")


def test_a_graph_without_convolutions_is_one_line(linear_run: Path) -> None:
    with pytest.raises(ToolError, match=r"found no convolution that its prediction needs"):
        _kernel(linear_run)


def test_what_the_prediction_does_not_need_is_offered(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _build(use_resource=False)
        v1.get_collection_ref("predict")[:] = [v1.get_default_graph().get_tensor_by_name("x:0")]
    with pytest.raises(ToolError, match="such as aside:0, one:0, two:0"):
        _kernel(tmp_path / "m.meta")


@pytest.mark.parametrize("tensor", ["fc1/w", "conv1/b:0", "global_step"])
def test_what_is_no_kernel_is_one_line(cnn_run: Path, tensor: str) -> None:
    with pytest.raises(ToolError, match="expected a kernel") as told:
        _kernel(cnn_run, tensor)
    assert tensor.removesuffix(":0") in str(told.value)


def test_an_unknown_tensor_is_one_line(cnn_run: Path) -> None:
    with pytest.raises(CheckpointError, match="has no tensor 'conv9/w'"):
        _kernel(cnn_run, "conv9/w")


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("face CNN (slim), TFRecord", "conv1/weights:0", (3, 3, 3, 10)),
        ("CNN MNIST batch-norm", "d_h0_conv/w:0", (5, 5, 1, 32)),
    ],
)
def test_checkpoints_of_public_projects(kind: str, name: str, shape: tuple[int, ...]) -> None:
    if not THIRD_PARTY.is_dir():
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")
    entries = json.loads((THIRD_PARTY / "index.json").read_text())
    (entry,) = (e for e in entries if e["kind"].startswith(kind))
    found = _kernel(THIRD_PARTY / entry["meta"])
    assert (found.name, found.values.shape) == (name, shape)
    expected = _by_reader(THIRD_PARTY / entry["prefix"], name.removesuffix(":0"))
    np.testing.assert_array_equal(found.values, expected)
