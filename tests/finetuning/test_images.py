"""Images in the shape and on the scale that a model takes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import finetune
from checkpoints.manifest import Description, export_meta_graph
from errors import DataError, TrainingError
from finetuning.fitting import make_task
from finetuning.settings import FinetuneConfig
from models import mlp
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.finetuning import bases

Config = Callable[..., FinetuneConfig]
v1 = tf.compat.v1


def _taking(folder: Path, shape: list[int | None] | None) -> str:
    """A model that takes images of this shape; `features` are the mean and the greatest value."""

    def build() -> None:
        x = v1.placeholder(tf.float32, shape, name="x")
        scale = v1.get_variable("scale", [], initializer=v1.ones_initializer(), use_resource=False)
        flat = tf.reshape(x, [tf.shape(x)[0], -1]) * scale
        features = tf.stack([tf.reduce_mean(flat, 1), tf.reduce_max(flat, 1)], axis=1)
        tf.identity(features, name="features")

    return bases.save(folder, build)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of four images each: black ones, and ones of a bright red."""
    for name, pixel in (("black", (0, 0, 0)), ("red", (250, 0, 0))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            image = Image.new("RGB", (40, 36), pixel)
            image.save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ([None, 12, 12, 3], (12, 12, 3)),
        ([None, 8, 8, 1], (8, 8, 1)),
        ([None, None, None, 3], (32, 32, 3)),
        (None, (32, 32, 3)),
    ],
)
def test_files_are_made_to_fit(
    finetune_config: Config,
    folder: Path,
    tmp_path: Path,
    shape: list[int | None] | None,
    given: tuple[int, ...],
) -> None:
    config = finetune_config(_taking(tmp_path, shape), "features", data=str(folder), batch_size=8)
    task = make_task(config)
    ((images, labels),) = task.batches(0, 1)
    assert images.shape == (8, *given)
    brightest = images.reshape(8, -1).max(axis=1)
    red = 250 if given[-1] == 3 else 75  # 0.299 of it is its brightness
    np.testing.assert_allclose(brightest, labels * red / 255, rtol=1e-6)


def test_scale_and_offset_are_those_that_predict_uses(
    finetune_config: Config, folder: Path, tmp_path: Path
) -> None:
    """Pixels are taken as (x - 127.5) / 128, in training and in the result."""
    config = finetune_config(
        _taking(tmp_path, [None, 12, 12, 3]),
        "features",
        data=str(folder),
        batch_size=8,
        input_scale=1 / 128,
        input_offset=-127.5 / 128,
    )
    ((images, _),) = make_task(config).batches(0, 1)
    assert images.max() == np.float32(250 / 128)
    outcome = finetune.train(config)
    predict(
        PredictConfig(
            outcome.prefix + ".meta",
            input=[str(folder)],
            fetch=["features"],
            output=f"{tmp_path}/out.npz",
        )
    )
    with np.load(tmp_path / "out.npz") as found:
        brightest = found["features:0"][:, 1]
    np.testing.assert_allclose(brightest[:4], -127.5 / 128)
    np.testing.assert_allclose(brightest[4:], (250 - 127.5) / 128)


def test_arrays_of_the_model_s_own_shape_go_as_they_are(
    finetune_config: Config, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).normal(0, 0.3, (12, 7)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", X=np.abs(values), Y=np.arange(12) % 2)
    meta = _taking(tmp_path, [None, 7])
    config = finetune_config(meta, "features", data=f"{tmp_path}/rows.npz", batch_size=12)
    ((rows, _),) = make_task(config).batches(0, 1)
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in np.abs(values)}
    assert finetune.train(config).step == 12


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([None, 7], r"can be made \[S, S, 3\] or \[S, S, 1\], and the model takes \[7\]"),
        ([None, 8, 12, 3], r"the model takes \[8, 12, 3\]"),
    ],
)
def test_a_shape_that_no_image_has_is_one_line(
    finetune_config: Config, folder: Path, tmp_path: Path, shape: list[int | None], message: str
) -> None:
    config = finetune_config(_taking(tmp_path, shape), "features", data=str(folder))
    with pytest.raises(DataError, match=message):
        make_task(config)
    ramp = dataclasses.replace(config, data="ramp")
    with pytest.raises(DataError, match="--data=ramp: expected the shape"):
        make_task(ramp)


def test_a_size_that_nobody_knows_is_one_line(finetune_config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="its sizes are not known"):
        make_task(finetune_config(_taking(tmp_path, [None, None]), "features"))


def test_a_model_whose_rows_are_images_is_given_images(
    finetune_config: Config, folder: Path, tmp_path: Path
) -> None:
    """Of the network for digits: files become grey rows of 784, in training and for predict.py."""
    model = mlp.build(learning_rate=1e-3, seed=0)
    description = Description(
        model.signature_inputs,
        model.signature_outputs,
        input_scale=1 / 255,
        image_shape=(28, 28, 1),
    )
    (tmp_path / "m.meta").write_bytes(export_meta_graph(model.graph, description))
    with model.graph.as_default(), v1.Session() as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
    config = finetune_config(f"{tmp_path}/m.meta", "logits", data=str(folder), batch_size=8)
    ((images, _),) = make_task(config).batches(0, 1)
    assert images.shape == (8, 28, 28, 1)
    outcome = finetune.train(config)
    text = predict(PredictConfig(outcome.prefix + ".meta", input=[str(folder)]))
    assert "(8 of 8)" in text
