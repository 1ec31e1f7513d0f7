"""Opens the images that `--data` names, whatever they are kept in."""

from typing import NamedTuple

import numpy as np
from absl import logging

from data import files
from data.errors import DataError
from data.image_arrays import as_images, as_labels, count_classes, warn_out_of_range
from data.image_file import read_images
from data.image_folder import find_layout, list_images
from data.npz import read_npz
from data.ramp import RAMP_CLASSES, open_ramp
from data.source import ArraySource, Source, Subset
from data.split import split_rows

RAMP = "ramp"

# 1.4 million images of uint8, or a quarter of that of float32.
MAX_NPZ_BYTES = 4 * 2**30


class ImageData(NamedTuple):
    """Images to train on and, where there are any, to test on."""

    train: Source
    test: Source | None
    class_names: tuple[str, ...]  # In the order of the labels; () when unknown.
    num_classes: int


def open_image_data(
    spec: str, *, ramp_path: str, validation_fraction: float, seed: int
) -> ImageData:
    """Reads images of 32 x 32 pixels and their labels into memory.

    Args:
      spec: "ramp", an .npz file with X [N, 32, 32, 3] (uint8 or float) and Y [N], or a folder with
        one subfolder of PNG or JPEG images per class, or with such folders in train/ and test/.
      ramp_path: where the ramp is kept.
      validation_fraction: of each class, held out as test images, in [0, 1); 0 for none. Where
        there is a test/ folder it is not used.
      seed: the run's seed, 0 or more: tells which images are held out.

    Raises:
      DataError: the data is missing or cannot be used.
    """
    if spec == RAMP:
        return _hold_out(open_ramp(ramp_path), validation_fraction, seed, (), RAMP_CLASSES)
    if files.is_folder(spec):
        return _open_folder(spec, validation_fraction, seed)
    if not files.exists(spec):
        raise DataError(f'--data={spec}: expected "ramp", an .npz file or a folder; found nothing')
    if not spec.endswith(".npz"):
        raise DataError(f'--data={spec}: expected "ramp", an .npz file or a folder')
    images = _open_npz(spec)
    num_classes = count_classes(images.labels, f"{spec}: Y")
    return _hold_out(images, validation_fraction, seed, (), num_classes)


def _open_npz(path: str) -> ArraySource:
    arrays = read_npz(path, MAX_NPZ_BYTES, required=("X", "Y"))
    images = as_images(arrays["X"], f"{path}: X")
    labels = as_labels(arrays["Y"], f"{path}: Y")
    if len(images) != len(labels):
        raise DataError(f"{path}: X holds {len(images)} images, but Y {len(labels)} labels")
    warn_out_of_range(images, f"{path}: X")
    return ArraySource(images, labels)


def _open_folder(folder: str, validation_fraction: float, seed: int) -> ImageData:
    layout = find_layout(folder)
    train_files = list_images(layout.train)
    test_files = list_images(layout.test) if layout.test else []
    class_names = layout.class_names
    if len(class_names) < 2:
        raise DataError(
            f"{layout.train}: expected two classes or more, found {class_names[0]} only"
        )
    train = _read_source(train_files)
    if not test_files:
        return _hold_out(train, validation_fraction, seed, class_names, len(class_names))
    if validation_fraction:
        logging.info("--validation_fraction is not used: %s is there to test on", layout.test)
    return ImageData(train, _read_source(test_files), class_names, len(class_names))


def _read_source(labelled_files: list[tuple[str, int]]) -> ArraySource:
    paths, labels = zip(*labelled_files, strict=True)
    return ArraySource(read_images(paths), np.array(labels, np.int64))


def _hold_out(
    images: ArraySource, fraction: float, seed: int, class_names: tuple[str, ...], num_classes: int
) -> ImageData:
    if not fraction:
        return ImageData(images, None, class_names, num_classes)
    train, test = split_rows(images.labels, fraction, seed)
    return ImageData(Subset(images, train), Subset(images, test), class_names, num_classes)
