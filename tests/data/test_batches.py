"""Which examples a step is given: random numbers, batches, augmentation, threads and bad rows."""

import gc
import itertools
import random
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data import SKIP, STOP
from data.batches import (
    MAX_SHIFT,
    BadSoFar,
    ShuffledBatches,
    Stream,
    TrainingBatches,
    augment,
    linear_points,
    permutation,
    raw_bits,
    read_ahead,
    row_batches,
    split_rows,
)
from data.files import Array, Indices, LabelledSource
from errors import DataError
from tests.conftest import Log, Patch
from tests.data.conftest import BadRows, error_line


def test_what_is_drawn_never_changes() -> None:
    """Golden: a run that was begun before an update must see the same batches after it."""
    drawn = raw_bits(2, seed=0, stream=Stream.EPOCH).tolist()
    assert drawn == [14946354705293191919, 10074248136150883599]
    assert permutation(10, seed=0, stream=Stream.EPOCH).tolist() == [7, 6, 8, 3, 2, 4, 1, 5, 0, 9]
    batches = ShuffledBatches(num_examples=10, batch_size=4, seed=0)
    first = np.concatenate([batches.indices(step) for step in range(3)])
    assert first.tolist() == [7, 6, 8, 3, 2, 4, 1, 5, 0, 9, 2, 5]
    image = np.arange(32 * 32, dtype=np.float32).reshape(1, 32, 32, 1)
    changes = [_drawn(image, augment(image, seed=0, step=step))[0] for step in range(4)]
    assert changes == [(0, 1, False), (0, -4, False), (2, -2, False), (-3, 1, True)]


def test_seed_stream_and_index_all_matter() -> None:
    asked = [*itertools.product((0, 1, 2**32, 2**63), Stream, (0, 1, 2**32))]
    assert len({raw_bits(4, *each).tobytes() for each in asked}) == len(asked)
    with pytest.raises(ValueError, match="non-negative"):
        raw_bits(1, seed=-1, stream=Stream.EPOCH)


def test_points_lie_on_the_line_and_follow_from_the_seed() -> None:
    x, y = linear_points(seed=0)
    assert x.dtype == y.dtype == np.float32
    assert x.shape == y.shape == (100,)
    np.testing.assert_allclose(y, 0.1 * x.astype(np.float64) + 0.2, rtol=1e-6)
    assert np.array_equal(linear_points(0)[0], x)
    x = np.concatenate([linear_points(seed)[0] for seed in range(1000)])
    assert 0 <= x.min() <= x.max() < 1
    counts, _ = np.histogram(x, bins=10, range=(0, 1))
    # 100,000 points in ten bins: 10,000 each, give or take 5 sigma.
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(100_000 * 0.1 * 0.9)


LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 10, 1]))


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.2, [20, 2, 0]), (0.06, [6, 1, 0]), (0.5, [50, 5, 0]), (0.999, [99, 9, 0])],
)
def test_holds_out_of_each_class_and_leaves_one(fraction: float, expected: list[int]) -> None:
    train, held_out = split_rows(LABELS, fraction, seed=0)
    assert np.bincount(LABELS[held_out], minlength=3).tolist() == expected
    assert sorted([*train, *held_out]) == list(range(len(LABELS)))
    for rows in (train, held_out):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
    assert {*split_rows(LABELS, fraction / 2, seed=0)[1]} < {*held_out}


def test_what_is_held_out_follows_from_the_seed() -> None:
    with error_line(r"--validation_fraction=0\.001 of 111 images holds out none"):
        split_rows(LABELS, 0.001, seed=0)
    first, again, other = (split_rows(LABELS, 0.2, seed)[1].tolist() for seed in (4, 4, 5))
    assert first == again != other
    any_of = [split_rows(np.repeat([0, 1], 5), 0.2, seed)[1].tolist() for seed in range(100)]
    assert np.unique(any_of).tolist() == list(range(10))


@pytest.mark.parametrize(("num_examples", "batch_size"), [(1, 1), (10, 10), (10, 3), (7, 4)])
def test_each_epoch_has_each_example_once(num_examples: int, batch_size: int) -> None:
    batches = ShuffledBatches(num_examples, batch_size, seed=3)
    # As many steps as batches of the stream end together with an epoch.
    steps = [batches.indices(step) for step in range(num_examples)]
    assert {(step.dtype, step.shape) for step in steps} == {(np.dtype(np.int64), (batch_size,))}
    stream = np.concatenate(steps)
    epochs = stream.reshape(batch_size, num_examples)
    assert (np.sort(epochs, axis=1) == np.arange(num_examples)).all()
    assert [batches.example(place) for place in range(len(stream))] == stream.tolist()


