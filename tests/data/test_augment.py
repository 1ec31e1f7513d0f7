"""Shifted and mirrored images, against slices of padded ones."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data.batches import MAX_SHIFT, augment

Array = npt.NDArray[Any]

SHIFTS = range(-MAX_SHIFT, MAX_SHIFT + 1)
# Of one image in the steps 0 to 3 of seed 0: rows down, columns to the right, mirrored.
GOLDEN = [(0, 1, False), (0, -4, False), (2, -2, False), (-3, 1, True)]


@pytest.fixture(scope="module")
def images() -> Array:
    """Noise, so that no two shifts of an image are equal."""
    return np.random.default_rng(0).random((400, 9, 7, 3)).astype(np.float32)


def _variants(image: Array) -> dict[tuple[int, int, bool], bytes]:
    """What may come of an image, by the rows and columns it was shifted and whether mirrored."""
    height, width, _ = image.shape
    padded = np.pad(image, ((MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT), (0, 0)), mode="edge")
    found = {}
    for y in SHIFTS:
        for x in SHIFTS:
            cut = padded[MAX_SHIFT + y :, MAX_SHIFT + x :][:height, :width]
            found[y, x, False] = cut.tobytes()
            found[y, x, True] = cut[:, ::-1].tobytes()
    return found


def _drawn(before: Array, after: Array) -> list[tuple[int, int, bool]]:
    """What was done to each image."""
    drawn = []
    for image, changed in zip(before, after, strict=True):
        matches = [what for what, made in _variants(image).items() if made == changed.tobytes()]
        assert len(matches) == 1
        drawn += matches
    return drawn


def test_each_is_a_shifted_and_perhaps_mirrored_copy(images: Array) -> None:
    """All shifts appear, about equally often, and every other image is mirrored."""
    drawn = _drawn(images, augment(images, seed=3, step=5))
    for axis in (0, 1):
        counts = [[what[axis] for what in drawn].count(shift) for shift in SHIFTS]
        assert min(counts) > 400 / 9 / 2
        assert max(counts) < 400 / 9 * 2
    assert 160 < [mirrored for _, _, mirrored in drawn].count(True) < 240
    assert len({*drawn}) > 120  # Of 162: the three are drawn apart.


def test_it_follows_from_seed_and_step_alone(images: Array) -> None:
    first = augment(images, seed=3, step=5)
    assert augment(images, seed=3, step=5).tobytes() == first.tobytes()
    assert augment(images, seed=3, step=6).tobytes() != first.tobytes()
    assert augment(images, seed=4, step=5).tobytes() != first.tobytes()


def test_what_is_drawn_never_changes() -> None:
    """Golden: a run that is resumed after an update goes on with the same images."""
    image = np.arange(32 * 32, dtype=np.float32).reshape(1, 32, 32, 1)
    drawn = [_drawn(image, augment(image, seed=0, step=step))[0] for step in range(4)]
    assert drawn == GOLDEN


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_images_themselves_stay_and_the_dtype_too(dtype: type) -> None:
    images: Array = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(dtype)
    before = images.copy()
    after = augment(images, seed=0, step=0)
    assert (after.dtype, after.shape) == (images.dtype, images.shape)
    assert not np.shares_memory(images, after)
    assert images.tobytes() == before.tobytes()


def test_no_image_is_no_error() -> None:
    assert augment(np.empty((0, 32, 32, 3), np.float32), seed=0, step=0).shape == (0, 32, 32, 3)
