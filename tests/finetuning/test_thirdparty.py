"""Real checkpoints of public projects as bases."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import finetune
from finetuning.settings import FinetuneConfig
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.prediction import stock

THIRD_PARTY = Path(__file__).resolve().parents[3] / "shared" / "thirdparty"


class Real(NamedTuple):
    """A checkpoint, and how it is built on.

    Attributes:
      prefix: of the checkpoint, in the folder.
      tensor: what the head takes.
      changes: of the config.
      image: the shape of an image.
    """

    prefix: str
    tensor: str
    changes: dict[str, Any]
    image: tuple[int, ...]


REAL = {
    "P-Net": Real(
        "AITTSMD__MTCNN-Tensorflow/data/MTCNN_model/PNet_landmark/PNet-18",
        "conv3/add",
        {
            "head": "conv",
            "train_scopes": ("conv3",),
            "input_scale": 1 / 128,
            "input_offset": -127.5 / 128,
        },
        (12, 12, 3),
    ),
    "batch-norm CNN": Real(
        "hardmaru__batchnorm-convnet-mnist-tensorflow/save/model.ckpt-4",
        "Softmax",
        {"batch_size": None, "train_scopes": ("d_h2_lin", "d_bn2")},
        (26, 26, 1),
    ),
    "resource variables": Real(
        "WilsonCWu__open_spiel/save/checkpoint--1",
        "policy_dense/BiasAdd",
        {"train_scopes": ("torso_9_dense",)},
        (785,),
    ),
}


@pytest.fixture(params=list(REAL.values()), ids=list(REAL))
def real(request: pytest.FixtureRequest) -> Real:
    if not THIRD_PARTY.is_dir():
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")
    found: Real = request.param
    return found


@pytest.fixture
def config(
    real: Real, finetune_config: Callable[..., FinetuneConfig], tmp_path: Path
) -> FinetuneConfig:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    images = rng.integers(0, 200, (200, *real.image)) + 50 * labels.reshape(
        -1, *[1] * len(real.image)
    )
    np.savez(tmp_path / "rows.npz", X=images.astype(np.uint8), Y=labels)
    return finetune_config(
        f"{THIRD_PARTY / real.prefix}.meta",
        real.tensor,
        **{"data": f"{tmp_path}/rows.npz", "batch_size": 20, "train_steps": 9, **real.changes},
    )


def _values(prefix: str) -> dict[str, npt.NDArray[Any]]:
    reader = tf.compat.v1.train.NewCheckpointReader(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_it_is_fine_tuned_resumed_exactly_and_predicted_with(
    real: Real, config: FinetuneConfig, tmp_path: Path
) -> None:
    finetune.train(dataclasses.replace(config, train_steps=4))
    prefix = finetune.train(config).prefix
    run = dataclasses.replace(config.run, ckpt_dir=str(tmp_path / "unbroken"))
    unbroken = _values(finetune.train(dataclasses.replace(config, run=run)).prefix)
    ours = _values(prefix)
    assert {n: v.tobytes() for n, v in ours.items()} == {
        n: v.tobytes() for n, v in unbroken.items()
    }
    theirs = _values(str(THIRD_PARTY / real.prefix))
    scopes = tuple(f"{scope}/" for scope in config.train_scopes)
    counters = ("global_step", "beta1_power", "beta2_power")  # new, of the same names
    base = [name for name in ours if name in theirs and not name.startswith(counters)]
    changed = {name for name in base if ours[name].tobytes() != theirs[name].tobytes()}
    assert changed
    assert all(name.startswith(scopes) for name in changed)
    predict(PredictConfig(prefix + ".meta", input=[config.data], output=f"{tmp_path}/out.npz"))
    with np.load(tmp_path / "out.npz") as found, np.load(config.data) as rows:
        logits = found["head/add:0"]
        fed = rows["X"][:100] * np.float32(config.input_scale or 1 / 255)
    assert logits.shape == (200, 2)
    name = tf.compat.v1.MetaGraphDef.FromString(Path(prefix + ".meta").read_bytes())
    (x,) = name.signature_def["serving_default"].inputs.values()
    (expected,) = stock.run(prefix + ".meta", ["head/add:0"], {x.name: fed})
    np.testing.assert_allclose(logits[:100], expected, rtol=1e-4, atol=1e-5)