def test_a_batch_follows_from_seed_and_step_alone_in_any_order_and_thread() -> None:
    in_order = ShuffledBatches(num_examples=23, batch_size=5, seed=9)
    expected = [in_order.indices(step).tolist() for step in range(100)]
    with pytest.raises(ValueError, match="read-only"):
        in_order.indices(0)[0] = 0  # A caller cannot change later batches.
    shared = ShuffledBatches(num_examples=23, batch_size=5, seed=9)
    start = threading.Barrier(4)

    def read_all(seed: int) -> None:
        start.wait(300)
        for step in np.random.default_rng(seed).permutation(100).tolist():
            assert shared.indices(step).tolist() == expected[step]

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(read_all, range(4))) == [None] * 4
    with error_line("--batch_size=11 is more than the 10 .*; give --batch_size=10 or less"):
        ShuffledBatches(num_examples=10, batch_size=11, seed=0)


SHIFTS = range(-MAX_SHIFT, MAX_SHIFT + 1)


def _variants(image: Array) -> dict[bytes, tuple[int, int, bool]]:
    """What may come of an image: the rows and columns it was shifted and whether mirrored."""
    height, width, _ = image.shape
    padded = np.pad(image, ((MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT), (0, 0)), mode="edge")
    found = {}
    for y, x in itertools.product(SHIFTS, SHIFTS):
        cut = padded[MAX_SHIFT + y :, MAX_SHIFT + x :][:height, :width]
        found[cut.tobytes()] = (y, x, False)
        found[cut[:, ::-1].tobytes()] = (y, x, True)
    assert len(found) == 2 * len(SHIFTS) ** 2
    return found


def _drawn(before: Array, after: Array) -> list[tuple[int, int, bool]]:
    """What was done to each image."""
    pairs = zip(before, after, strict=True)
    return [_variants(image)[changed.tobytes()] for image, changed in pairs]


def test_each_image_is_shifted_and_perhaps_mirrored_by_seed_and_step() -> None:
    """All shifts appear, about equally often, and every other image is mirrored."""
    images = np.random.default_rng(0).random((400, 9, 7, 3)).astype(np.float32)
    before = images.copy()
    first = augment(images, seed=3, step=5)
    assert np.array_equal(images, before)
    assert first.dtype == np.float32
    assert augment(images[:0].astype(np.uint8), seed=0, step=0).dtype == np.uint8
    drawn = _drawn(images, first)
    for axis in (0, 1):
        counts = [[what[axis] for what in drawn].count(shift) for shift in SHIFTS]
        assert 400 / 9 / 2 < min(counts) <= max(counts) < 400 / 9 * 2
    assert 160 < [mirrored for _, _, mirrored in drawn].count(True) < 240
    assert len({*drawn}) > 120  # Of 162: the three are drawn apart.
    for seed, step in ((3, 5), (3, 6), (4, 5)):
        is_same = np.array_equal(augment(images, seed, step), first)
        assert is_same == ((seed, step) == (3, 5))


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    assert not reading_threads()
    yield
    assert not reading_threads()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_batches_come_in_order_whatever_the_number_of_threads(workers: int) -> None:
    together, threads = threading.Barrier(workers), set()

    def batch(step: int) -> int:
        together.wait(300)  # Passed only by as many at once.
        threads.add(threading.get_ident())
        time.sleep((step * 7 % 5) / 1000)
        return step

    steps = range(3, 3 + 6 * workers)
    assert [*read_ahead(batch, steps.start, steps.stop, workers)] == [*steps]
    assert len(threads - {threading.get_ident()}) == workers
    for start, stop in ((0, 0), (5, 5), (7, 5)):
        assert list(read_ahead(batch, start, stop, workers)) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_one_more_than_there_are_threads_is_read_ahead(workers: int) -> None:
    begun: list[int] = []
    allowed = threading.Semaphore(0)

    def batch(step: int) -> int:
        begun.append(step)
        allowed.release()
        return step

    batches = read_ahead(batch, 0, 100, workers)
    for step in range(10):
        assert next(batches) == step
        while len(begun) < step + 2 + workers:
            assert allowed.acquire(timeout=300)
        assert sorted(begun) == list(range(step + 2 + workers))
    batches.close()


