"""Handwritten digits: the four IDX files of MNIST, or of a data set in its form."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data import files
from data.errors import DataError
from data.idx import read_idx
from data.source import Array, ArraySource, Source

IMAGE_SHAPE = (28, 28, 1)  # Height and width in pixels, and one channel: 0 is paper, 255 ink.
NUM_CLASSES = 10
CLASS_NAMES = tuple(str(digit) for digit in range(NUM_CLASSES))

_SUFFIXES = ("", ".gz")
_IMAGES = re.compile(r"(.*)images[.-]idx3-ubyte(\.gz)?")
_MAX_BYTES = 2**30  # 1.3 million images


class Digits(NamedTuple):
    """Images of digits; a row is x float32 [784] in [0, 1] and y float32 [10], one-hot."""

    train: Source
    test: Source


def open_mnist(folder: str) -> Digits:
    """Reads the training and the test digits of a folder into memory, as uint8.

    Args:
      folder: holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, with or without .gz, or with a dot before `idx`.

    Raises:
      DataError: a file is missing, or does not hold what its name says.
    """
    return Digits(_open_part(folder, "train"), _open_part(folder, "t10k"))


def _open_part(folder: str, part: str) -> ArraySource:
    """The images, uint8 [N, 784], and the labels, one-hot float32 [N, 10], of one of the splits."""
    images_path, labels_path = (
        _find(folder, f"{part}-images", 3),
        _find(folder, f"{part}-labels", 1),
    )
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
    return ArraySource(images.reshape(len(images), -1), one_hot, CLASS_NAMES)


def _find(folder: str, stem: str, rank: int) -> str:
    """The path of one of the four files, under the first of its usual names that is there."""
    path = next(_present(folder, stem, rank), None)
    if path is None:
        name = f"{stem}-idx{rank}-ubyte"
        raise DataError(
            f"--data_dir={folder}: holds no {name}; put that file of MNIST there, as it is or "
            f"gzipped ({name}.gz)"
        )
    return path


def _present(folder: str, stem: str, rank: int) -> Iterator[str]:
    """The paths of a file that are there, of all its usual names."""
    for name in (f"{stem}{dot}idx{rank}-ubyte{end}" for end in _SUFFIXES for dot in "-."):
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
    values = read_idx(path, _MAX_BYTES)
    if values.dtype != np.uint8 or values.shape[1:] != row_shape:
        expected = ", ".join(["N", *map(str, row_shape)])
        raise DataError(
            f"{path}: expected uint8 [{expected}], found {values.dtype} {list(values.shape)}"
        )
    if not len(values):
        raise DataError(f"{path}: holds no row")
    return values
