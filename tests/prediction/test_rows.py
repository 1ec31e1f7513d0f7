"""Rows in batches: bit-equal to what training makes of the same values."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.source import UINT8_SCALE, LabelledSource
from errors import DataError
from prediction.rows import ArrayRows, ImageRows
from tests.prediction.conftest import SIZE, info

TARGET = info(tf.float32, None, SIZE, SIZE, 3)


def test_uint8_is_scaled_as_in_training_to_the_bit(images: Any) -> None:
    rows = ArrayRows(images, TARGET, "here", float(UINT8_SCALE))
    trained, _ = LabelledSource(images, np.zeros(len(images))).rows(np.arange(2, 5))
    assert rows.batch(2, 5).tobytes() == trained.tobytes()
    every = np.arange(256, dtype=np.uint8)
    found = ArrayRows(every, info(tf.float32, None), "here", float(UINT8_SCALE)).batch(0, 256)
    assert found.tobytes() == (every.astype(np.float32) * np.float32(1 / 255)).tobytes()


def test_floats_are_taken_as_they_are_without_a_copy(images: Any) -> None:
    values = images.astype(np.float32)
    batch: Any = ArrayRows(values, TARGET, "here", float(UINT8_SCALE)).batch(1, 3)
    assert batch.base is values
    np.testing.assert_array_equal(batch, values[1:3])


def test_uint8_without_a_scale_or_for_integers_keeps_its_values(images: Any) -> None:
    unscaled = ArrayRows(images, TARGET, "here", None).batch(0, 7)
    assert unscaled.dtype == np.float32
    np.testing.assert_array_equal(unscaled, images)
    integers = info(tf.uint8, None, SIZE, SIZE, 3)
    assert ArrayRows(images, integers, "here", 0.5).batch(0, 7).dtype == np.uint8


def test_image_files_are_decoded_to_the_size_that_is_taken(tmp_path: Path, images: Any) -> None:
    side = (SIZE, SIZE)
    paths = [str(tmp_path / f"{row}.png") for row in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).resize((8, 8), Image.Resampling.NEAREST).save(path)
    rows = ImageRows(paths, SIZE, TARGET, 0.5)
    assert len(rows) == len(images)
    opened = [Image.open(path) for path in paths[3:5]]
    expected = [np.asarray(image.resize(side, Image.Resampling.BILINEAR)) for image in opened]
    np.testing.assert_array_equal(rows.batch(3, 5), np.stack(expected) * np.float32(0.5))


def test_a_file_that_is_no_image_is_told_when_its_batch_comes(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE)).save(content, "PNG")
    (tmp_path / "a.png").write_bytes(content.getvalue())
    (tmp_path / "b.png").write_bytes(b"text")
    rows = ImageRows([f"{tmp_path}/a.png", f"{tmp_path}/b.png"], SIZE, TARGET, None)
    assert rows.batch(0, 1).shape == (1, SIZE, SIZE, 3)
    with pytest.raises(DataError, match=r"b\.png: is neither a PNG nor a JPEG"):
        rows.batch(1, 2)
