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
from tests.metagraph.made import refused, saved
from tests.prediction.conftest import document, outputs

v1 = tf.compat.v1

RNG = np.random.default_rng(5)
X = RNG.standard_normal((70, 3)).astype(np.float32)
Y = np.stack([X[:, 0] * X[:, 1], X[:, 2] ** 2], axis=1)


def _fixed_batch(size: int) -> None:
    """[size, 3] in; per row `y` [size, 2]; `flat` [2 * size]; `mean` over all."""
    x = v1.placeholder(tf.float32, [size, 3], name="x")
    y = tf.stack([x[:, 0] * x[:, 1], x[:, 2] ** 2], axis=1, name="y")
    tf.reshape(y, [2 * size], name="flat")
    tf.reshape(tf.transpose(y), [2 * size], name="interleaved")
    tf.reduce_mean(y, name="mean")
    tf.identity(tf.boolean_mask(y, y[:, 0] > 0), name="masked")
    labels = v1.placeholder(tf.float32, [size], name="labels")
    tf.add(labels * 100.0, x[:, 0], name="labelled")


def _no_rows() -> None:
    """`longer` [2 N], `square` [N, N] and `scalar` of `x` [N]; no shape tells that."""
    x = v1.placeholder(tf.float32, [None], name="x")
    tf.identity(tf.repeat(x, 2), name="longer")
    tf.identity(tf.tensordot(x, x, 0), name="square")
    v1.placeholder_with_default(tf.reduce_sum(x), None, name="scalar")


def _encoded_images() -> None:
    """The bytes of two image files in, `y` [2, 4, 4, 3] uint8."""
    files = v1.placeholder(tf.string, [2], name="files")
    decoded = tf.map_fn(lambda file: tf.io.decode_png(file, 3), files, fn_output_signature=tf.uint8)
    tf.reshape(decoded, [2, 4, 4, 3], name="y")


def _endless() -> None:
    end = v1.while_loop(lambda i: i >= 0, lambda i: tf.nn.relu(i * 0.5), [tf.constant(0.5)])
    tf.identity(end, name="y")


def _bfloat16() -> None:
    """`x` [?, 2] in, `y` is x doubled, of the same dtype."""
    x = v1.placeholder(tf.bfloat16, [None, 2], name="x")
    tf.add(x, x, name="y")


def _any_size(batch: int | None, kind: tf.DType = tf.uint8) -> None:
    """Images of any size in; `mean` [?, 3], `half` of half the size, `largest` of all."""
    images = v1.placeholder(kind, [batch, None, None, None if batch else 3], name="image_tensor")
    pixels = tf.cast(images, tf.float32)
    tf.reduce_mean(pixels, axis=[1, 2], name="mean")
    tf.identity(images[:, ::2, ::2], name="half")
    tf.reduce_max(images, name="largest")
    tf.constant([7, 8], name="seven")
    number = v1.placeholder(tf.float32, [batch], name="number")
    tf.add(tf.reduce_max(pixels, axis=[1, 2, 3]), number, name="numbered")


def _run(
    folder: Path, build: Callable[[], object], *fetch: str, rows: Any = None, **options: Any
) -> list[Any]:
    """What the graph gives for rows, which are an array or a path."""
    if isinstance(rows, np.ndarray):
        np.save(folder / "rows.npy", rows)
        rows = folder / "rows.npy"
    given = [] if rows is None else [str(rows)]
    return outputs(folder, saved(folder, build).path, *fetch, input=given, **options)


@pytest.mark.parametrize("fetch", ["mean", "flat", "interleaved", "masked"])
@pytest.mark.parametrize("rows", [5, 64])
def test_no_value_over_filled_up_rows(tmp_path: Path, fetch: str, rows: int) -> None:
    with refused(rf"^{fetch}:0 has shape .* give exactly 32 rows", PredictionError):
        _run(tmp_path, lambda: _fixed_batch(32), fetch, rows=X[:rows])


@pytest.mark.parametrize(
    ("fetch", "expected"),
    [
        ("longer", np.repeat(X[:10, 0], 2)),
        ("square", np.outer(X[:10, 0], X[:10, 0])),
        ("scalar", X[:10, 0].sum()),
    ],
)
def test_what_turns_out_to_be_no_row_a_row(tmp_path: Path, fetch: str, expected: Any) -> None:
    with refused("not one entry a row: .*--batch_size=10", PredictionError):
        _run(tmp_path, _no_rows, fetch, rows=X[:10, 0], batch_size=4)
    (found,) = _run(tmp_path, _no_rows, fetch, rows=X[:10, 0], batch_size=10)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 7])
