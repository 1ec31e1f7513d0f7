"""Real checkpoints of public projects compute what plain TensorFlow does, and are bases.

They are at ../shared/thirdparty; its index.json names inputs and an output of each.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

import finetune
from finetuning import FinetuneConfig
from metagraph.meta import read_meta_graph
from metagraph.model import find_candidates
from tests import runs
from tests.finetuning.bases import values_of
from tests.prediction import stock
from tests.prediction.conftest import document, outputs

Array = npt.NDArray[Any]

THIRD_PARTY = Path(__file__).resolve().parents[2] / "shared" / "thirdparty"
VERSION_STOCK_REFUSES = "0.12.head"


def _entries() -> list[dict[str, Any]]:
    """The index, or one empty entry where the folder is not there."""
    index = THIRD_PARTY / "index.json"
    entries: list[dict[str, Any]] = json.loads(index.read_text()) if index.exists() else [{}]
    return entries


pytestmark = pytest.mark.usefixtures("third_party")
every_entry = pytest.mark.parametrize("entry", _entries(), ids=lambda e: e.get("kind", "absent"))


def _values(tensor: dict[str, Any], rng: np.random.Generator) -> Array:
    shape, dtype = tensor["shape"], tensor["dtype"]
    if dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.startswith("int"):  # Of the one such graph: node numbers, and numbers of nodes.
        counts = {"IteratorGetNext:5": 4096, "IteratorGetNext:6": 50}
        return np.full(shape, counts.get(tensor["name"], 0), dtype)
    return np.asarray(rng.random(shape), dtype)


def _feeds(entry: dict[str, Any]) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {tensor["name"]: _values(tensor, rng) for tensor in entry["inputs"]}


def _by_stock(entry: dict[str, Any], feeds: Mapping[str, Array], folder: Path) -> Array:
    """What import_meta_graph, restore and run give.

    Of the one file that `import_meta_graph` refuses, with InvalidVersion, a copy is imported that
    says a version it takes.
    """
    meta = THIRD_PARTY / entry["meta"]
    if entry["tf_version"] == VERSION_STOCK_REFUSES:
        proto = MetaGraphDef.FromString(meta.read_bytes())
        proto.meta_info_def.tensorflow_version = "0.12.0"
        meta = folder / "patched.meta"
        meta.write_bytes(proto.SerializeToString())
    (value,) = stock.run(meta, [entry["suggested_output"]], feeds, THIRD_PARTY / entry["prefix"])
    return value


def _predicted(entry: dict[str, Any], feeds: Mapping[str, Array], folder: Path) -> Array:
    np.savez(folder / "feeds.npz", **feeds)  # type: ignore[arg-type]
    meta, feed = str(THIRD_PARTY / entry["meta"]), [f"{folder}/feeds.npz"]
    (found,) = outputs(folder, meta, entry["suggested_output"].removesuffix(":0"), feed=feed)
    return np.asarray(found)


@every_entry
def test_predict_writes_what_a_stock_client_computes(entry: dict[str, Any], tmp_path: Path) -> None:
    feeds = _feeds(entry)
    ours, theirs = _predicted(entry, feeds, tmp_path), _by_stock(entry, feeds, tmp_path)
    assert list(ours.shape) == entry["out_shape"]
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@every_entry
def test_the_listing_names_inputs_and_the_likeliest_outputs(entry: dict[str, Any]) -> None:
    """Where the rows come from a pipeline, it is its outputs that are fed, and nothing else.

    Most of them read labels or other rows from a pipeline that no prediction stands on.
    """
    meta = str(THIRD_PARTY / entry["meta"])
    listed = document(meta, list=True)
    names = {key: [record["name"] for record in listed[key]] for key in ("inputs", "pipeline")}
    inputs = [tensor["name"] for tensor in entry["inputs"]]
    assert inputs in [found[: len(inputs)] for found in names.values()]
    assert set(names["pipeline"]) <= set(inputs)
    assert entry["suggested_output"] in find_candidates(read_meta_graph(meta)).outputs[:2]


def test_a_session_bundles_signature(tmp_path: Path) -> None:
    (entry,) = (e for e in _entries() if "/half_plus_two/" in e["meta"])
    rows = np.array([[1], [3]], np.float32)
    np.save(tmp_path / "rows.npy", rows)
    found = document(
        str(THIRD_PARTY / entry["meta"]),
        fetch=["outputs"],
        feed=[f"ParseExample/ParseExample={tmp_path}/rows.npy"],
    )
    (value,) = found["outputs"].values()
    assert value == (rows / 2 + 2).tolist()


def test_any_number_of_rows_goes_through_a_graph_of_a_fixed_batch(tmp_path: Path) -> None:
    (entry,) = (e for e in _entries() if e["meta"].endswith("PNet-18.meta"))
    (tensor,) = entry["inputs"]
    size, *shape = tensor["shape"]
    images = np.random.default_rng(0).random((size + 3, *shape), np.float32)
    np.save(tmp_path / "images.npy", images)
    meta, name = str(THIRD_PARTY / entry["meta"]), entry["suggested_output"].removesuffix(":0")
    (ours,) = outputs(tmp_path, meta, name, input=[f"{tmp_path}/images.npy"])
    assert len(ours) == size + 3
    for rows in (slice(size), slice(3, None)):
        theirs = _by_stock(entry, {tensor["name"]: images[rows]}, tmp_path)
        np.testing.assert_allclose(ours[rows], theirs, rtol=1e-6)


# As bases of a fine-tuning.

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
    unbroken = runs.with_run(config, ckpt_dir=f"{tmp_path}/unbroken")
    finetune.train(unbroken)
    assert runs.variables(config.run) == runs.variables(unbroken.run)
    ours = values_of(prefix)
    theirs = values_of(str(THIRD_PARTY / checkpoint))
    scopes = tuple(f"{scope}/" for scope in config.train_scopes)
    counters = ("global_step", "beta1_power", "beta2_power")  # New, of the same names.
    base = [name for name in ours if name in theirs and not name.startswith(counters)]
    changed = {name for name in base if ours[name].tobytes() != theirs[name].tobytes()}
    assert changed
    assert all(name.startswith(scopes) for name in changed)
    (logits,) = outputs(tmp_path, prefix + ".meta", "head/add", input=[config.data])
    assert logits.shape == (200, 2)
    fed = images[:100].astype(np.uint8) * np.float32(config.input_scale or 1 / 255)
    (x,) = runs.meta_graph(prefix).signature_def["serving_default"].inputs.values()
    (expected,) = stock.run(prefix + ".meta", ["head/add:0"], {x.name: fed})
    np.testing.assert_allclose(logits[:100], expected, rtol=1e-4, atol=1e-5)
