"""Real checkpoints of public projects compute what plain TensorFlow computes from them.

They are at ../shared/thirdparty; its index.json names inputs and an output of each.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import read_meta_graph
from metagraph.model import find_candidates
from metagraph.session import load_inference_graph
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.prediction import stock

Array = npt.NDArray[Any]

THIRD_PARTY = Path(__file__).resolve().parents[2] / "shared" / "thirdparty"
VERSION_STOCK_REFUSES = "0.12.head"


def _entries() -> list[dict[str, Any]]:
    """The index, or one empty entry where the folder is not there."""
    index = THIRD_PARTY / "index.json"
    entries: list[dict[str, Any]] = json.loads(index.read_text()) if index.exists() else [{}]
    return entries


every_entry = pytest.mark.parametrize("entry", _entries(), ids=lambda e: e.get("kind", "absent"))


@pytest.fixture(autouse=True)
def _files_are_there() -> None:
    if not THIRD_PARTY.is_dir():
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")


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


@every_entry
def test_loaded_as_data_it_computes_what_a_stock_client_computes(
    entry: dict[str, Any], tmp_path: Path
) -> None:
    feeds = _feeds(entry)
    meta = read_meta_graph(str(THIRD_PARTY / entry["meta"]))
    with load_inference_graph(meta, [entry["suggested_output"]], list(feeds)) as graph:
        (ours,) = graph.run(*feeds.values())
    assert list(ours.shape) == entry["out_shape"]
    theirs = _by_stock(entry, feeds, tmp_path)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@every_entry
def test_predict_writes_what_a_stock_client_computes(entry: dict[str, Any], tmp_path: Path) -> None:
    feeds = _feeds(entry)
    np.savez(tmp_path / "feeds.npz", **feeds)  # type: ignore[arg-type]
    predict(
        PredictConfig(
            str(THIRD_PARTY / entry["meta"]),
            fetch=[entry["suggested_output"]],
            feed=[f"{tmp_path}/feeds.npz"],
            output=f"{tmp_path}/out.npz",
        )
    )
    with np.load(tmp_path / "out.npz") as found:
        ours = found[entry["suggested_output"]]
    np.testing.assert_allclose(ours, _by_stock(entry, feeds, tmp_path), rtol=1e-6)


def _listed(entry: dict[str, Any]) -> dict[str, Any]:
    config = PredictConfig(str(THIRD_PARTY / entry["meta"]), list=True, format="json")
    document: dict[str, Any] = json.loads(predict(config))
    return document


def _names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return [record["name"] for record in records]


@every_entry
def test_the_listing_names_the_inputs_first(entry: dict[str, Any]) -> None:
    """Where the rows come from a pipeline, it is its outputs that are fed."""
    document = _listed(entry)
    inputs = [tensor["name"] for tensor in entry["inputs"]]
    listed = [_names(document[key])[: len(inputs)] for key in ("inputs", "pipeline")]
    assert inputs in listed


@every_entry
def test_the_likeliest_outputs_are_the_true_ones(entry: dict[str, Any]) -> None:
    found = find_candidates(read_meta_graph(str(THIRD_PARTY / entry["meta"])))
    assert entry["suggested_output"] in found.outputs[:2]


@every_entry
def test_only_what_a_prediction_needs_is_to_be_fed(entry: dict[str, Any]) -> None:
    """Most of them read labels or other rows from a pipeline that no prediction stands on."""
    inputs = [tensor["name"] for tensor in entry["inputs"]]
    assert set(_names(_listed(entry)["pipeline"])) <= set(inputs)


def test_a_session_bundles_signature(tmp_path: Path) -> None:
    (entry,) = (e for e in _entries() if "/half_plus_two/" in e["meta"])
    rows = np.array([[1], [3]], np.float32)
    np.save(tmp_path / "rows.npy", rows)
    text = predict(
        PredictConfig(
            str(THIRD_PARTY / entry["meta"]),
            fetch=["outputs"],
            feed=[f"ParseExample/ParseExample={tmp_path}/rows.npy"],
            format="json",
        )
    )
    (value,) = json.loads(text)["outputs"].values()
    assert value == (rows / 2 + 2).tolist()


@pytest.mark.parametrize("rows", [600, 3])
def test_any_number_of_rows_goes_through_a_graph_of_a_fixed_batch(
    rows: int, tmp_path: Path
) -> None:
    (entry,) = (e for e in _entries() if e["meta"].endswith("PNet-18.meta"))
    (tensor,) = entry["inputs"]
    size = tensor["shape"][0]
    images = np.random.default_rng(0).random((rows, *tensor["shape"][1:]), np.float32)
    np.save(tmp_path / "images.npy", images)
    predict(
        PredictConfig(
            str(THIRD_PARTY / entry["meta"]),
            fetch=[entry["suggested_output"]],
            input=[f"{tmp_path}/images.npy"],
            output=f"{tmp_path}/out.npz",
        )
    )
    with np.load(tmp_path / "out.npz") as found:
        ours = found[entry["suggested_output"]]
    padded = np.zeros((math.ceil(rows / size) * size, *images.shape[1:]), np.float32)
    padded[:rows] = images
    theirs = [
        _by_stock(entry, {tensor["name"]: batch}, tmp_path)
        for batch in np.split(padded, len(padded) // size)
    ]
    np.testing.assert_allclose(ours, np.concatenate(theirs)[:rows], rtol=1e-6)
