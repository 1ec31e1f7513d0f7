"""What the tests of prediction/ share: two checkpoints, made by plain TensorFlow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.description import TensorInfo
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.prediction import stock

v1 = tf.compat.v1

SIZE = 4  # Pixels of either side of the classifier's images.
CLASS_NAMES = ("ant", "bee", "cat")
SCALE = np.float32(1 / 255)


def build_classifier() -> None:
    """A linear classifier of images, with dropout, a loss and an accuracy."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((SIZE * SIZE * 3, len(CLASS_NAMES))).astype(np.float32)
    x = v1.placeholder(tf.float32, [None, SIZE, SIZE, 3], name="x")
    labels = v1.placeholder(tf.int64, [None], name="y_")
    keep_prob = v1.placeholder_with_default(1.0, [], name="keep_prob")
    w = v1.get_variable("fc/w", initializer=weights, use_resource=False)
    pixels = tf.nn.dropout(tf.reshape(x, [-1, SIZE * SIZE * 3]), rate=1.0 - keep_prob)
    logits = tf.matmul(pixels, w, name="logits")
    tf.nn.softmax(logits, name="probabilities")
    classes = tf.argmax(logits, axis=1, name="classes")
    tf.reduce_mean(tf.cast(tf.equal(classes, labels), tf.float32), name="acc")
    v1.add_to_collection("predict", logits)


def describe_classifier(proto: MetaGraphDef) -> None:
    """Adds what a meta graph of ours says of a classifier."""
    signature = proto.signature_def["serving_default"]
    signature.inputs["x"].name = "x:0"
    for name in ("logits", "probabilities", "classes"):
        signature.outputs[name].name = f"{name}:0"
    names = [name.encode() for name in CLASS_NAMES]
    proto.collection_def["class_names"].bytes_list.value.extend(names)
    proto.collection_def["input_scale"].float_list.value.append(float(SCALE))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The `.meta` file of a classifier of images with named classes."""
    folder = tmp_path_factory.mktemp("classifier")
    with stock.checkpoint(folder / "m-3"):
        build_classifier()
    stock.edit_meta(folder / "m-3.meta", describe_classifier)
    return str(folder / "m-3.meta")


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The `.meta` file of y = 2 x + 0.5, without a signature."""
    folder = tmp_path_factory.mktemp("line")
    with stock.checkpoint(folder / "m-3"):
        x = v1.placeholder(tf.float32, [None], name="x")
        target = v1.placeholder(tf.float32, [None], name="y_")
        w = v1.get_variable("w", initializer=np.array([2], np.float32), use_resource=False)
        b = v1.get_variable("b", initializer=np.array([0.5], np.float32), use_resource=False)
        y = tf.add(w * x, b, name="y")
        tf.reduce_mean(tf.square(y - target), name="loss")
        v1.add_to_collection("predict", y)
    return str(folder / "m-3.meta")


@pytest.fixture(scope="session")
def images() -> Any:
    """uint8 [7, 4, 4, 3], for the classifier."""
    return np.random.default_rng(1).integers(0, 256, (7, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that are logged."""
    lines: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda text, *values: lines.append(text % values))
    return lines


def info(dtype: tf.DType, *shape: int | None) -> TensorInfo:
    """A tensor `t:0`, to be fed."""
    return TensorInfo("t:0", dtype, shape)


def write_npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def document(meta: str, **options: Any) -> Any:
    """What predict.py prints as JSON."""
    return json.loads(predict(PredictConfig(meta, format="json", **options)))


def outputs(folder: Path, meta: str, *fetch: str, **options: Any) -> list[Any]:
    """What predict.py writes for each of the fetched tensors."""
    predict(PredictConfig(meta, fetch=fetch, output=f"{folder}/out.npz", **options))
    with np.load(folder / "out.npz") as found:
        return [found[f"{name}:0"] for name in fetch]