def test_exactly_one_batch_or_batches_of_one(tmp_path: Path, size: int) -> None:
    """Whatever the graph computes of a batch is that of all rows, or of the one row."""
    fetch = ("y", "flat", "mean")
    y, flat, mean = _run(tmp_path, lambda: _fixed_batch(size), *fetch, rows=X[:7])
    np.testing.assert_allclose(y, Y[:7], rtol=1e-6)
    np.testing.assert_allclose(flat.reshape(7, 2), Y[:7], rtol=1e-6)
    np.testing.assert_allclose(mean, Y[:7].mean(axis=1 if size == 1 else None), rtol=1e-5)


def test_a_feed_goes_along_with_the_rows_of_a_fixed_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(70.0))
    feed = [f"labels={tmp_path}/a.npy"]
    y, found = _run(tmp_path, lambda: _fixed_batch(32), "y", "labelled", rows=X, feed=feed)
    np.testing.assert_allclose(y, Y, rtol=1e-6)
    np.testing.assert_allclose(found, np.arange(70.0) * 100 + X[:, 0], rtol=1e-6)


def test_a_graph_that_decodes_images_itself(tmp_path: Path) -> None:
    """The last run is filled up by images, as an empty string is none."""
    images = RNG.integers(0, 256, (5, 4, 4, 3), np.uint8)
    (tmp_path / "images").mkdir()
    for row, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{row}.png")
    (found,) = _run(tmp_path, _encoded_images, "y", rows=tmp_path / "images")
    np.testing.assert_array_equal(found, images)


SIDES = {"a.png": (4, 6), "b.jpg": (5, 5), "c.bmp": (4, 6), "d.webp": (9, 2), "e.gif": (4, 6)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of three sizes, and one file that is none."""
    (tmp_path / "photos").mkdir()
    for name, (width, height) in SIDES.items():
        pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "README.md").write_text("no image")
    return tmp_path / "photos"


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("exact_rows", [True, False])
def test_images_keep_their_sizes_where_any_is_taken(
    photos: Path, tmp_path: Path, batch: int | None, exact_rows: bool
) -> None:
    """Those of one size run together; what differs in shape is there for each image by itself."""
    meta = saved(tmp_path, lambda: _any_size(batch)).path
    options: dict[str, Any] = {"input": [f"image_tensor={photos}"], "exact_rows": exact_rows}
    options |= {"fetch": ["mean", "half", "numbered", "seven"]}
    np.save(tmp_path / "number.npy", np.arange(6, dtype=np.float32) * 1000)
    found = document(meta, feed=[f"number={tmp_path}/number.npy"], **options)["outputs"]
    assert found["seven:0"] == [7, 8]
    names = sorted(SIDES)
    for row, name in enumerate(names):
        with Image.open(photos / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(found[f"half:0 of {name}"], pixels[np.newaxis, ::2, ::2])
        np.testing.assert_allclose(found["mean:0"][row], pixels.mean(axis=(0, 1)), rtol=1e-5)
        # Of all six files, README.md is the first: the numbers go along.
        assert found["numbered:0"][row] == int(pixels.max()) + 1000 * (row + 1)
    (one,) = outputs(tmp_path, meta, "half", input=[f"image_tensor={photos}/d.webp"])
    with Image.open(photos / "d.webp") as image:
        np.testing.assert_array_equal(one, np.asarray(image)[np.newaxis, ::2, ::2])


def test_images_of_several_sizes_have_no_value_over_all(photos: Path, tmp_path: Path) -> None:
    with refused("largest:0 is one value over all rows, and images differ", PredictionError):
        _run(tmp_path, lambda: _any_size(None), "largest", rows=photos)
    for name in ("b.jpg", "d.webp"):
        (photos / name).unlink()
    (found,) = _run(tmp_path, lambda: _any_size(None), "largest", rows=photos)
    assert found > 0


def test_a_loop_without_an_end_ends(tmp_path: Path) -> None:
    with refused(r"longer than --time_limit=0\.2 .*give it more", CheckpointError):
        _run(tmp_path, _endless, "y", time_limit=0.2)


def test_bfloat16_goes_in_and_comes_out_as_float32(tmp_path: Path) -> None:
    values = RNG.standard_normal((5, 2)).astype(np.float32)
    (found,) = _run(tmp_path, _bfloat16, "y", rows=values)
    assert found.dtype == np.float32
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32) * 2
    np.testing.assert_array_equal(found, expected)
