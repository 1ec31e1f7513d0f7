import numpy as np
import pytest

from data.batches import Stream, permutation, raw_bits


def test_numbers_never_change() -> None:
    # A run that was begun before an update must see the same batches after it.
    assert raw_bits(2, seed=0, stream=Stream.EPOCH).tolist() == [
        14946354705293191919,
        10074248136150883599,
    ]
    assert permutation(10, seed=0, stream=Stream.EPOCH).tolist() == [7, 6, 8, 3, 2, 4, 1, 5, 0, 9]


def test_seed_stream_and_index_all_matter() -> None:
    draws = {
        tuple(raw_bits(4, seed, stream, index).tolist())
        for seed in (0, 1, 2**32, 2**63)
        for stream in Stream
        for index in (0, 1, 2**32)
    }
    assert len(draws) == 4 * len(Stream) * 3


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_permutation_has_each_number_once(count: int) -> None:
    drawn = permutation(count, seed=7, stream=Stream.EPOCH, index=3)
    assert drawn.dtype == np.int64
    assert sorted(drawn.tolist()) == list(range(count))


def test_places_are_uniform() -> None:
    # 4,000 permutations of 4: each number is at each place 1,000 times, give or take 5 sigma.
    drawn = np.stack([permutation(4, 0, Stream.EPOCH, epoch) for epoch in range(4000)])
    counts = np.stack([np.bincount(drawn[:, place], minlength=4) for place in range(4)])
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(4000 * 1 / 4 * 3 / 4)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        raw_bits(1, seed=-1, stream=Stream.EPOCH)
