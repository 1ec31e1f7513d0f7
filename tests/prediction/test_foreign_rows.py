"""Rows through graphs that others made: whole predictions, compared with NumPy."""

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


def _npy(folder: Path, values: Any) -> str:
    np.save(folder / "rows.npy", values)
    return f"{folder}/rows.npy"


def _batches_of(folder: Path, size: int) -> str:
    return foreign.save(folder, lambda: foreign.fixed_batch(size))


@pytest.mark.parametrize("fetch", ["mean", "flat", "interleaved", "masked"])
@pytest.mark.parametrize("rows", [5, 64])
def test_no_value_over_filled_up_rows(tmp_path: Path, fetch: str, rows: int) -> None:
    path = _npy(tmp_path, X[:rows])
    with pytest.raises(PredictionError, match=rf"^{fetch}:0 has shape .* give exactly 32 rows"):
        outputs(tmp_path, _batches_of(tmp_path, 32), fetch, input=[path])


@pytest.mark.parametrize("size", [1, 7])
def test_exactly_one_batch_or_batches_of_one(tmp_path: Path, size: int) -> None:
    """Whatever the graph computes of a batch is that of all rows, or of the one row."""
    meta, path = _batches_of(tmp_path, size), _npy(tmp_path, X[:7])
    y, flat, mean = outputs(tmp_path, meta, "y", "flat", "mean", input=[path])
    np.testing.assert_allclose(y, Y[:7], rtol=1e-6)
    np.testing.assert_allclose(flat.reshape(7, 2), Y[:7], rtol=1e-6)
    np.testing.assert_allclose(mean, Y[:7].mean(axis=1 if size == 1 else None), rtol=1e-5)


def test_a_feed_goes_along_with_the_rows_of_a_fixed_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(70.0))
    rows, feed = _npy(tmp_path, X[:70]), [f"labels={tmp_path}/a.npy"]
    meta = _batches_of(tmp_path, 32)
    (found,) = outputs(tmp_path, meta, "labelled", input=[rows], feed=feed)
    np.testing.assert_allclose(found, np.arange(70.0) * 100 + X[:70, 0], rtol=1e-6)


def test_a_graph_that_decodes_images_itself(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (5, 4, 4, 3), np.uint8)
    (tmp_path / "images").mkdir()
    for row, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{row}.png")
    meta = foreign.save(tmp_path, foreign.encoded_images)
    (found,) = outputs(tmp_path, meta, "pixels", input=[f"{tmp_path}/images"], batch_size=2)
    np.testing.assert_array_equal(found, images)


def test_a_loop_without_an_end_ends(tmp_path: Path) -> None:
    meta = foreign.save(tmp_path, foreign.endless)
    with pytest.raises(CheckpointError, match=r"longer than --time_limit=0\.2 .*give it more"):
        predict(PredictConfig(meta, fetch=["loop"], time_limit=0.2))


def test_bfloat16_goes_in_and_comes_out_as_float32(tmp_path: Path) -> None:
    values = RNG.standard_normal((5, 2)).astype(np.float32)
    meta = foreign.save(tmp_path, foreign.bfloat16)
    (found,) = outputs(tmp_path, meta, "y", input=[_npy(tmp_path, values)])
    assert found.dtype == np.float32
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32) * 2
    np.testing.assert_array_equal(found, expected)


def test_switches_and_scalars_by_name(tmp_path: Path) -> None:
    meta = foreign.save(tmp_path, foreign.mixed)
    feeds = ["times=3", "text=four", "training=false", "x=[1, 2]"]
    (found,) = outputs(tmp_path, meta, "y", feed=feeds)
    np.testing.assert_array_equal(found, np.array([-6.5, -13.5], np.float32))
    (found,) = outputs(tmp_path, meta, "y", feed=["hidden=[1]", "training=true"])
    np.testing.assert_array_equal(found, np.array([1.5], np.float32))


def test_large_arrays_are_read_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_inputs, "STREAM_BYTES", 1)
    monkeypatch.setattr(file_inputs, "read_npy", None)
    (y,) = outputs(tmp_path, _batches_of(tmp_path, 32), "y", input=[_npy(tmp_path, X)])
    np.testing.assert_allclose(y, Y, rtol=1e-6)
