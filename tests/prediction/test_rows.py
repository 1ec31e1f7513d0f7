"""Rows in batches, bit-equal to what training makes of the same values, and their runs in NumPy."""

import itertools
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.source import UINT8_SCALE, LabelledSource
from errors import DataError, PredictionError
from metagraph.meta import TensorInfo
from prediction import evaluation
from prediction.evaluation import DEFAULT_BATCH_SIZE, Batching, Kind, choose_batching, run_rows
from prediction.file_inputs import Target, array_rows, open_images, read_records
from tests.metagraph.made import refused
from tests.prediction.conftest import SIZE, info

TARGET = info(tf.float32, None, SIZE, SIZE, 3)


def test_uint8_is_scaled_as_in_training_to_the_bit() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(64, 4)
    rows = array_rows(every, info(tf.float32, None, 4), "here", float(UINT8_SCALE))
    trained, _ = LabelledSource(every, np.zeros(64)).rows(np.arange(64))
    assert rows.batch(2, 64).tobytes() == trained[2:].tobytes()
    assert trained.tobytes() == (every.astype(np.float32) * np.float32(1 / 255)).tobytes()


def test_other_values_are_taken_as_they_are(images: Any) -> None:
    values = images.astype(np.float32)
    batch: Any = array_rows(values, TARGET, "here", float(UINT8_SCALE)).batch(1, 3)
    assert batch.base is values  # Without a copy.
    np.testing.assert_array_equal(batch, values[1:3])
    unscaled = array_rows(images, TARGET, "here").batch(0, 7)
    assert unscaled.dtype == np.float32
    np.testing.assert_array_equal(unscaled, images)
    integers = info(tf.uint8, None, SIZE, SIZE, 3)
    assert array_rows(images, integers, "here", 0.5).batch(0, 7).dtype == np.uint8


def test_image_files_are_decoded_to_the_size_that_is_taken(tmp_path: Path, images: Any) -> None:
    paths = [str(tmp_path / f"{row}.png") for row in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).resize((8, 8), Image.Resampling.NEAREST).save(path)
    paths.append(f"{tmp_path}/text")
    rows = open_images(paths, paths, None, Target(TARGET, 0.5, (), None)).rows
    assert len(rows) == len(images) + 1
    bilinear = Image.Resampling.BILINEAR
    resized = [np.asarray(Image.open(path).resize((SIZE, SIZE), bilinear)) for path in paths[3:5]]
    np.testing.assert_array_equal(rows.batch(3, 5), np.stack(resized) * np.float32(0.5))
    (tmp_path / "text").write_bytes(b"text")
    with refused("text: is neither a PNG nor a JPEG", DataError):
        rows.batch(6, 8)


RECORDS = [b"", b"one", b"two\0", b"x" * 5000]


def test_records_of_a_file_that_is_whole_or_damaged_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    content = path.read_bytes()
    assert read_records(str(path), len(content)) == RECORDS
    with refused("holds 5,071 bytes; at most 5,070 are read", DataError):
        read_records(str(path), 5070)
    ends = [*itertools.accumulate((len(record) + 16 for record in RECORDS), initial=0)]
    for length in range(60):
        path.write_bytes(content[:length])
        if length in ends:
            assert read_records(str(path), 60) == RECORDS[: ends.index(length)]
        else:
            with refused(r"is no \.tfrecord file, or is cut short", DataError):
                read_records(str(path), 60)
    for size in (2**40, 2**63, 2**64 - 1):  # It takes no memory.
        path.write_bytes(struct.pack("<QI", size, 0) + bytes(100))
        with refused(f"record 0 claims {size:,} bytes", DataError):
            read_records(str(path), 200)
    path.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    with refused("the checksum of a record does not fit", DataError):
        read_records(str(path), 5071)


# Runs, on a graph that is written in NumPy.

X = np.arange(10, dtype=np.float32)
INFO = TensorInfo("x:0", tf.float32, (None,))
Function = Callable[..., Any]


class _Graph:
    """Looks like an InferenceGraph; computes by functions, and keeps the batches it saw."""

    def __init__(self, *functions: Function) -> None:
        self.feeds = (INFO,)
        self.fetches = [TensorInfo(f"f{i}:0", tf.float32, None) for i in range(len(functions))]
        self.random_nodes: Sequence[str] = ()
        self.seen: list[Any] = []
        self._functions = functions

    def run(self, *values: Any) -> list[Any]:
        self.seen.append(values[0].tolist())
        return [np.asarray(function(*values)) for function in self._functions]


def _run(graph: Any, kinds: Sequence[Kind], batch_size: int | None, *constants: Any) -> list[Any]:
    return run_rows(graph, [array_rows(X, INFO, "here"), *constants], kinds, batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 9, 10, 11, None])
def test_rows_come_back_in_order_whatever_the_batch(batch_size: int | None) -> None:
    graph = _Graph(lambda x: x * 2, lambda x: np.stack([x, -x], axis=1).astype(np.int64))
    doubled, pairs = _run(graph, [Kind.ROWS, Kind.ROWS], batch_size)
    np.testing.assert_array_equal(doubled, X * 2)
    np.testing.assert_array_equal(pairs, np.stack([X, -X], axis=1))
    assert pairs.dtype == np.int64
    sizes = [len(batch) for batch in graph.seen]  # The last batch is simply shorter.
    assert sum(sizes) == len(X)
    assert max(sizes) == min(batch_size or DEFAULT_BATCH_SIZE, len(X))


