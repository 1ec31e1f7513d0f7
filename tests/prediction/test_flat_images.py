"""Images for a tensor whose rows are numbers, where the graph says what image a row holds."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import PredictionError
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.data.idx_files import idx_bytes
from tests.prediction import stock
from tests.prediction.conftest import (
    CLASS_NAMES,
    SCALE,
    describe_classifier,
    outputs,
    write_npz,
)

v1 = tf.compat.v1
SIZE = 6
WEIGHTS = np.random.default_rng(0).standard_normal((SIZE * SIZE * 3, len(CLASS_NAMES)))
Classifier = Callable[..., str]


@pytest.fixture
def flat_classifier(tmp_path: Path) -> Classifier:
    """Makes a linear classifier of rows of numbers, and gives its `.meta` file."""

    def make(*image_shape: int, features: int = SIZE * SIZE) -> str:
        with stock.checkpoint(tmp_path / "m-3"):
            x = v1.placeholder(tf.float32, [None, features], name="x")
            weights = WEIGHTS[:features].astype(np.float32)
            w = v1.get_variable("w", initializer=weights, use_resource=False)
            logits = tf.matmul(x, w, name="logits")
            tf.nn.softmax(logits, name="probabilities")
            tf.argmax(logits, axis=1, name="classes")
            v1.add_to_collection("predict", logits)

        def describe(proto: MetaGraphDef) -> None:
            describe_classifier(proto)
            proto.collection_def["image_shape"].int64_list.value.extend(image_shape)

        stock.edit_meta(tmp_path / "m-3.meta", describe)
        return str(tmp_path / "m-3.meta")

    return make


@pytest.fixture
def greys() -> Any:
    return np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE), np.uint8)


def _logits(meta: str, path: str) -> Any:
    return outputs(Path(meta).parent, meta, "logits", input=[path])[0]


def _expected(images: Any) -> Any:
    flat = images.reshape(len(images), -1)
    return (flat * SCALE).astype(np.float64) @ WEIGHTS[: flat.shape[1]]


def _write_images(folder: Path, images: Any) -> str:
    folder.mkdir()
    for row, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{row}.png")
    return str(folder)


def test_arrays_and_files_of_grey_images_are_the_same_rows(
    flat_classifier: Classifier, greys: Any, tmp_path: Path
) -> None:
    meta = flat_classifier(SIZE, SIZE, 1)
    np.save(tmp_path / "a.npy", greys)
    (tmp_path / "a-idx3-ubyte").write_bytes(idx_bytes(greys))
    paths = [
        write_npz(tmp_path / "flat.npz", X=greys.reshape(5, -1)),
        write_npz(tmp_path / "square.npz", X=greys),
        write_npz(tmp_path / "channel.npz", X=greys[..., np.newaxis]),
        write_npz(tmp_path / "floats.npz", X=greys * SCALE),
        _write_images(tmp_path / "images", greys),
        f"{tmp_path}/a.npy",
        f"{tmp_path}/a-idx3-ubyte",
    ]
    first, *others = (_logits(meta, path) for path in paths)
    np.testing.assert_allclose(first, _expected(greys), rtol=1e-4, atol=1e-5)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_colour_images_are_taken_for_their_brightness(
    flat_classifier: Classifier, tmp_path: Path
) -> None:
    colours = np.random.default_rng(2).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    greys = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colours])
    found = _logits(flat_classifier(SIZE, SIZE, 1), _write_images(tmp_path / "c", colours))
    np.testing.assert_allclose(found, _expected(greys), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels.idx1-ubyte"),
    ],
)
def test_images_as_of_mnist_have_the_labels_beside_them(
    flat_classifier: Classifier, greys: Any, tmp_path: Path, images: str, labels: str
) -> None:
    predicted = _expected(greys).argmax(axis=1)
    true = (predicted + np.array([0, 1, 0, 0, 2])) % 3
    for name, values in ((images, greys), (labels, true.astype(np.uint8))):
        content = idx_bytes(values)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    config = PredictConfig(flat_classifier(SIZE, SIZE, 1), input=[f"{tmp_path}/{images}"])
    assert "accuracy 0.6000 (3 of 5)" in predict(config)


@pytest.mark.parametrize("image_shape", [(), (SIZE, SIZE, 3), (9, 4, 1)])
def test_without_a_word_that_fits_images_are_refused(
    flat_classifier: Classifier, greys: Any, tmp_path: Path, image_shape: tuple[int, ...]
) -> None:
    meta = flat_classifier(*image_shape)
    with pytest.raises(PredictionError, match="images are for a tensor of shape"):
        _logits(meta, _write_images(tmp_path / "images", greys))
    with pytest.raises(PredictionError, match=r"takes float32 \[\?, 36\], found uint8 \[5, 6, 6\]"):
        _logits(meta, write_npz(tmp_path / "a.npz", X=greys))
