import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data.batches import ShuffledBatches
from tests.data.conftest import DataErrorLine


def test_batches_never_change() -> None:
    batches = ShuffledBatches(num_examples=10, batch_size=4, seed=0)
    assert [batches.indices(step).tolist() for step in range(3)] == [
        [7, 6, 8, 3],
        [2, 4, 1, 5],
        [0, 9, 2, 5],
    ]


@pytest.mark.parametrize(("num_examples", "batch_size"), [(1, 1), (10, 10), (10, 3), (7, 4)])
def test_each_epoch_has_each_example_once(num_examples: int, batch_size: int) -> None:
    batches = ShuffledBatches(num_examples, batch_size, seed=3)
    # As many steps as batches of the stream end together with an epoch.
    stream = np.concatenate([batches.indices(step) for step in range(num_examples)])
    epochs = stream.reshape(batch_size, num_examples)
    assert (np.sort(epochs, axis=1) == np.arange(num_examples)).all()


def test_batch_is_int64_of_the_batch_size_across_epochs_too() -> None:
    batches = ShuffledBatches(num_examples=10, batch_size=7, seed=0)
    for step in range(20):
        indices = batches.indices(step)
        assert indices.dtype == np.int64
        assert indices.shape == (7,)


def test_epochs_differ_and_seeds_differ() -> None:
    batches = ShuffledBatches(num_examples=100, batch_size=100, seed=0)
    other_seed = ShuffledBatches(num_examples=100, batch_size=100, seed=1)
    assert batches.indices(0).tolist() != batches.indices(1).tolist()
    assert batches.indices(0).tolist() != other_seed.indices(0).tolist()


def test_batch_follows_from_seed_and_step_alone() -> None:
    in_order = ShuffledBatches(num_examples=23, batch_size=5, seed=9)
    expected = [in_order.indices(step).tolist() for step in range(40)]
    out_of_order = ShuffledBatches(num_examples=23, batch_size=5, seed=9)
    for step in np.random.default_rng(0).permutation(40):
        assert out_of_order.indices(int(step)).tolist() == expected[step]
    assert ShuffledBatches(23, 5, 9).indices(39).tolist() == expected[39]


def test_several_threads_see_the_same_batches() -> None:
    batches = ShuffledBatches(num_examples=50, batch_size=20, seed=1)
    expected = [ShuffledBatches(50, 20, 1).indices(step).tolist() for step in range(200)]
    start = threading.Barrier(4)

    def read_all(_: int) -> list[list[int]]:
        start.wait(300)
        return [batches.indices(step).tolist() for step in range(200)]

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(read_all, range(4))) == [expected] * 4


def test_caller_cannot_change_later_batches() -> None:
    batches = ShuffledBatches(num_examples=10, batch_size=5, seed=0)
    with pytest.raises(ValueError, match="read-only"):
        batches.indices(0)[0] = 0


def test_is_a_value() -> None:
    assert ShuffledBatches(10, 5, 0) == ShuffledBatches(10, 5, 0)
    assert repr(ShuffledBatches(10, 5, 0)) == (
        "ShuffledBatches(num_examples=10, batch_size=5, seed=0)"
    )


def test_batch_larger_than_the_data_names_the_flag(data_error_line: DataErrorLine) -> None:
    with data_error_line("--batch_size=11 is more than the 10 .*; give --batch_size=10 or less"):
        ShuffledBatches(num_examples=10, batch_size=11, seed=0)


@pytest.mark.parametrize(("num_examples", "batch_size", "seed"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_senseless_numbers_are_refused(num_examples: int, batch_size: int, seed: int) -> None:
    with pytest.raises(ValueError, match="needs"):
        ShuffledBatches(num_examples, batch_size, seed)


def test_an_example_of_the_stream_is_that_of_its_batch() -> None:
    batches = ShuffledBatches(7, 3, seed=5)
    stream = np.concatenate([batches.indices(step) for step in range(10)])
    assert [batches.example(place) for place in range(30)] == stream.tolist()
