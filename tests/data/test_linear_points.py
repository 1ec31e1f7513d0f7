import numpy as np

from data import batches


def test_points_lie_on_the_line() -> None:
    x, y = batches.linear_points(seed=0)
    for values in (x, y):
        assert values.dtype == np.float32
        assert values.shape == (100,)
    np.testing.assert_allclose(y, 0.1 * x.astype(np.float64) + 0.2, rtol=1e-6)


def test_x_is_uniform_in_the_unit_interval() -> None:
    x = np.concatenate([batches.linear_points(seed)[0] for seed in range(1000)])
    assert x.min() >= 0
    assert x.max() < 1
    counts, _ = np.histogram(x, bins=10, range=(0, 1))
    # 100,000 points in ten bins: 10,000 each, give or take 5 sigma.
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(100_000 * 0.1 * 0.9)


def test_points_follow_from_the_seed() -> None:
    assert np.array_equal(batches.linear_points(5)[0], batches.linear_points(5)[0])
    assert not np.array_equal(batches.linear_points(5)[0], batches.linear_points(6)[0])