def test_what_has_no_rows_is_fed_whole_and_taken_once() -> None:
    graph = _Graph(lambda x, a: x + a.sum(), lambda *_: np.array([7, 8, 9]))
    found, constant = _run(graph, [Kind.ROWS, Kind.CONSTANT], 4, np.array([1.0, 2.0]))
    np.testing.assert_array_equal(found, X + 3)
    np.testing.assert_array_equal(constant, [7, 8, 9])
    assert len(graph.seen) == 3


def test_a_value_over_all_rows_takes_them_at_once() -> None:
    graph: Any = _Graph(np.mean)
    many = np.arange(DEFAULT_BATCH_SIZE + 1, dtype=np.float32)
    (mean,) = run_rows(graph, [array_rows(many, INFO, "here")], [Kind.WHOLE])
    assert (mean, len(graph.seen)) == (many.mean(), 1)


@pytest.mark.parametrize(
    "function",
    [lambda x: np.repeat(x, 2), lambda x: np.zeros((len(x), len(x))), np.sum],
    ids=["longer", "square", "scalar"],
)
def test_what_turns_out_to_be_no_row_a_row_is_refused(function: Function) -> None:
    with refused(r"not one entry a row: .*--batch_size=10", PredictionError):
        _run(_Graph(function), [Kind.ROWS], 4)
    np.testing.assert_array_equal(_run(_Graph(function), [Kind.ROWS], 10)[0], function(X))


def test_an_error_of_a_batch_ends_it() -> None:
    graph: Any = _Graph(lambda x: x)
    with refused("cannot hold", PredictionError):
        run_rows(graph, [array_rows(np.array([1.0, 1e39]), INFO, "here")], [Kind.ROWS], 1)


def test_a_fixed_batch_is_filled_up_by_its_last_row() -> None:
    graph = _Graph(lambda x: x * 2)
    graph.feeds = (INFO._replace(shape=(4,)),)
    (found,) = _run(graph, [Kind.ROWS], None)
    np.testing.assert_array_equal(found, X * 2)
    assert graph.seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]


def _fed(name: str, *shape: int | None) -> tuple[TensorInfo, Any]:
    tensor = TensorInfo(f"{name}:0", tf.float32, shape)
    return tensor, array_rows(np.zeros((9, 2), np.float32), tensor, "here")


FREE, OF_FOUR, OF_FIVE = _fed("free", None, 2), _fed("four", 4, 2), _fed("five", 5, 2)
CONSTANT = (TensorInfo("c:0", tf.float32, (3,)), np.zeros(3, np.float32))
WORDS = TensorInfo("words:0", tf.string, (None,))
TEXTS = (WORDS, array_rows(np.array([b"seven"] * 9, object), WORDS, "here"))
ROWS = (TensorInfo("y:0", tf.float32, (None,)), Kind.ROWS)
MEAN = (TensorInfo("mean:0", tf.float32, ()), Kind.WHOLE)


@pytest.mark.parametrize(
    ("feeds", "fetches", "asked", "expected"),
    [
        ([FREE], [ROWS], None, Batching(DEFAULT_BATCH_SIZE, fixed=False)),
        ([FREE, CONSTANT], [ROWS], 3, Batching(3, fixed=False)),
        ([FREE], [ROWS, MEAN], None, Batching(9, fixed=False)),
        ([FREE], [MEAN], 20, Batching(9, fixed=False)),
        ([FREE, OF_FOUR], [ROWS], None, Batching(4, fixed=True)),
        ([OF_FOUR, CONSTANT], [MEAN], 4, Batching(4, fixed=True)),
        ([OF_FOUR, OF_FIVE], [ROWS], None, "different numbers of rows a run: four:0 4, five:0 5"),
        ([OF_FOUR], [ROWS], 5, "four:0 takes 4 rows a run: leave out --batch_size"),
        ([FREE], [MEAN], 8, "mean:0 is one value over all 9 rows.* or give at least 9"),
    ],
)
def test_the_graph_decides_and_then_the_user(
    feeds: Any, fetches: Any, asked: int | None, expected: Batching | str
) -> None:
    if isinstance(expected, Batching):
        assert choose_batching(feeds, fetches, asked, 9) == expected
    else:
        with refused(expected, PredictionError):
            choose_batching(feeds, fetches, asked, 9)


@pytest.mark.parametrize(
    ("feeds", "limit", "expected"),
    [
        ([FREE], 9 * 8, 9),
        ([FREE], 9 * 8 - 1, 8),
        ([FREE], 7, 1),
        ([FREE, FREE, CONSTANT], 9 * 16 + 15, 9),
        ([TEXTS], 7 * 5, 7),
        ([FREE], 10**9, DEFAULT_BATCH_SIZE),
    ],
)
def test_rows_that_are_large_run_in_fewer_at_once(
    monkeypatch: pytest.MonkeyPatch, feeds: Any, limit: int, expected: int
) -> None:
    monkeypatch.setattr(evaluation, "DEFAULT_BATCH_BYTES", limit)
    assert choose_batching(feeds, [ROWS], None, 9) == Batching(expected, fixed=False)
    assert choose_batching(feeds, [ROWS], 100, 9).size == 100
    assert choose_batching(feeds, [MEAN], None, 9).size == 9
