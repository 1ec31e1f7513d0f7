"""Rows through graphs that others made: whole predictions, compared with NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from errors import CheckpointError, PredictionError
from prediction import file_inputs
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.prediction import foreign
from tests.prediction.conftest import outputs

v1 = tf.compat.v1

RNG = np.random.default_rng(5)
X = RNG.standard_normal((1000, 3)).astype(np.float32)
Y = np.stack([X[:, 0] * X[:, 1], X[:, 2] ** 2], axis=1) + np.float32(0.5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Saves a graph of `foreign` once."""
    metas: dict[Any, str] = {}

    def save(build: Callable[..., None], *args: Any) -> str:
        key = (build, *args)
        if key not in metas:
            folder = tmp_path_factory.mktemp(build.__name__)
            metas[key] = foreign.save(folder, lambda: build(*args))
        return metas[key]

    return save


def _npy(folder: Path, values: Any) -> str:
    np.save(folder / "rows.npy", values)
    return f"{folder}/rows.npy"


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 1000])
def test_any_number_of_rows_goes_through_a_fixed_batch(
    saved: Any, tmp_path: Path, rows: int
) -> None:
    path = _npy(tmp_path, X[:rows])
    y, total = outputs(tmp_path, saved(foreign.fixed_batch, 32), "y", "sum", input=[path])
    np.testing.assert_allclose(y, Y[:rows], rtol=1e-6)
    np.testing.assert_allclose(total, X[:rows].sum(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fetch", ["mean", "flat", "interleaved", "masked"])
@pytest.mark.parametrize("rows", [5, 64])
def test_no_value_over_filled_up_rows(saved: Any, tmp_path: Path, fetch: str, rows: int) -> None:
    path = _npy(tmp_path, X[:rows])
    with pytest.raises(PredictionError, match=rf"^{fetch}:0 has shape .* give exactly 32 rows"):
        outputs(tmp_path, saved(foreign.fixed_batch, 32), fetch, input=[path])


def test_a_value_over_exactly_one_batch(saved: Any, tmp_path: Path) -> None:
    meta = saved(foreign.fixed_batch, 32)
    mean, turned = outputs(tmp_path, meta, "mean", "interleaved", input=[_npy(tmp_path, X[:32])])
    np.testing.assert_allclose(mean, Y[:32].mean(), rtol=1e-5)
    np.testing.assert_allclose(turned, Y[:32].T.reshape(-1), rtol=1e-6)


def test_in_batches_of_one_all_is_the_rows(saved: Any, tmp_path: Path) -> None:
    meta = saved(foreign.fixed_batch, 1)
    path = _npy(tmp_path, X[:7])
    y, flat, mean = outputs(tmp_path, meta, "y", "flat", "mean", input=[path])
    np.testing.assert_allclose(y, Y[:7], rtol=1e-6)
    np.testing.assert_allclose(flat, Y[:7], rtol=1e-6)
    np.testing.assert_allclose(mean, Y[:7].mean(axis=1), rtol=1e-5)


def test_a_feed_goes_along_with_the_rows_of_a_fixed_batch(saved: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(70.0))
    rows, feed = _npy(tmp_path, X[:70]), [f"labels={tmp_path}/a.npy"]
    meta = saved(foreign.fixed_batch, 32)
    (found,) = outputs(tmp_path, meta, "labelled", input=[rows], feed=feed)
    np.testing.assert_allclose(found, np.arange(70.0) * 100 + X[:70, 0], rtol=1e-6)


def test_a_graph_that_decodes_images_itself(saved: Any, tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (5, 4, 4, 3), np.uint8)
    (tmp_path / "images").mkdir()
    for row, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{row}.png")
    (found,) = outputs(
        tmp_path,
        saved(foreign.encoded_images),
        "pixels",
        input=[f"{tmp_path}/images"],
        batch_size=2,
    )
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize(
    ("fetch", "expected"),
    [("out", r"waits for batch \(Queue.*feed batch:0 in its place"), ("loop", "give it more")],
)
def test_a_queue_that_nobody_fills_and_a_loop_without_an_end_end(
    saved: Any, fetch: str, expected: str
) -> None:
    config = PredictConfig(saved(foreign.waiting), fetch=[fetch], trust_graph=True, time_limit=0.2)
    with pytest.raises(CheckpointError, match=f"longer than --time_limit=0.2 .*{expected}"):
        predict(config)


def test_what_waits_can_be_fed(saved: Any, tmp_path: Path) -> None:
    (out,) = outputs(tmp_path, saved(foreign.waiting), "out", feed=["batch=[[1,2],[3,4],[5,6]]"])
    np.testing.assert_array_equal(out, np.array([[1, 2], [3, 4], [5, 6]], np.float32) * 2.5)


def test_dropout_that_cannot_be_turned_off_is_said(
    saved: Any, tmp_path: Path, said: list[str]
) -> None:
    path = _npy(tmp_path, np.ones((4, 50), np.float32))
    for fetch, options in (
        ("y", {"input": [path]}),
        ("y", {"feed": [f"x={path}"]}),
        ("z", {"input": [path]}),  # Not random.
    ):
        said.clear()
        outputs(tmp_path, saved(foreign.dropout), fetch, **options)
        warned = [line.startswith("y:0: another value at each run on the same i") for line in said]
        assert any(warned) == (fetch == "y")


def _examples(count: int) -> tuple[list[bytes], Any]:
    values = RNG.standard_normal((count, 2)).astype(np.float32)
    records = []
    for row in values:
        example = tf.train.Example()
        example.features.feature["a"].float_list.value.extend(row.tolist())
        records.append(example.SerializeToString())
    return records, values.sum(axis=1) + np.float32(0.5)


def test_serialized_examples_of_a_tf_record_file(saved: Any, tmp_path: Path) -> None:
    records, expected = _examples(600)
    path = f"{tmp_path}/a.tfrecord"
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    (found,) = outputs(tmp_path, saved(foreign.examples), "total", input=[path])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_bfloat16_goes_in_and_comes_out_as_float32(saved: Any, tmp_path: Path) -> None:
    values = RNG.standard_normal((5, 2)).astype(np.float32)
    meta = saved(foreign.typed, tf.bfloat16)
    (found,) = outputs(tmp_path, meta, "y", input=[_npy(tmp_path, values)])
    assert found.dtype == np.float32
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32) * 2
    np.testing.assert_array_equal(found, expected)


def test_switches_and_scalars_by_name(saved: Any, tmp_path: Path) -> None:
    feeds = ["times=3", "text=four", "training=false", "x=[1, 2]"]
    (found,) = outputs(tmp_path, saved(foreign.mixed), "y", feed=feeds)
    np.testing.assert_array_equal(found, np.array([-6.5, -13.5], np.float32))
    (found,) = outputs(tmp_path, saved(foreign.mixed), "y", feed=["hidden=[1]", "training=true"])
    np.testing.assert_array_equal(found, np.array([1.5], np.float32))


def test_large_arrays_are_read_batch_by_batch(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_inputs, "STREAM_BYTES", 1)
    monkeypatch.setattr(file_inputs, "read_npy", None)
    (y,) = outputs(tmp_path, saved(foreign.fixed_batch, 32), "y", input=[_npy(tmp_path, X)])
    np.testing.assert_allclose(y, Y, rtol=1e-6)
