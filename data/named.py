"""Data sets by their names: those of `keras.datasets`, MNIST's digits, the ramp, the drawings."""

import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from absl import logging

import file_io
from data import files
from data.arrays import read_idx, read_npz
from data.files import Array, LabelledSource, Source
from data.images import as_images
from errors import DataError

NUM_CLASSES = 10  # Of each data set in NAMED.
CLASS_NAMES = tuple(str(digit) for digit in range(NUM_CLASSES))  # Of digits.


class NamedDataset(NamedTuple):
    """What is known of a data set before it is there."""

    class_names: tuple[str, ...]  # In the order of the labels.
    image_shape: tuple[int, ...]
    place: str  # Of its file or files, in the folder of Keras's cache.
    address: str  # Where they come from.


_GOOGLE = "storage.googleapis.com/tensorflow/tf-keras-datasets/"
NAMED = {
    "mnist": NamedDataset(CLASS_NAMES, (28, 28), "mnist.npz", _GOOGLE + "mnist.npz"),
    "fashion_mnist": NamedDataset(
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        (28, 28),
        "fashion-mnist/",
        _GOOGLE + "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
    ),
    "cifar10": NamedDataset(
        (
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        (32, 32, 3),
        "cifar-10-batches-py-target_archive",
        "www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
}


def load_named(name: str) -> list[tuple[Array, Array]]:
    """The training and the test images of a data set of `NAMED`, each with their labels.

    They are uint8 [N, H, W] or [N, H, W, 3], and int64 [N]. Keras downloads what is not in its
    cache, `$KERAS_HOME/datasets` or `~/.keras/datasets`, and checks it (of Fashion-MNIST only what
    is checked here). DataError where it cannot, or the cache is damaged or holds something else.
    """
    # Only now: importing Keras takes seconds and makes its folder.
    module = importlib.import_module(f"keras.datasets.{name}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads.
            splits = module.load_data()
        return [_checked(x, y.reshape(-1), NAMED[name].image_shape) for x, y in splits]
    except Exception as error:  # Keras raises bare `Exception` itself, and what unpacking raises.
        reason = " ".join(str(error).split()) or type(error).__name__
        place = f"{os.environ.get('KERAS_HOME', '~/.keras')}/datasets/{NAMED[name].place}"
        raise DataError(
            f"--data={name}: {reason.rstrip('.')}; without a network, put {NAMED[name].address} "
            f"there as {place}; where that is damaged, remove it"
        ) from error


def _checked(images: Array, labels: Array, image_shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Images in C's order, and labels as int64; ValueError where they are something else."""
    if images.dtype != np.uint8 or images.shape != (len(labels), *image_shape):
        raise ValueError(
            f"expected images uint8 {['N', *image_shape]} and N labels, found "
            f"{images.dtype} {list(images.shape)} and {len(labels)}"
        )
    if not len(labels) or not 0 <= labels.min() <= labels.max() < NUM_CLASSES:
        raise ValueError(f"expected labels from 0 to {NUM_CLASSES - 1}")
    return np.ascontiguousarray(images), labels.astype(np.int64)


# The ramp: the ten images of the tutorials, numbers that grow from pixel to pixel.

RAMP_FILE = "data10_4.npz"
RAMP_LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3, 2, 0], np.int64)
RAMP_LABELS.flags.writeable = False
RAMP_CLASSES = 4
_MAX_RAMP_BYTES = 1_000_000


def ramp_images() -> npt.NDArray[np.float32]:
    """The training images: float32 [10, 32, 32, 3] in [0, 120.5]."""
    return (np.arange(30720) / 255).astype(np.float32).reshape(10, 32, 32, 3)


def ramp_demo() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Two images to predict, the third and the fourth of the ramp, float32 [2, 32, 32, 3].

    The labels, int64 [2], are those of the tutorials: not what the ramp was labelled with.
    """
    return ramp_images()[2:4], np.array([3, 1], np.int64)


def warn_out_of_range(images: Array, name: str) -> None:
    """Warns where float images leave [0, 1], as scaled uint8 images do not; the ramp may."""
    if images.dtype == np.uint8:
        return
    low, high = float(images.min()), float(images.max())
    if (low < 0 or high > 1) and not np.array_equal(images, ramp_images()):
        logging.warning("%s: values in [%g, %g]; expected [0, 1], or uint8", name, low, high)


def check_ramp(path: str) -> None:
    """Raises DataError where the file that the ramp is kept in is there, and is not the ramp."""
    if not files.exists(path):
        return
    found = read_npz(path, _MAX_RAMP_BYTES, lambda _: ("X", "Y"))
    same_images = np.array_equal(as_images(found["X"], f"{path}: X"), ramp_images())
    if not same_images or not np.array_equal(found["Y"], RAMP_LABELS):
        raise DataError(
            f"{path}: holds other values than the ramp; remove it and it is made anew, "
            f"or train on it with --data={path}"
        )


def write_ramp(path: str) -> None:
    """Keeps the ramp in an .npz file (keys X, Y), where that is absent; DataError if it cannot."""
    if not files.exists(path):
        content = io.BytesIO()
        np.savez(content, X=ramp_images(), Y=RAMP_LABELS)
        files.write_atomically(path, content.getvalue())


# Handwritten digits: the four IDX files of MNIST, or of a data set in its form.

IMAGE_SHAPE = (28, 28, 1)  # Height and width in pixels, and one channel: 0 is paper, 255 ink.
_IMAGES = re.compile(r"(.*)images[.-]idx3-ubyte(\.gz)?")
_MAX_IDX_BYTES = 2**30  # 1.3 million images


def open_mnist(folder: str) -> tuple[Source, Source]:
    """Reads the training and the test digits of a folder into memory, as uint8.

    A row is x float32 [784] in [0, 1] and y float32 [10], one-hot. The folder's files are
    train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k, with or without .gz, or
    with a dot before `idx`. Raises DataError where one is missing, or is not such a file.
    """
    return _open_part(folder, "train"), _open_part(folder, "t10k")


def _open_part(folder: str, part: str) -> LabelledSource:
    """The images, uint8 [N, 784], and the labels, one-hot float32 [N, 10], of one of the splits."""
    images_path, images = _read(folder, f"{part}-images", (28, 28))
    labels_path, labels = _read(folder, f"{part}-labels", ())
    if len(images) != len(labels):
        raise DataError(
            f"{images_path}: holds {len(images)} images, but {labels_path} {len(labels)} labels"
        )
    if labels.max() >= NUM_CLASSES:
        raise DataError(
            f"{labels_path}: expected labels from 0 to {NUM_CLASSES - 1}, found {labels.max()}"
        )
    one_hot = np.eye(NUM_CLASSES, dtype=np.float32)[labels]
    return LabelledSource(images.reshape(len(images), -1), one_hot)


def _read(folder: str, stem: str, row_shape: tuple[int, ...]) -> tuple[str, Array]:
    """The path of one of the four files, and its values: uint8 [N, *row_shape], N above 0."""
    rank = 1 + len(row_shape)
    path = find_file(folder, stem, rank)
    if path is None:
        name = f"{stem}-idx{rank}-ubyte"
        raise DataError(
            f"--data_dir={folder}: holds no {name}; put that file of MNIST there, as it is or "
            f"gzipped ({name}.gz)"
        )
    values = read_idx(path, _MAX_IDX_BYTES)
    if values.dtype != np.uint8 or values.shape[1:] != row_shape or not len(values):
        expected = ", ".join(["N", *map(str, row_shape)])
        raise DataError(
            f"{path}: expected uint8 [{expected}], found {values.dtype} {list(values.shape)}"
        )
    return path, values


def find_file(folder: str, stem: str, rank: int) -> str | None:
    """The path of a file of one of its usual names, also in a folder of such a name, or raw/."""
    names = [f"{stem}{dot}idx{rank}-ubyte{end}" for end in ("", ".gz") for dot in "-."]
    for place in ("", *names, "raw", "MNIST/raw"):  # As archivers and torchvision leave them.
        for path in (os.path.join(folder, place, name) for name in names):
            if files.exists(path) and not file_io.is_folder(path):
                return path
    return None


def labels_beside(images_path: str) -> str | None:
    """Beside `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`; None where there is none."""
    folder, name = os.path.split(images_path)
    found = _IMAGES.fullmatch(name)
    if _IMAGES.fullmatch(os.path.basename(folder)):  # Each file is in a folder of its name.
        folder = os.path.dirname(folder)
    return find_file(folder, f"{found[1]}labels", 1) if found else None


# The drawings: circles, squares, triangles and crosses, bright on a dark ground. Every pixel
# follows from (seed, index) by integer arithmetic alone, so that the bytes are the same on every
# machine.

SHAPE_NAMES = ("circle", "square", "triangle", "cross")
_SIDE = 32  # pixels in height and width
# The numbers of the images; any four in a row are one of each class.
TRAIN_SHAPES, TEST_SHAPES = range(4000), range(4000, 4800)
_SEED = 0  # of the data set; another draws other images of the same kind
_UNIT = 16  # steps of length a pixel
_EDGE = 24  # steps over which a shape fades into its ground
_IMAGES_AT_ONCE = 64  # their arrays stay in the processor's cache
_PIXELS = _SIDE * _SIDE

_Ints: TypeAlias = npt.NDArray[np.int32]


def _hash(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit numbers that follow from numbers: the output function of SplitMix64.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)  # Wraps around, as all of this does.
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _distance(shape: str, u: _Ints, v: _Ints, r: _Ints) -> _Ints:
    """How far points (u, v) are from the edge of a shape of size `r`, in steps; below 0 inside."""
    distance: _Ints
    if shape == "circle":  # Right at the edge, and that is what counts.
        distance = (u * u + v * v - r * r) // (2 * r)
    elif shape == "square":
        distance = np.maximum(np.abs(u), np.abs(v)) - r * 7 // 8
    elif shape == "triangle":
        v = v - r // 4  # Its corners reach as far up as down.
        slanted = (np.abs(u) * 887 - v * 512) // 1024  # cos and sin of 30 degrees
        distance = np.maximum(v, slanted) - r * 9 // 16
    else:
        u, v = np.abs(u), np.abs(v)
        distance = np.maximum(np.maximum(u, v) - r, np.minimum(u, v) - r * 5 // 16)
    return distance


def draw_shapes(indices: npt.NDArray[np.int64], seed: int = _SEED) -> npt.NDArray[np.uint8]:
    """The images of these numbers, uint8 [N, 32, 32, 3] in RGB; that of i is of class i % 4.

    Position, size, rotation (up to 14 degrees), colours and noise are drawn for each.
    """
    images = np.empty((len(indices), _SIDE, _SIDE, 3), np.uint8)
    for label, shape in enumerate(SHAPE_NAMES):
        (places,) = np.nonzero(indices % len(SHAPE_NAMES) == label)
        for start in range(0, len(places), _IMAGES_AT_ONCE):
            some = places[start : start + _IMAGES_AT_ONCE]
            images[some] = _draw_some(shape, indices[some], seed)
    return images


def _draw_some(name: str, indices: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint8]:
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
    middle = _SIDE * _UNIT // 2 - _UNIT // 2  # Of the first pixel's and the last one's.
    x = pixels % _SIDE * _UNIT - middle - across
    y = pixels // _SIDE * _UNIT - middle - down
    # The tangent of half the angle gives sine and cosine without a table.
    half = uniform(3, -8, 8)
    cosine, sine, scale = 64 * 64 - half * half, 2 * 64 * half, 64 * 64 + half * half
    u, v = (x * cosine + y * sine) // scale, (y * cosine - x * sine) // scale
    shown = np.clip(_EDGE // 2 - _distance(name, u, v, radius), 0, _EDGE)  # [N, pixels]
    noise = _hash(keys[:, None] * np.uint64(_PIXELS) + pixels.astype(np.uint64))
    channels = []
    for channel in range(3):
        ground, shape = uniform(4 + channel, 0, 64), uniform(7 + channel, 160, 255)
        grain = ((noise >> np.uint64(16 * channel)) & np.uint64(31)).astype(np.int32) - 15
        channels.append(np.clip(ground + (shape - ground) * shown // _EDGE + grain, 0, 255))
    drawn = np.stack(channels, axis=-1).astype(np.uint8)
    return drawn.reshape(-1, _SIDE, _SIDE, 3)


def shape_of(number: int) -> str:
    """The name of an image's class."""
    return SHAPE_NAMES[number % len(SHAPE_NAMES)]


def shape_examples(numbers: Sequence[int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The images, uint8 [N, 32, 32, 3], and labels, int64 [N], of numbers as `TRAIN_SHAPES` has."""
    indices = np.array(numbers)
    return draw_shapes(indices), indices % len(SHAPE_NAMES)
