"""Real checkpoints of public projects as bases."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import finetune
from finetuning.settings import FinetuneConfig
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.finetuning.bases import values_of
from tests.prediction import stock

THIRD_PARTY = Path(__file__).resolve().parents[3] / "shared" / "thirdparty"


# The checkpoint's prefix, what the head takes, changes of the config, the shape of an image.
REAL: dict[str, tuple[str, str, dict[str, Any], tuple[int, ...]]] = {
    "P-Net": (
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
    "batch-norm CNN": (
        "hardmaru__batchnorm-convnet-mnist-tensorflow/save/model.ckpt-4",
        "Softmax",
        {"batch_size": None, "train_scopes": ("d_h2_lin", "d_bn2")},
        (26, 26, 1),
    ),
    "resource variables": (
        "WilsonCWu__open_spiel/save/checkpoint--1",
        "policy_dense/BiasAdd",
        {"train_scopes": ("torso_9_dense",)},
        (785,),
    ),
}


@pytest.mark.skipif(not THIRD_PARTY.is_dir(), reason="needs ../shared/thirdparty")
@pytest.mark.parametrize("name", REAL)
def test_it_is_fine_tuned_resumed_exactly_and_predicted_with(
    name: str, finetune_config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    checkpoint, tensor, changes, image = REAL[name]
    labels = np.arange(200) % 2
    noise = np.random.default_rng(0).integers(0, 200, (200, *image))
    images = noise + 50 * labels.reshape(-1, *[1] * len(image))
    np.savez(tmp_path / "rows.npz", X=images.astype(np.uint8), Y=labels)
    given = {"data": f"{tmp_path}/rows.npz", "batch_size": 20, "train_steps": 9, **changes}
    config = finetune_config(f"{THIRD_PARTY / checkpoint}.meta", tensor, **given)
    finetune.train(dataclasses.replace(config, train_steps=4))
    prefix = finetune.train(config).prefix
    run = dataclasses.replace(config.run, ckpt_dir=str(tmp_path / "unbroken"))
    unbroken = values_of(finetune.train(dataclasses.replace(config, run=run)).prefix)
    ours = values_of(prefix)
    assert {n: v.tobytes() for n, v in ours.items()} == {
        n: v.tobytes() for n, v in unbroken.items()
    }
    theirs = values_of(str(THIRD_PARTY / checkpoint))
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
    proto = tf.compat.v1.MetaGraphDef.FromString(Path(prefix + ".meta").read_bytes())
    (x,) = proto.signature_def["serving_default"].inputs.values()
    (expected,) = stock.run(prefix + ".meta", ["head/add:0"], {x.name: fed})
    np.testing.assert_allclose(logits[:100], expected, rtol=1e-4, atol=1e-5)
