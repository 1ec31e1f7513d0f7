"""The built-in images: drawings of shapes, and the tutorials' ramp, from which nothing is learnt.

A drawing is a circle, a square, a triangle or a cross, bright on a dark ground. Every pixel follows
from (seed, index) by integer arithmetic alone, so that the bytes are the same on every machine.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

CLASS_NAMES = ("circle", "square", "triangle", "cross")
IMAGE_SIZE = 32  # pixels in height and width
TRAIN, TEST = range(4000), range(4000, 4800)  # the numbers of the images; four a round of classes
_SEED = 0  # of the data set; another draws other images of the same kind
_UNIT = 16  # steps of length a pixel
_EDGE = 24  # steps over which a shape fades into its ground
_IMAGES_AT_ONCE = 64  # their arrays stay in the processor's cache
_PIXELS = IMAGE_SIZE * IMAGE_SIZE

_Ints: TypeAlias = npt.NDArray[np.int32]
_Distance: TypeAlias = Callable[[_Ints, _Ints, _Ints], _Ints]


def _hash(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit numbers that follow from numbers: the output function of SplitMix64.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)  # Wraps around, as all of this does.
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


# The distance of points (u, v) from the edge of a shape of size `r`, in steps; below 0 inside.


def _circle(u: _Ints, v: _Ints, r: _Ints) -> _Ints:
    out: _Ints = (u * u + v * v - r * r) // (2 * r)  # Right at the edge, and that is what counts.
    return out


def _square(u: _Ints, v: _Ints, r: _Ints) -> _Ints:
    out: _Ints = np.maximum(np.abs(u), np.abs(v)) - r * 7 // 8
    return out


def _triangle(u: _Ints, v: _Ints, r: _Ints) -> _Ints:
    v = v - r // 4  # Its corners reach as far up as down.
    slanted = (np.abs(u) * 887 - v * 512) // 1024  # cos and sin of 30 degrees
    return np.maximum(v, slanted) - r * 9 // 16


def _cross(u: _Ints, v: _Ints, r: _Ints) -> _Ints:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - r, np.minimum(u, v) - r * 5 // 16)


_DISTANCES: tuple[_Distance, ...] = (_circle, _square, _triangle, _cross)


def draw(indices: npt.NDArray[np.int64], seed: int = _SEED) -> npt.NDArray[np.uint8]:
    """The images of these numbers, uint8 [N, 32, 32, 3] in RGB; that of i is of class i % 4.

    Position, size, rotation (up to 14 degrees), colours and noise are drawn for each.
    """
    images = np.empty((len(indices), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for label, distance in enumerate(_DISTANCES):
        (places,) = np.nonzero(indices % len(CLASS_NAMES) == label)
        for start in range(0, len(places), _IMAGES_AT_ONCE):
            some = places[start : start + _IMAGES_AT_ONCE]
            images[some] = _draw_class(distance, indices[some], seed)
    return images


def _draw_class(
    distance: _Distance, indices: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.uint8]:
    keys = _hash(indices.astype(np.uint64) + (np.uint64(seed) << np.uint64(32)))
    draws = _hash(keys[:, None] + np.arange(10, dtype=np.uint64))

    def uniform(number: int, low: int, high: int) -> _Ints:
        """One number in [low, high] for each image, [N, 1]."""
        bits = draws[:, number, None] >> np.uint64(33)
        return low + (bits % np.uint64(high - low + 1)).astype(np.int32)

    radius = uniform(0, 9 * _UNIT, 13 * _UNIT)
    reach = 15 * _UNIT - radius  # How far from the middle of the image it may be.
    across, down = (uniform(i, -1024, 1024) * reach // 1024 for i in (1, 2))
    pixels = np.arange(_PIXELS, dtype=np.int32)
    middle = IMAGE_SIZE * _UNIT // 2 - _UNIT // 2  # Of the first pixel's and the last one's.
    x = pixels % IMAGE_SIZE * _UNIT - middle - across
    y = pixels // IMAGE_SIZE * _UNIT - middle - down
    # The tangent of half the angle gives sine and cosine without a table.
    half = uniform(3, -8, 8)
    cosine, sine, scale = 64 * 64 - half * half, 2 * 64 * half, 64 * 64 + half * half
    u, v = (x * cosine + y * sine) // scale, (y * cosine - x * sine) // scale
    shown = np.clip(_EDGE // 2 - distance(u, v, radius), 0, _EDGE)  # [N, pixels]
    noise = _hash(keys[:, None] * np.uint64(_PIXELS) + pixels.astype(np.uint64))
    channels = []
    for channel in range(3):
        ground, shape = uniform(4 + channel, 0, 64), uniform(7 + channel, 160, 255)
        grain = ((noise >> np.uint64(16 * channel)) & np.uint64(31)).astype(np.int32) - 15
        channels.append(np.clip(ground + (shape - ground) * shown // _EDGE + grain, 0, 255))
    drawn = np.stack(channels, axis=-1).astype(np.uint8)
    return drawn.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)


def class_of(number: int) -> str:
    """The name of an image's class."""
    return CLASS_NAMES[number % len(CLASS_NAMES)]


def examples(numbers: Sequence[int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The images and labels of some numbers, as of `TRAIN`: uint8 [N, 32, 32, 3], int64 [N]."""
    indices = np.array(numbers)
    return draw(indices), indices % len(CLASS_NAMES)


# The ramp: the ten images of the tutorials, numbers that grow from pixel to pixel.


def ramp_images() -> npt.NDArray[np.float32]:
    """The training images: float32 [10, 32, 32, 3] in [0, 120.5]."""
    return (np.arange(30720) / 255).astype(np.float32).reshape(10, 32, 32, 3)


def ramp_labels() -> npt.NDArray[np.int64]:
    """The labels of `ramp_images`: int64 [10], four classes."""
    return np.array([0, 0, 1, 1, 2, 2, 3, 3, 2, 0], np.int64)


def ramp_demo() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Two images to predict, the third and the fourth of the ramp, float32 [2, 32, 32, 3].

    The labels, int64 [2], are those of the tutorials: not what the ramp was labelled with.
    """
    return ramp_images()[2:4], np.array([3, 1], np.int64)
