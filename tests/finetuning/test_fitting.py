"""Images in the shape and on the scale that a model takes, and the values it begins with."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import finetune
from checkpoints.writer import export_meta_graph
from errors import DataError, TrainingError
from finetuning import FinetuneConfig
from finetuning.fitting import make_task
from models import mlp
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.checkpoints.test_stored_tensors import save
from tests.conftest import Log
from tests.finetuning import bases
from tests.finetuning.bases import v1
from tests.metagraph.made import refused
from tests.prediction.conftest import outputs
from training import loop

Config = Callable[..., FinetuneConfig]


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
    ((images, labels),) = make_task(config).batches(0, 1)
    assert images.shape == (8, *given)
    brightest = images.reshape(8, -1).max(axis=1)
    red = 250 if given[-1] == 3 else 75  # 0.299 of it is its brightness
    np.testing.assert_allclose(brightest, labels * red / 255, rtol=1e-6)


def test_scale_and_offset_go_along(finetune_config: Config, folder: Path, tmp_path: Path) -> None:
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
    meta = finetune.train(config).prefix + ".meta"
    (features,) = outputs(tmp_path, meta, "features", input=[str(folder)])
    np.testing.assert_allclose(features[:4, 1], -127.5 / 128)
    np.testing.assert_allclose(features[4:, 1], (250 - 127.5) / 128)


def test_arrays_of_the_own_shape_go_as_they_are(finetune_config: Config, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((12, 7), np.float32)
    np.savez(tmp_path / "rows.npz", X=values, Y=np.arange(12) % 2)
    meta = _taking(tmp_path, [None, 7])
    config = finetune_config(meta, "features", data=f"{tmp_path}/rows.npz", batch_size=12)
    ((rows, _),) = make_task(config).batches(0, 1)
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in values}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([None, 7], r"can be made \[S, S, 3\] or \[S, S, 1\], and the model takes \[7\]"),
        ([None, 8, 12, 3], r"the model takes \[8, 12, 3\]"),
        ([None, None], "its sizes are not known"),
    ],
)
def test_a_shape_that_no_image_has_is_one_line(
    finetune_config: Config, folder: Path, tmp_path: Path, shape: list[int | None], message: str
) -> None:
    config = finetune_config(_taking(tmp_path, shape), "features", data=str(folder))
    with refused(message, (DataError, TrainingError)):
        make_task(config)
    with refused(f"--data=ramp: expected the|{message}", (DataError, TrainingError)):
        make_task(dataclasses.replace(config, data="ramp"))


def test_a_model_of_rows_as_images(finetune_config: Config, folder: Path, tmp_path: Path) -> None:
    """Of the network for digits: files become grey rows of 784, in training and for predict.py."""
    model = mlp.build(learning_rate=1e-3, seed=0)
    content = export_meta_graph(model, input_scale=1 / 255, image_shape=(28, 28, 1))
    (tmp_path / "m.meta").write_bytes(content)
    with model.graph.as_default(), v1.Session() as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
    config = finetune_config(f"{tmp_path}/m.meta", "logits", data=str(folder), batch_size=8)
    ((images, _),) = make_task(config).batches(0, 1)
    assert images.shape == (8, 28, 28, 1)
    outcome = finetune.train(config)
    text = predict(PredictConfig(outcome.prefix + ".meta", input=[str(folder)]))
    assert "(8 of 8)" in text


def test_what_is_not_taken_is_said(tmp_path: Path, finetune_config: Config, caplog: Log) -> None:
    meta = bases.save(tmp_path, bases.small)
    prefix = meta.removesuffix(".meta")
    more = {name: np.ones(3, np.float32) for name in ("first/gamma", "first/w/Adam", "beta1_power")}
    save(Path(prefix), {**bases.values_of(prefix), **more})
    caplog.set_level("INFO", logger="absl")
    assert finetune.train(finetune_config(meta, "features", train_steps=1)).step == 1
    left = "first/gamma, global_step, o, beta1_power, first/w/Adam"  # Slots are the last.
    assert f"not taken from {prefix}: {left}" in caplog.text
    config = finetune_config(meta, "features", exclude="first/gamma")
    with refused("--exclude=first/gamma: it matches none", TrainingError):
        make_task(config)


def test_values_of_objects_and_of_averages_and_of_two_checkpoints(
    finetune_config: Config, tmp_path: Path
) -> None:
    """As predict.py has them, by the same flags."""
    kernel, average = (np.full((1, 1, 3, 5), value, np.float32) for value in (2, 3))
    net = tf.Module()
    net.kernel = tf.Variable(kernel, name="first/w")
    objects = tf.train.Checkpoint(net=net).write(f"{tmp_path}/objects")
    save(tmp_path / "averages", {"first/w": kernel, "first/w/ExponentialMovingAverage": average})
    save(tmp_path / "nothing", {"other": kernel})
    meta = bases.save(tmp_path, bases.small)
    for given, weights, expected in (
        ([objects], "own", kernel),
        ([f"{tmp_path}/averages"], "ema", average),
        ([f"{tmp_path}/nothing", f"{tmp_path}/averages"], "own", kernel),
    ):
        config = finetune_config(meta, "maps", checkpoint=given, weights=weights)
        initial = make_task(config).initial_values()
        np.testing.assert_array_equal(initial.values["first/w"], expected)
        assert initial.origins["first/w"].startswith(given[-1])


@pytest.mark.parametrize(
    ("build", "tensor", "scopes", "said"),
    [
        (lambda: bases.small(batch=8), "batched", (), "takes 8 images at once, and no part of"),
        (bases.normed, "features", ("norm",), r"--shards: norm/\S+ follows from the whole batch"),
    ],
)
def test_what_needs_the_whole_batch_takes_no_shards(
    finetune_config: Config,
    tmp_path: Path,
    build: Callable[[], None],
    tensor: str,
    scopes: tuple[str, ...],
    said: str,
) -> None:
    meta = bases.save(tmp_path / "base", build)
    config = finetune_config(meta, tensor, batch_size=8, shards=4, train_scopes=scopes)
    with pytest.raises(TrainingError, match=said):
        make_task(config)


def test_a_stranger_s_dropout_is_cut_into_rows(finetune_config: Config, tmp_path: Path) -> None:
    """The loss of a sharded step is that of a plain one, but for the order of additions."""
    meta = bases.save(tmp_path / "base", bases.dropout)
    losses = []
    for shards in (1, 4):
        config = finetune_config(
            meta, "features", batch_size=8, shards=shards, train_feed=("share=0.5",)
        )
        task = make_task(config)
        with loop.open_session(task, config.run, lambda: None) as (session, _):
            session.initialize(task.initial_values().values)
            losses.append([session.train_step(b)["loss"] for b in task.batches(0, 3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len({*losses[0]}) == 3
