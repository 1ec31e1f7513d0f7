"""Images in a folder of class folders, whole or split into train/ and test/."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.class_choice import Choice, choose, chosen_rows
from data.errors import DataError
from data.image_file import IMAGE_SHAPE
from data.image_files import ImageFiles
from data.image_folder import find_layout, list_images
from data.source import Indices


class LabelledFiles(NamedTuple):
    """Image files, not yet read, and their labels, int64 [N]."""

    images: ImageFiles
    labels: Indices


class LabelledFolder(NamedTuple):
    """What a folder holds; a label is an index into `class_names`."""

    train: LabelledFiles
    test: LabelledFiles | None
    class_names: tuple[str, ...]


def open_labelled_folder(
    folder: str, classes: Sequence[str], image_shape: tuple[int, ...] = IMAGE_SHAPE
) -> LabelledFolder:
    """Lists the images of a folder by class and then by name.

    Args:
      folder: with one subfolder per class, or with such folders in train/ and test/.
      classes: the ones to take, in the order of their labels; () takes all, sorted.
      image_shape: of each image, [S, S, C].

    Raises:
      DataError: no such layout, fewer than two classes, a class without a file, or a class that is
        not there.
    """
    layout = find_layout(folder)
    known = layout.class_names
    if len(known) == 1:
        raise DataError(f"{layout.train}: expected two classes or more, found {known[0]} only")
    choice = choose(classes, known) if classes else Choice(tuple(range(len(known))), known)
    train = _labelled_files(layout.train, folder, choice, image_shape)
    test = _labelled_files(layout.test, folder, choice, image_shape) if layout.test else None
    return LabelledFolder(train, test, choice.names)


def _labelled_files(
    part: str, folder: str, choice: Choice, image_shape: tuple[int, ...]
) -> LabelledFiles:
    paths, labels = zip(*list_images(part), strict=True)
    members, new_labels = chosen_rows(np.array(labels, np.int64), choice)
    chosen = [paths[member] for member in members.tolist()]
    return LabelledFiles(ImageFiles(chosen, folder, image_shape), new_labels[members])
