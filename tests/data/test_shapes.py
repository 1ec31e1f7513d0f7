"""The drawings: the same bytes everywhere, each a function of its number, shapes that are told."""

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from data import shapes


def _digest(array: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_the_bytes_are_the_same_on_every_machine() -> None:
    images, labels = shapes.examples(shapes.TRAIN)
    assert (images.shape, str(images.dtype)) == ((4000, 32, 32, 3), "uint8")
    assert (labels.shape, str(labels.dtype)) == ((4000,), "int64")
    assert _digest(images) == "3931acd0059e959d511afa6cfad4369039b9b7af15cde0a6f64ba5490f580a62"
    assert (
        _digest(shapes.examples(shapes.TEST)[0])
        == "58031634aa7a9b39a46afca8f1dc845af652c3c1a32bf62824233896d68b2b58"
    )


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_an_image_follows_from_seed_and_number_alone(seed: int) -> None:
    numbers = np.arange(300)
    together = shapes.draw(numbers, seed)
    backwards = shapes.draw(numbers[::-1].copy(), seed)[::-1]
    alone = np.concatenate([shapes.draw(numbers[i : i + 1], seed) for i in range(300)])
    assert np.array_equal(together, backwards)
    assert np.array_equal(together, alone)
    assert len({image.tobytes() for image in together}) == 300
    assert not np.array_equal(together, shapes.draw(numbers, seed + 1))


def test_a_quarter_of_each_split_is_of_each_class() -> None:
    for numbers, count in ((shapes.TRAIN, 1000), (shapes.TEST, 200)):
        _, labels = shapes.examples(numbers)
        assert np.bincount(labels).tolist() == [count] * 4


def test_what_is_drawn_is_what_its_class_says() -> None:
    """By the share of its bounding box that a shape fills, and how far down its middle lies."""
    images, labels = shapes.examples(shapes.TEST)
    shown = images.astype(int).sum(axis=3) > 336  # Half between the dark and the bright.
    filled, middle = np.empty((2, len(shown)))
    for number, mask in enumerate(shown):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        filled[number] = box.mean()
        middle[number] = (np.flatnonzero(box) // box.shape[1]).mean() / (len(box) - 1)
    of_class = [labels == label for label in range(4)]
    circle, square, triangle, cross = ([filled[i], middle[i]] for i in of_class)
    assert np.median(circle, axis=1) == pytest.approx([np.pi / 4, 1 / 2], abs=0.02)
    assert np.median(square, axis=1)[1] == pytest.approx(1 / 2, abs=0.02)
    assert np.percentile(square[0], 95) > 0.9  # Where it is hardly turned, it is its box.
    assert np.median(triangle, axis=1)[0] == pytest.approx(1 / 2, abs=0.03)
    assert 0.58 < np.median(triangle, axis=1)[1] < 2 / 3  # Turned, its corners lie lower.
    assert np.median(cross, axis=1) == pytest.approx([1 - (11 / 16) ** 2, 1 / 2], abs=0.03)
