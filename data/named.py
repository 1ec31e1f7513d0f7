"""Data sets by their names: those of `keras.datasets`, the digits of MNIST, the ramp."""

import contextlib
import importlib
import io
import os
import re
import sys
from typing import NamedTuple

import numpy as np

from data import files
from data.arrays import read_idx, read_npz
from data.images import as_images
from data.shapes import ramp_images, ramp_labels
from data.source import Array, LabelledSource, Source
from errors import DataError

NUM_CLASSES = 10  # Of each of these.
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


# The ramp in its file.

RAMP_FILE = "data10_4.npz"
RAMP_CLASSES = 4
_MAX_RAMP_BYTES = 1_000_000


def check_ramp(path: str) -> None:
    """Raises DataError where the file that the ramp is kept in is there, and is not the ramp."""
    if not files.exists(path):
        return
    found = read_npz(path, _MAX_RAMP_BYTES, lambda _: ("X", "Y"))
    same_images = np.array_equal(as_images(found["X"], f"{path}: X"), ramp_images())
    if not same_images or not np.array_equal(found["Y"], ramp_labels()):
        raise DataError(
            f"{path}: holds other values than the ramp; remove it and it is made anew, "
            f"or train on it with --data={path}"
        )


def write_ramp(path: str) -> None:
    """Keeps the ramp in an .npz file (keys X, Y), where that is absent; DataError if it cannot."""
    if not files.exists(path):
        content = io.BytesIO()
        np.savez(content, X=ramp_images(), Y=ramp_labels())
        files.write_atomically(path, content.getvalue())


# Handwritten digits: the four IDX files of MNIST, or of a data set in its form.

IMAGE_SHAPE = (28, 28, 1)  # Height and width in pixels, and one channel: 0 is paper, 255 ink.
_IMAGES = re.compile(r"(.*)images[.-]idx3-ubyte(\.gz)?")
_MAX_IDX_BYTES = 2**30  # 1.3 million images


class Digits(NamedTuple):
    """Images of digits; a row is x float32 [784] in [0, 1] and y float32 [10], one-hot."""

    train: Source
    test: Source


def open_mnist(folder: str) -> Digits:
    """Reads the training and the test digits of a folder into memory, as uint8.

    Its files are train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k, with or
    without .gz, or with a dot before `idx`. Raises DataError where one is missing or no such file.
    """
    return Digits(_open_part(folder, "train"), _open_part(folder, "t10k"))


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
            if files.exists(path) and not files.is_folder(path):
                return path
    return None


def labels_beside(images_path: str) -> str | None:
    """Beside `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`; None where there is none."""
    folder, name = os.path.split(images_path)
    found = _IMAGES.fullmatch(name)
    if _IMAGES.fullmatch(os.path.basename(folder)):  # Each file is in a folder of its name.
        folder = os.path.dirname(folder)
    return find_file(folder, f"{found[1]}labels", 1) if found else None