def test_close_drops_what_is_not_begun(monkeypatch: Patch) -> None:
    calls: list[int] = []
    in_the_making, go_on = threading.Event(), threading.Event()

    def batch(step: int) -> int:
        calls.append(step)
        if step == 1:
            in_the_making.set()
            assert go_on.wait(300)
        return step

    batches = read_ahead(batch, 0, 100)
    assert next(batches) == 0
    assert in_the_making.wait(300)

    def shutdown(executor: ThreadPoolExecutor, wait: bool = True, **options: bool) -> None:
        end(executor, wait=False, **options)
        go_on.set()
        end(executor, wait=wait)

    end = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown)
    batches.close()
    assert calls == [0, 1]


def test_threads_begin_with_the_first_batch_and_end_with_a_forgotten_generator() -> None:
    batches = read_ahead(str, 0, 100)
    assert not reading_threads()
    next(batches)
    assert len(reading_threads()) == 1
    del batches
    gc.collect()


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_at_its_step(workers: int) -> None:
    def batch(step: int) -> int:
        if step in (6, 7):
            raise DataError(f"step {step}")
        time.sleep((10 - step) / 500)
        return step

    found = read_ahead(batch, 0, 10, workers)
    assert [next(found) for _ in range(6)] == [*range(6)]
    with error_line("step 6"):
        next(found)
    assert list(found) == []


COUNT, SEED = 11, 3


def numbers(bad: Collection[int] = ()) -> LabelledSource:
    """Row i holds the number i; some rows are bad, and reading takes a random time."""

    class Numbers(BadRows):
        def take(self, indices: Indices) -> Array:
            time.sleep(random.random() / 500)
            return super().take(indices)

    store = Numbers(np.arange(COUNT, dtype=np.float32), bad)
    return LabelledSource(store, np.arange(COUNT))


def batches(bad: frozenset[int], on_bad: str = SKIP) -> TrainingBatches:
    return TrainingBatches(numbers(bad), ShuffledBatches(COUNT, 4, SEED), on_bad)


def expected(step: int, bad: frozenset[int]) -> list[int]:
    """By the rule: of the stream of examples, each bad one becomes the next good one."""
    order = ShuffledBatches(COUNT, 1, SEED)
    stream = [int(order.indices(place)[0]) for place in range(20 * COUNT)]
    return [
        next(example for example in stream[place:] if example not in bad)
        for place in range(step * 4, (step + 1) * 4)
    ]


@pytest.mark.parametrize("bad", [(), (5,), (1, 4, 7), tuple(range(10))])
def test_a_bad_example_is_replaced_by_the_next_good_one(bad: tuple[int, ...]) -> None:
    given = batches(frozenset(bad))
    for step in (3, 11, 0, 1, 2, 10):  # What was asked before is of no matter.
        x, y = given.batch(step)
        assert y.tolist() == x.tolist() == expected(step, frozenset(bad))
        whole = np.array(expected(step, frozenset()))
        is_good = ~np.isin(whole, bad)
        assert np.array_equal(y[is_good], whole[is_good])


def test_several_threads_warn_of_a_bad_file_once(caplog: Log) -> None:
    given = batches(frozenset({2, 8}))
    with ThreadPoolExecutor(24) as executor:
        assert len([*executor.map(given.batch, [*range(12)] * 2)]) == 24
    assert sorted(caplog.messages) == ["skipped: 2.png: is bad", "skipped: 8.png: is bad"]


def test_a_bad_row_stops_unless_it_is_skipped_and_none_that_is_good_does() -> None:
    every = frozenset(range(COUNT))
    first = expected(0, frozenset())[0]
    with error_line(rf"^{first}\.png: is bad; --on_bad_image=skip goes on without it$"):
        batches(every, STOP).batch(0)
    with error_line("none of the 11 training examples can be read"):
        batches(every).batch(0)
    given = iter(row_batches(numbers({6, 9}), 4))
    assert next(given)[1].tolist() == [0, 1, 2, 3]
    with error_line(r"^6\.png: is bad; --on_bad_image=skip"):
        next(given)
    with error_line("none of the 11 rows can be read"):
        list(row_batches(numbers(every), 4, BadSoFar(SKIP)))


@pytest.mark.parametrize("workers", [1, 3])
def test_evaluation_leaves_bad_rows_out(workers: int, caplog: Log) -> None:
    """All others come once, in order."""
    bad = BadSoFar(SKIP)
    for _ in range(2):
        found = row_batches(numbers({1, 4, 5, 6, 7}), 4, bad, workers)
        assert [y.tolist() for _, y in found] == [[0, 2, 3], [8, 9, 10]]
    assert len(caplog.messages) == 5  # Once a row, in two evaluations.
    for size in (1, 2, 5, COUNT, 20):
        rows = [y.tolist() for _, y in row_batches(numbers(), size, workers=workers)]
        assert rows == [[*range(COUNT)][at : at + size] for at in range(0, COUNT, size)]
