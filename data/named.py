"""Data sets by their names: those of `keras.datasets`, the digits of MNIST, the ramp."""

import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data import files
from data.arrays import read_idx, read_npz
from data.images import as_images, as_labels
from data.shapes import ramp_images, ramp_labels
from data.source import Array, LabelledSource, Source
from errors import DataError

_DIGITS = tuple("0123456789")


class NamedDataset(NamedTuple):
    """What is known of a data set before it is there."""

    class_names: tuple[str, ...]  # In the order of the labels.
    image_shape: tuple[int, ...]
    files: tuple[str, ...]  # As Keras keeps them, in the folder of its cache.
    address: str  # Where the files come from; an archive is kept under another name.


NAMED = {
    "mnist": NamedDataset(
        _DIGITS,
        (28, 28),
        ("mnist.npz",),
        "storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    ),
    "fashion_mnist": NamedDataset(
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        (28, 28),
        tuple(
            f"fashion-mnist/{part}-{what}-ubyte.gz"
            for part in ("train", "t10k")
            for what in ("images-idx3", "labels-idx1")
        ),
        "storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    "cifar10": NamedDataset(
        (
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        (32, 32, 3),
        ("cifar-10-batches-py-target_archive",),
        "www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
}


_NOT_FETCHED = "URL fetch failure"  # As Keras begins to say so.


def load_named(name: str) -> list[tuple[Array, Array]]:
    """The training and the test images of a data set of `NAMED`, each with their labels.

    They are uint8 [N, H, W] or [N, H, W, 3], and int64 [N]. Keras downloads what is not in its
    cache, `$KERAS_HOME/datasets` or `~/.keras/datasets`, and checks it (of Fashion-MNIST only what
    is checked here: that it unpacks to images and labels).

    Raises:
      DataError: it cannot be downloaded, or what is in the cache is damaged or something else.
    """
    # Only now: importing Keras takes seconds and makes its folder.
    module = importlib.import_module(f"keras.datasets.{name}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads.
            splits = module.load_data()
        return [_checked(name, images, labels) for images, labels in splits]
    except DataError:
        raise
    except Exception as error:  # Keras raises bare `Exception` itself, and what unpacking raises.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"--data={name}: {reason.rstrip('.')}; {_advice(name, reason)}") from error


def _advice(name: str, reason: str = "") -> str:
    """What to put where, or to remove."""
    known = NAMED[name]
    home = os.environ.get("KERAS_HOME", "~/.keras")
    places = [f"{home}/datasets/{file}" for file in known.files]
    offline = f"without a network, put {known.address} there as {', '.join(places)}"
    held = [place for place in places if os.path.exists(os.path.expanduser(place))]
    if not held or reason.startswith(_NOT_FETCHED):
        return offline
    return f"remove {', '.join(held)} to have that downloaded anew, or, {offline}"


def _checked(name: str, images: Array, labels: Array) -> tuple[Array, Array]:
    expected = NAMED[name].image_shape
    if images.shape[1:] != expected or images.dtype != np.uint8 or len(images) != labels.size:
        raise DataError(
            f"--data={name}: expected images uint8 {['N', *expected]} and N labels, found "
            f"{images.dtype} {list(images.shape)} and {labels.size}; {_advice(name)}"
        )
    checked = as_labels(labels.reshape(-1), f"--data={name}")
    num_classes = len(NAMED[name].class_names)
    if not len(checked) or checked.max() >= num_classes:
        raise DataError(f"--data={name}: expected labels from 0 to {num_classes - 1}")
    return np.ascontiguousarray(images), checked


# The ramp in its file.

RAMP_FILE = "data10_4.npz"
RAMP_CLASSES = 4
_MAX_RAMP_BYTES = 1_000_000


def open_ramp(path: str) -> LabelledSource:
    """The ramp, which may be kept in an .npz file (keys X, Y); nothing is written.

    Raises:
      DataError: the file is there and cannot be read, or holds something else.
    """
    ramp = LabelledSource(ramp_images(), ramp_labels())
    if not files.exists(path):
        return ramp
    found = read_npz(path, _MAX_RAMP_BYTES, required=("X", "Y"))
    same_images = np.array_equal(as_images(found["X"], f"{path}: X"), ramp_images())
    if not same_images or not np.array_equal(as_labels(found["Y"], f"{path}: Y"), ramp.labels):
        raise DataError(
            f"{path}: holds other values than the ramp; remove it and it is made anew, "
            f"or train on it with --data={path}"
        )
    return ramp


def write_ramp(path: str) -> None:
    """Keeps the ramp in an .npz file, where that is absent; DataError where it cannot be."""
    if not files.exists(path):
        content = io.BytesIO()
        np.savez(content, X=ramp_images(), Y=ramp_labels())
        files.write_atomically(path, content.getvalue())


# Handwritten digits: the four IDX files of MNIST, or of a data set in its form.

IMAGE_SHAPE = (28, 28, 1)  # Height and width in pixels, and one channel: 0 is paper, 255 ink.
NUM_CLASSES = 10
CLASS_NAMES = tuple(str(digit) for digit in range(NUM_CLASSES))
_IMAGES = re.compile(r"(.*)images[.-]idx3-ubyte(\.gz)?")
_MAX_IDX_BYTES = 2**30  # 1.3 million images


class Digits(NamedTuple):
    """Images of digits; a row is x float32 [784] in [0, 1] and y float32 [10], one-hot."""

    train: Source
    test: Source


def open_mnist(folder: str) -> Digits:
    """Reads the training and the test digits of a folder into memory, as uint8.

    It holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, with or without .gz, or with a dot before `idx`.

    Raises:
      DataError: a file is missing, or does not hold what its name says.
    """
    return Digits(_open_part(folder, "train"), _open_part(folder, "t10k"))


def _open_part(folder: str, part: str) -> LabelledSource:
    """The images, uint8 [N, 784], and the labels, one-hot float32 [N, 10], of one of the splits."""
    images_path = find_file(folder, f"{part}-images", 3)
    labels_path = find_file(folder, f"{part}-labels", 1)
    images, labels = _read(images_path, (28, 28)), _read(labels_path, ())
    if len(images) != len(labels):
        raise DataError(
            f"{images_path}: holds {len(images)} images, but {labels_path} {len(labels)} labels"
        )
    if labels.max() >= NUM_CLASSES:
        row = int(np.argmax(labels >= NUM_CLASSES))
        raise DataError(
            f"{labels_path}: row {row} (the first such) is {labels[row]}; "
            f"expected labels from 0 to {NUM_CLASSES - 1}"
        )
    one_hot = np.eye(NUM_CLASSES, dtype=np.float32)[labels]
    return LabelledSource(images.reshape(len(images), -1), one_hot, CLASS_NAMES)


def find_file(folder: str, stem: str, rank: int) -> str:
    """The path of one of the four files, under the first of its usual names that is there."""
    for path in _present(folder, stem, rank):
        return path
    name = f"{stem}-idx{rank}-ubyte"
    raise DataError(
        f"--data_dir={folder}: holds no {name}; put that file of MNIST there, as it is or "
        f"gzipped ({name}.gz)"
    )


def _present(folder: str, stem: str, rank: int) -> Iterator[str]:
    """The paths of a file that are there, of all its usual names."""
    for name in (f"{stem}{dot}idx{rank}-ubyte{end}" for end in ("", ".gz") for dot in "-."):
        path = files.join(folder, name)
        if files.exists(path) and not files.is_folder(path):
            yield path


def labels_beside(images_path: str) -> str | None:
    """The file with the labels of a file of images that is named as those of MNIST are.

    Of `t10k-images-idx3-ubyte`, that is `t10k-labels-idx1-ubyte` beside it, each with or without
    .gz; None where there is none.
    """
    folder, name = os.path.split(images_path)
    found = _IMAGES.fullmatch(name)
    return next(_present(folder, f"{found[1]}labels", 1), None) if found else None


def _read(path: str, row_shape: tuple[int, ...]) -> Array:
    """The values of a file: uint8 [N, *row_shape], N above 0."""
    values = read_idx(path, _MAX_IDX_BYTES)
    if values.dtype != np.uint8 or values.shape[1:] != row_shape:
        expected = ", ".join(["N", *map(str, row_shape)])
        raise DataError(
            f"{path}: expected uint8 [{expected}], found {values.dtype} {list(values.shape)}"
        )
    if not len(values):
        raise DataError(f"{path}: holds no row")
    return values
