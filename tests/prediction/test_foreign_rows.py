"""Rows through graphs that others made: whole predictions, compared with NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from errors import CheckpointError, DataError, PredictionError
from prediction import file_inputs
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.prediction import foreign
from tests.prediction.conftest import write_npz

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


@pytest.fixture
def warnings_logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    return lines


def _npy(folder: Path, values: Any) -> str:
    np.save(folder / "rows.npy", values)
    return f"{folder}/rows.npy"


def _outputs(folder: Path, meta: str, *fetch: str, **options: Any) -> list[Any]:
    predict(PredictConfig(meta, fetch=fetch, output=f"{folder}/out.npz", **options))
    with np.load(folder / "out.npz") as found:
        return [found[f"{name}:0"] for name in fetch]


@pytest.mark.parametrize("rows", [1, 3, 31, 32, 33, 64, 1000])
def test_any_number_of_rows_goes_through_a_fixed_batch(
    saved: Any, tmp_path: Path, rows: int
) -> None:
    path = _npy(tmp_path, X[:rows])
    y, total = _outputs(tmp_path, saved(foreign.fixed_batch, 32), "y", "sum", input=[path])
    np.testing.assert_allclose(y, Y[:rows], rtol=1e-6)
    np.testing.assert_allclose(total, X[:rows].sum(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 5, 32, 100])
def test_several_entries_a_row_are_cut_with_their_row(
    saved: Any, tmp_path: Path, rows: int
) -> None:
    path = _npy(tmp_path, X[:rows])
    (flat,) = _outputs(tmp_path, saved(foreign.fixed_batch, 32), "flat", input=[path])
    np.testing.assert_allclose(flat, Y[:rows].reshape(-1), rtol=1e-6)


@pytest.mark.parametrize(("rows", "warned"), [(4, False), (6, True), (3, True)])
def test_rows_that_depend_on_each_other_are_said_to(
    tmp_path: Path, warnings_logged: list[str], rows: int, warned: bool
) -> None:
    """As with a norm over the batch: the rows that fill up the last run change the others."""
    meta = foreign.save(tmp_path, lambda: foreign.normed_batch(4))
    values = np.random.default_rng(0).random((rows, 3), np.float32)
    _outputs(tmp_path, meta, "normed", "apart", input=[_npy(tmp_path, values)])
    named = [line for line in warnings_logged if "not worked out row by row" in line]
    assert [line.split()[0] for line in named] == (["normed:0"] if warned else [])


@pytest.mark.parametrize("value", [0.0, 1 / 3, 0.7, 5.0])
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_are_all_the_same_are_tried_with_one_that_is_not(
    tmp_path: Path, warnings_logged: list[str], rows: int, value: float
) -> None:
    meta = foreign.save(tmp_path, lambda: foreign.normed_batch(4))
    path = _npy(tmp_path, np.full((rows, 3), value, np.float32))
    _outputs(tmp_path, meta, "normed", "apart", "undefined", input=[path])
    (line,) = warnings_logged
    assert line.startswith("normed:0 is not worked out row by row")


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        *((name, "row by row") for name in ("bfloat16", "float16", "float64", "complex64")),
        *((name, "row by row") for name in ("uint8", "int64", "bool")),
        ("string", "could not be tested"),
    ],
)
def test_a_row_can_be_made_of_any_numbers(
    tmp_path: Path, warnings_logged: list[str], dtype: str, reason: str
) -> None:
    meta = foreign.save(tmp_path, lambda: foreign.turned_batch(tf.as_dtype(dtype), 3))
    kind = {"string": str, "bfloat16": "float32"}.get(dtype, dtype)
    _outputs(tmp_path, meta, "turned", input=[_npy(tmp_path, np.zeros((1, 2), kind))])
    (line,) = warnings_logged
    assert line.startswith("turned:0")
    assert reason in line


def test_texts_that_depend_on_each_other(tmp_path: Path, warnings_logged: list[str]) -> None:
    meta = foreign.save(tmp_path, lambda: foreign.turned_batch(tf.string, 3))
    path = _npy(tmp_path, np.array([["a", "b"], ["c", "d"]]))
    _outputs(tmp_path, meta, "turned", "x", input=[path])
    (line,) = warnings_logged
    assert line.startswith("turned:0 is not worked out row by row")


def test_a_batch_of_one_row_has_no_others(tmp_path: Path, warnings_logged: list[str]) -> None:
    meta = foreign.save(tmp_path, lambda: foreign.normed_batch(1))
    _outputs(tmp_path, meta, "normed", input=[_npy(tmp_path, X[:3])])
    assert not warnings_logged


@pytest.mark.parametrize("ids", [[[3, 1]], [[0, 0]], [[3, 1], [2, 4]]])
def test_numbers_of_words_are_tried_with_such_as_there_are(
    tmp_path: Path, warnings_logged: list[str], ids: list[list[int]]
) -> None:
    """And a class that stays the same whatever is fed does not depend on the other rows."""
    meta = foreign.save(tmp_path, lambda: foreign.counted_batch(4))
    path = _npy(tmp_path, np.array(ids))
    _outputs(tmp_path, meta, "class", "apart", "shared", input=[path])
    assert [line.split()[0] for line in warnings_logged] == ["shared:0"]


def test_where_there_is_no_other_row_to_try_it_is_said(
    tmp_path: Path, warnings_logged: list[str]
) -> None:
    meta = foreign.save(tmp_path, lambda: foreign.counted_batch(4))
    (tmp_path / "words.txt").write_text("word\nword\n")
    (lengths,) = _outputs(tmp_path, meta, "lengths", input=[f"{tmp_path}/words.txt"])
    assert lengths.tolist() == [4, 4]
    (line,) = warnings_logged
    assert line.startswith("lengths:0: the graph takes 4 rows a run, and whether")
    (tmp_path / "words.txt").write_text("word\nsword\n")
    _outputs(tmp_path, meta, "lengths", input=[f"{tmp_path}/words.txt"])
    assert warnings_logged == [line]


def test_a_made_row_that_the_graph_refuses_does_no_harm(
    tmp_path: Path, warnings_logged: list[str]
) -> None:
    def build() -> None:
        x = v1.placeholder(tf.int32, [4], name="x")
        with tf.control_dependencies([v1.assert_positive(x)]):
            tf.identity(x, name="y")

    meta = foreign.save(tmp_path, build)
    (y,) = _outputs(tmp_path, meta, "y", input=[_npy(tmp_path, np.array([7]))])
    assert y.tolist() == [7]
    (line,) = warnings_logged
    assert "could not be tested" in line


@pytest.mark.parametrize("fetch", ["mean", "interleaved", "masked"])
@pytest.mark.parametrize("rows", [5, 64])
def test_no_value_over_filled_up_rows(saved: Any, tmp_path: Path, fetch: str, rows: int) -> None:
    path = _npy(tmp_path, X[:rows])
    with pytest.raises(PredictionError, match=rf"^{fetch}:0 has shape .* give exactly 32 rows"):
        _outputs(tmp_path, saved(foreign.fixed_batch, 32), fetch, input=[path])


def test_a_value_over_exactly_one_batch(saved: Any, tmp_path: Path) -> None:
    meta = saved(foreign.fixed_batch, 32)
    mean, turned = _outputs(tmp_path, meta, "mean", "interleaved", input=[_npy(tmp_path, X[:32])])
    np.testing.assert_allclose(mean, Y[:32].mean(), rtol=1e-5)
    np.testing.assert_allclose(turned, Y[:32].T.reshape(-1), rtol=1e-6)


def test_in_batches_of_one_all_is_the_rows(saved: Any, tmp_path: Path) -> None:
    meta = saved(foreign.fixed_batch, 1)
    path = _npy(tmp_path, X[:7])
    y, flat, mean = _outputs(tmp_path, meta, "y", "flat", "mean", input=[path])
    np.testing.assert_allclose(y, Y[:7], rtol=1e-6)
    np.testing.assert_allclose(flat, Y[:7], rtol=1e-6)
    np.testing.assert_allclose(mean, Y[:7].mean(axis=1), rtol=1e-5)


def test_a_feed_goes_along_in_fixed_batches(saved: Any, tmp_path: Path) -> None:
    labels = np.arange(70, dtype=np.float32)
    np.save(tmp_path / "labels.npy", labels)
    (found,) = _outputs(
        tmp_path,
        saved(foreign.fixed_batch, 32),
        "labelled",
        input=[_npy(tmp_path, X[:70])],
        feed=[f"labels={tmp_path}/labels.npy"],
    )
    np.testing.assert_allclose(found, labels * 100 + X[:70, 0], rtol=1e-6)


def test_another_batch_size_than_the_graphs_is_refused(saved: Any, tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"x:0 takes 32 rows a run: leave out --batch_size"):
        _outputs(
            tmp_path,
            saved(foreign.fixed_batch, 32),
            "y",
            input=[_npy(tmp_path, X[:70])],
            batch_size=16,
        )


def test_the_batch_size_that_only_the_results_tell(saved: Any, tmp_path: Path) -> None:
    meta, path = saved(foreign.inner_batch, 32), _npy(tmp_path, X[:70])
    (y,) = _outputs(tmp_path, meta, "y", input=[path], batch_size=32)
    np.testing.assert_array_equal(y, X[:70] + np.float32(0.5))
    with pytest.raises(CheckpointError, match="210 values, but the requested shape has 96"):
        _outputs(tmp_path, meta, "y", input=[path])


def test_a_batch_size_does_not_make_rows_of_what_are_none(saved: Any, tmp_path: Path) -> None:
    meta, path = saved(foreign.inner_batch, 3), _npy(tmp_path, X[:70])
    with pytest.raises(PredictionError, match=r"mean:0 has shape \[3\] .* no row's own part"):
        _outputs(tmp_path, meta, "mean", input=[path], batch_size=3)


def test_a_graph_that_decodes_images_itself(saved: Any, tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (5, 4, 4, 3), np.uint8)
    (tmp_path / "images").mkdir()
    for row, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{row}.png")
    (found,) = _outputs(
        tmp_path,
        saved(foreign.encoded_images),
        "pixels",
        input=[f"{tmp_path}/images"],
        batch_size=2,
    )
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("rows", [1, 2, 5, 300])
def test_rows_become_columns_and_come_back_as_rows(saved: Any, tmp_path: Path, rows: int) -> None:
    scores, best = _outputs(
        tmp_path, saved(foreign.columns), "scores", "best", input=[_npy(tmp_path, X[:rows])]
    )
    expected = X[:rows] @ np.array([[1, 0.5], [-2, 1], [3, -1]], np.float32) + np.float32(0.5)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(best, expected.argmax(axis=1))


def test_a_feed_goes_along_as_columns(saved: Any, tmp_path: Path) -> None:
    offsets = np.arange(600, dtype=np.float32)[np.newaxis]
    np.save(tmp_path / "offsets.npy", offsets)
    scores, shifted = _outputs(
        tmp_path,
        saved(foreign.columns),
        "scores",
        "shifted",
        input=[_npy(tmp_path, X[:600])],
        feed=[f"offsets={tmp_path}/offsets.npy"],
    )
    np.testing.assert_allclose(shifted, scores + offsets.T, rtol=1e-6)


def test_columns_as_the_graph_takes_them_stay_so(saved: Any, tmp_path: Path) -> None:
    (scores,) = _outputs(
        tmp_path, saved(foreign.columns), "scores", input=[_npy(tmp_path, X[:7].T)]
    )
    assert scores.shape == (2, 7)


def test_a_square_of_columns_could_be_either(saved: Any, tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"could be meant as its columns: give it with --fee"):
        _outputs(tmp_path, saved(foreign.columns), "scores", input=[_npy(tmp_path, X[:3])])


def test_a_queue_that_nobody_fills_is_named(saved: Any) -> None:
    config = PredictConfig(saved(foreign.waiting), fetch=["out"], trust_graph=True, time_limit=0.2)
    expected = r"longer than --time_limit=0.2 .*waits for batch \(Queue.*feed batch:0 in its place"
    with pytest.raises(CheckpointError, match=expected):
        predict(config)


def test_what_waits_can_be_fed(saved: Any, tmp_path: Path) -> None:
    (out,) = _outputs(tmp_path, saved(foreign.waiting), "out", feed=["batch=[[1,2],[3,4],[5,6]]"])
    np.testing.assert_array_equal(out, np.array([[1, 2], [3, 4], [5, 6]], np.float32) * 2.5)


def test_a_loop_without_an_end_ends(saved: Any) -> None:
    config = PredictConfig(saved(foreign.waiting), fetch=["loop"], time_limit=0.2)
    with pytest.raises(CheckpointError, match=r"longer than --time_limit=0.2 seconds: give it mor"):
        predict(config)


def test_dropout_that_cannot_be_turned_off_is_said(
    saved: Any, tmp_path: Path, warnings_logged: list[str]
) -> None:
    path = _npy(tmp_path, np.ones((4, 50), np.float32))
    _outputs(tmp_path, saved(foreign.dropout), "y", input=[path])
    (line,) = warnings_logged
    assert line.startswith("y:0: another value at each run on the same input; random: drop/")
    _outputs(tmp_path, saved(foreign.dropout), "y", feed=[f"x={path}"])
    assert warnings_logged == [line, line]


def test_what_is_not_random_is_not_said_to_be(
    saved: Any, tmp_path: Path, warnings_logged: list[str]
) -> None:
    path = _npy(tmp_path, np.ones((4, 50), np.float32))
    _outputs(tmp_path, saved(foreign.dropout), "z", input=[path])
    assert not warnings_logged


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
    (found,) = _outputs(tmp_path, saved(foreign.examples), "total", input=[path])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_damaged_record_is_one_line(saved: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(_examples(1)[0][0])
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a.tfrecord: is damaged: the checksum of a record"):
        _outputs(tmp_path, saved(foreign.examples), "total", input=[str(path)])


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "int32", "int64", "uint8", "int8", "complex64"],
)
def test_dtypes(saved: Any, tmp_path: Path, dtype: str) -> None:
    values = np.array([[1, 2], [3, 4], [5, 6]], dtype)
    (found,) = _outputs(
        tmp_path, saved(foreign.typed, tf.as_dtype(dtype)), "y", input=[_npy(tmp_path, values)]
    )
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values + values)


def test_bfloat16_goes_in_and_comes_out_as_float32(saved: Any, tmp_path: Path) -> None:
    values = RNG.standard_normal((5, 2)).astype(np.float32)
    meta = saved(foreign.typed, tf.bfloat16)
    (found,) = _outputs(tmp_path, meta, "y", input=[_npy(tmp_path, values)])
    assert found.dtype == np.float32
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32) * 2
    np.testing.assert_array_equal(found, expected)


def test_texts(saved: Any, tmp_path: Path) -> None:
    meta = saved(foreign.typed, tf.string)
    (tmp_path / "a.csv").write_text('a,"b,c"\né,\n', "utf-8")
    (found,) = _outputs(tmp_path, meta, "y", input=[f"{tmp_path}/a.csv"])
    assert found.tolist() == [[b"aa", b"b,cb,c"], ["éé".encode(), b""]]
    (found,) = _outputs(tmp_path, meta, "y", input=[_npy(tmp_path, np.array([["x", "yz"]]))])
    assert found.tolist() == [[b"xx", b"yzyz"]]


def test_bools_of_a_csv_file(tmp_path: Path) -> None:
    def build() -> None:
        x = foreign.v1.placeholder(tf.bool, [None, 2], name="x")
        tf.reduce_any(x, axis=1, name="y")

    (tmp_path / "a.csv").write_text("0,1\n0,0\n")
    (found,) = _outputs(tmp_path, foreign.save(tmp_path, build), "y", input=[f"{tmp_path}/a.csv"])
    assert found.tolist() == [True, False]


def test_switches_and_scalars_by_name(saved: Any, tmp_path: Path) -> None:
    feeds = ["times=3", "text=four", "training=false", "x=[1, 2]"]
    (found,) = _outputs(tmp_path, saved(foreign.mixed), "y", feed=feeds)
    np.testing.assert_array_equal(found, np.array([-6.5, -13.5], np.float32))
    (found,) = _outputs(tmp_path, saved(foreign.mixed), "y", feed=["hidden=[1]", "training=true"])
    np.testing.assert_array_equal(found, np.array([1.5], np.float32))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_large_arrays_are_read_batch_by_batch(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, compressed: bool
) -> None:
    monkeypatch.setattr(file_inputs, "STREAM_BYTES", 1)
    monkeypatch.setattr(file_inputs, "read_npy", None)
    path = _npy(tmp_path, X)
    if suffix == ".npz":
        save = np.savez_compressed if compressed else np.savez
        path = f"{tmp_path}/a.npz"
        save(path, X=X, Y=np.arange(1000))
    (y,) = _outputs(tmp_path, saved(foreign.fixed_batch, 32), "y", input=[path])
    np.testing.assert_allclose(y, Y, rtol=1e-6)


def test_the_limit_on_what_is_unpacked(saved: Any, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", X=np.zeros((100_000, 3), np.float32))
    for options in ({"input": [path]}, {"feed": [path]}):
        with pytest.raises(DataError, match=r"claims 1,200,000 bytes; at most 1,048,576"):
            _outputs(tmp_path, saved(foreign.fixed_batch, 32), "y", max_input_mb=1, **options)


def test_a_bad_image_among_many_is_named(classifier: str, images: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for row in range(6):
        Image.fromarray(images[row]).save(folder / f"{row}.png")
    path = folder / "4.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"images/4\.png: is damaged or cut short"):
        _outputs(tmp_path, classifier, "logits", input=[str(folder)], batch_size=2)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2"])
def test_the_order_of_bytes_and_of_rows_in_a_file_is_its_own(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(file_inputs, "STREAM_BYTES", 1)
    values = (X[:70] * 100).astype(dtype)
    expected = values.astype(np.float32) * 2
    for path in (_npy(tmp_path, values), _npy(tmp_path, np.asfortranarray(values))):
        (found,) = _outputs(tmp_path, saved(foreign.threes), "y", input=[path], batch_size=32)
        np.testing.assert_array_equal(found, expected)
