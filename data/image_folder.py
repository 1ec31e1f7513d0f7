"""Folders of images: one subfolder per class, whole or split into train/ and test/.

Each file is read and decoded when it is asked for. Some of the classes may be picked, in any order.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from data import files
from data.files import digest_of_files
from data.images import IMAGE_SHAPE, decoding_workers, read_image, to_grey
from data.source import Array, Indices, LabelledSource, Subset
from errors import BadRowsError, DataError, UnreachableError

_SHOWN = 20  # class names in an error


class Choice(NamedTuple):
    """The classes that were picked: the i-th of them has the label i."""

    numbers: tuple[int, ...]  # What their labels were.
    names: tuple[str, ...]


def choose(wanted: Sequence[str], known: Sequence[str]) -> Choice:
    """Finds classes among the known ones.

    Args:
      wanted: names of classes.
      known: all names, in the order of the labels; of classes without names, their numbers.

    Raises:
      DataError: an unknown or a repeated class, or fewer than two.
    """
    shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    given = f"--classes={','.join(wanted)}"
    for name in wanted:
        if name not in known:
            raise DataError(f"{given}: there is no class {name!r}; the classes are {shown}")
        if list(wanted).count(name) > 1:
            raise DataError(f"{given}: names {name!r} twice; the classes are {shown}")
    if len(wanted) < 2:
        raise DataError(f"{given}: expected two classes or more; the classes are {shown}")
    return Choice(tuple(known.index(name) for name in wanted), tuple(wanted))


def chosen_rows(labels: Indices, choice: Choice) -> tuple[Indices, Indices]:
    """Which rows are of the picked classes, and what the labels become.

    Args:
      labels: int64 [N].
      choice: from `choose`.

    Returns:
      The rows' numbers, int64 [M], ascending; and the new labels of all, int64 [N], where those of
      rows that were not picked are -1.
    """
    renumbered = np.full(max(int(labels.max()), *choice.numbers) + 1, -1, np.int64)
    renumbered[list(choice.numbers)] = np.arange(len(choice.numbers))
    new_labels = renumbered[labels]
    return np.flatnonzero(new_labels >= 0), new_labels


def pick(source: LabelledSource[Any], choice: Choice) -> Subset:
    """The examples of the picked classes, in the order of the source."""
    members, labels = chosen_rows(source.labels, choice)
    relabelled = dataclasses.replace(source, labels=labels, class_names=choice.names)
    return Subset(relabelled, members)


# Image files as a store: each is read and decoded when it is asked for.


@dataclass(frozen=True, eq=False)
class ImageStore:
    """PNG and JPEG files, decoded to images of one size.

    Attributes:
      paths: of N files.
      folder: what they all are in; their names in it are part of the digest, it itself is not.
      image_shape: [S, S, C] of each, C 3, or 1 for grey.
      ignore_exif: whether they stay as they are stored, see `decode_image`.
    """

    paths: Sequence[str]
    folder: str
    image_shape: tuple[int, ...] = IMAGE_SHAPE
    ignore_exif: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Store.shape`: [N, S, S, C]."""
        return len(self.paths), *self.image_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Store.dtype`: uint8."""
        return np.dtype(np.uint8)

    @property
    def workers(self) -> int:
        """See `Store.workers`."""
        return decoding_workers(self.paths)

    def take(self, indices: Indices) -> Array:
        """See `Store.take`; UnreachableError where the folder of an image stays away."""
        size, _, channels = self.image_shape
        read = partial(read_image, size=size, ignore_exif=self.ignore_exif)
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        errors: dict[int, DataError] = {}
        for position, index in enumerate(indices.tolist()):
            try:
                image = files.patiently(read, self.paths[index])
                images[position] = to_grey(image) if channels == 1 else image
            except UnreachableError:
                raise
            except DataError as error:
                errors[position] = error
        if errors:
            raise BadRowsError(errors)
        return images

    def digest(self) -> str:
        """See `Store.digest`."""
        names = [path.removeprefix(self.folder).lstrip("/") for path in self.paths]
        return digest_of_files(self.paths, names)


# Folders of images: one subfolder per class, whole or split into train/ and test/.

_TRAIN = "train"
_TEST = "test"
# What Windows leaves in folders that hold images; hidden files are left out too.
_LEFT_OUT = frozenset({"thumbs.db", "desktop.ini"})


class Layout(NamedTuple):
    """Where the images of a data set are."""

    train: str
    test: str | None
    class_names: tuple[str, ...]  # Sorted; a label is an index into it.


def class_names(folder: str) -> tuple[str, ...]:
    """The names of the subfolders, sorted; () where there are none. Hidden ones are left out.

    Raises:
      DataError: the folder cannot be listed.
    """
    return tuple(
        name for name in visible_names(folder) if files.is_folder(files.join(folder, name))
    )


def list_images(folder: str) -> list[tuple[str, int]]:
    """The files of all classes; what is in them is not looked at.

    Returns:
      (path, label) by class and then by name, a label being an index into `class_names`.

    Raises:
      DataError: no class subfolders, or a class without a file.
    """
    names = class_names(folder)
    if not names:
        found = visible_names(folder)
        raise DataError(
            f"{folder}: expected one subfolder of images per class, found "
            + (f"none (but {found[0]})" if found else "an empty folder")
        )
    images = []
    for label, name in enumerate(names):
        class_folder = files.join(folder, name)
        found = visible_names(class_folder)
        if not found:
            raise DataError(f"{class_folder}: the class {name} has no image")
        images += [(files.join(class_folder, file), label) for file in found]
    return images


def find_layout(folder: str) -> Layout:
    """Finds out whether a folder is split into train/ and test/.

    Raises:
      DataError: test/ without train/, other folders beside them, or different classes in the two.
    """
    names = class_names(folder)
    if not _is_split(folder, names):
        return Layout(folder, None, names)
    others = sorted({*names} - {_TRAIN, _TEST})
    if others or _TRAIN not in names:
        raise DataError(
            f"{folder}: expected train/ with or without test/, found {'/, '.join(names)}/"
        )
    train = files.join(folder, _TRAIN)
    if _TEST not in names:
        return Layout(train, None, class_names(train))
    test = files.join(folder, _TEST)
    _check_same_classes(folder, class_names(train), class_names(test))
    return Layout(train, test, class_names(train))


def _is_split(folder: str, names: tuple[str, ...]) -> bool:
    """Tells train/ of a split from a class named train, which has no subfolders and no test/."""
    if names and {*names} <= {_TRAIN, _TEST}:
        return True
    return _TRAIN in names and class_names(files.join(folder, _TRAIN)) != ()


def _check_same_classes(folder: str, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    differences = [
        f"only in {part}/: {', '.join(sorted(more))}"
        for part, more in ((_TRAIN, {*train} - {*test}), (_TEST, {*test} - {*train}))
        if more
    ]
    if differences:
        raise DataError(
            f"{folder}: train/ and test/ must hold the same classes; {'; '.join(differences)}"
        )


def visible_names(folder: str) -> list[str]:
    """The names in a folder, without hidden files and those that a desktop leaves behind.

    Raises:
      DataError: the folder cannot be listed.
    """
    return [
        name
        for name in files.list_folder(folder)
        if not name.startswith(".") and name.lower() not in _LEFT_OUT
    ]


class LabelledFiles(NamedTuple):
    """Image files, not yet read, and their labels, int64 [N]."""

    images: ImageStore
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
    return LabelledFiles(ImageStore(chosen, folder, image_shape), new_labels[members])
