import numpy as np
import pytest

from data.source import UINT8_SCALE, ArraySource, Source, Subset

INDICES = np.array([4, 0, 4], np.int64)


def make_source() -> ArraySource:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    return ArraySource(pixels, np.array([3, 0, 1, 2, 1], np.int64))


def test_uint8_rows_are_scaled_in_float32() -> None:
    source = make_source()
    x, y = source.rows(INDICES)
    assert x.dtype == np.float32
    expected = [pixels.astype(np.float32) * np.float32(1 / 255) for pixels in source.features]
    assert np.array_equal(x, np.stack([expected[4], expected[0], expected[4]]))
    assert y.dtype == np.int64
    assert y.tolist() == [1, 3, 1]


def test_scale_takes_uint8_to_the_unit_range() -> None:
    source = ArraySource(np.array([[0], [255]], np.uint8), np.zeros(2, np.int64))
    x, _ = source.rows(np.array([0, 1]))
    assert x.tolist() == [[0.0], [1.0]]
    assert UINT8_SCALE.dtype == np.float32


def test_float_rows_come_as_they_are() -> None:
    features = np.linspace(-3, 7, 10, dtype=np.float32)
    x, y = ArraySource(features, features * 2).rows(INDICES)
    for values, expected in ((x, features[INDICES]), (y, 2 * features[INDICES])):
        assert values.dtype == np.float32
        assert np.array_equal(values, expected)


def test_rows_are_the_callers_own() -> None:
    source = ArraySource(np.zeros((5, 2), np.float32), np.zeros(5, np.int64))
    x, y = source.rows(np.arange(5))
    x += 1
    y += 1
    assert not source.features.any()
    assert not source.labels.any()


def test_index_beyond_the_end_is_refused() -> None:
    with pytest.raises(IndexError):
        make_source().rows(np.array([5]))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="5 features and 4 labels"):
        ArraySource(np.zeros(5), np.zeros(4))


def test_subset_numbers_its_members_anew() -> None:
    source = make_source()
    subset: Source = Subset(source, np.array([3, 1], np.int64))
    assert len(subset) == 2
    x, y = subset.rows(np.array([1, 0, 1]))
    expected_x, expected_y = source.rows(np.array([1, 3, 1]))
    assert np.array_equal(x, expected_x)
    assert np.array_equal(y, expected_y)


def test_digest_tells_sources_apart() -> None:
    source = make_source()
    other_pixel = source.features.copy()
    other_pixel.flat[0] ^= 1
    sources: list[Source] = [
        source,
        ArraySource(other_pixel, source.labels),
        ArraySource(source.features, source.labels + 1),
        ArraySource(source.features[::-1], source.labels),
        ArraySource(source.features.astype(np.float32), source.labels),
        Subset(source, np.arange(5)),
        Subset(source, np.arange(4)),
    ]
    assert len({each.digest() for each in sources}) == len(sources)
    assert make_source().digest() == source.digest()


def test_a_source_tells_shapes_and_names_of_what_it_gives() -> None:
    images = np.zeros((6, 4, 4, 3), np.uint8)
    one_hot = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    source = ArraySource(images, one_hot, ("a", "b", "c"))
    subset = Subset(source, np.array([5, 0]))
    for each in (source, subset):
        given = each.rows(np.arange(2))
        assert each.specs == tuple((array.shape[1:], array.dtype) for array in given)
        assert each.class_names == ("a", "b", "c")
        assert each.workers == 1
        assert np.array_equal(each.labels[:2], given[1])
    assert subset.labels.tolist() == [[0, 0, 1], [1, 0, 0]]
