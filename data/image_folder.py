"""Folders of images: one subfolder per class, whole or split into train/ and test/.

Each file is read and decoded when it is asked for. Some of the classes may be picked, in any order.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np

from data import files
from data.images import IMAGE_SHAPE, decoding_workers, read_image, to_grey
from data.source import Array, Indices, LabelledSource, Subset
from errors import BadRowsError, DataError, UnreachableError

_SHOWN = 20  # class names in an error
_TRAIN, _TEST = "train", "test"
# What Windows leaves in folders that hold images; hidden files are left out too.
_LEFT_OUT = frozenset({"thumbs.db", "desktop.ini"})


def choose(wanted: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """The labels of the wanted classes among the known ones; () wants all.

    `known` has all names, in the order of the labels; of classes without names, their numbers. The
    place of a class in the result is its new label.

    Raises:
      DataError: an unknown or a repeated class, or fewer than two.
    """
    if not wanted:
        return tuple(range(len(known)))
    shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    given = f"--classes={','.join(wanted)}"
    for name in wanted:
        if name not in known:
            raise DataError(f"{given}: there is no class {name!r}; the classes are {shown}")
        if list(wanted).count(name) > 1:
            raise DataError(f"{given}: names {name!r} twice; the classes are {shown}")
    if len(wanted) < 2:
        raise DataError(f"{given}: expected two classes or more; the classes are {shown}")
    return tuple(known.index(name) for name in wanted)


def chosen_rows(labels: Indices, choice: Sequence[int]) -> tuple[Indices, Indices]:
    """Which rows are of the chosen classes, and what the labels, int64 [N], become.

    Returns:
      The rows' numbers, int64 [M], ascending; and the new labels of all, int64 [N], where those of
      rows that were not chosen are -1.
    """
    renumbered = np.full(max(int(labels.max()), *choice) + 1, -1, np.int64)
    renumbered[list(choice)] = np.arange(len(choice))
    new_labels = renumbered[labels]
    return np.flatnonzero(new_labels >= 0), new_labels


def pick(source: LabelledSource, choice: Sequence[int], names: Sequence[str]) -> Subset:
    """The examples of the chosen classes, in the order of the source; `names` are theirs."""
    members, labels = chosen_rows(source.labels, choice)
    return Subset(dataclasses.replace(source, labels=labels, class_names=tuple(names)), members)


class ImageStore:
    """PNG and JPEG files as a store: each is read and decoded when it is asked for."""

    def __init__(
        self,
        paths: Sequence[str],
        folder: str,
        image_shape: tuple[int, ...] = IMAGE_SHAPE,
        ignore_exif: bool = False,
    ) -> None:
        """Takes N files, of which nothing is read yet.

        Args:
          paths: of the files.
          folder: what they all are in; their names in it are part of the digest, it itself is not.
          image_shape: [S, S, C] of each, C 3, or 1 for grey.
          ignore_exif: whether they stay as they are stored, see `decode_image`.
        """
        self.paths = paths
        self.shape = (len(paths), *image_shape)
        self.dtype = np.dtype(np.uint8)
        self.workers = decoding_workers(paths)
        self._folder = folder
        self._read = partial(read_image, size=image_shape[0], ignore_exif=ignore_exif)

    def take(self, indices: Indices) -> Array:
        """See `Store.take`; UnreachableError where the folder of an image stays away."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        errors: dict[int, DataError] = {}
        for position, index in enumerate(indices.tolist()):
            try:
                image = files.patiently(self._read, self.paths[index])
                images[position] = to_grey(image) if self.shape[-1] == 1 else image
            except UnreachableError:
                raise
            except DataError as error:
                errors[position] = error
        if errors:
            raise BadRowsError(errors)
        return images

    def digest(self) -> str:
        """See `Store.digest`."""
        names = [path.removeprefix(self._folder).lstrip("/") for path in self.paths]
        return files.digest_of_files(self.paths, names)


def visible_names(folder: str) -> list[str]:
    """The names in a folder, sorted, without hidden files and those that a desktop leaves."""
    return [
        name
        for name in files.list_folder(folder)
        if not name.startswith(".") and name.lower() not in _LEFT_OUT
    ]


def class_names(folder: str) -> tuple[str, ...]:
    """The names of the visible subfolders, sorted."""
    return tuple(
        name for name in visible_names(folder) if files.is_folder(files.join(folder, name))
    )


def list_images(folder: str) -> list[tuple[str, int]]:
    """The files of all classes, by class and then by name; what is in them is not looked at.

    Returns:
      (path, label), a label being an index into `class_names`.

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


def find_parts(folder: str) -> tuple[str, str | None, tuple[str, ...]]:
    """The folder to train on, the one to test on where there is one, and the classes, sorted.

    Raises:
      DataError: test/ without train/, other folders beside them, or different classes in the two.
    """
    names = class_names(folder)
    # A class named train has no subfolders and no test/ beside it.
    is_split = bool(names) and {*names} <= {_TRAIN, _TEST}
    if not is_split and not (_TRAIN in names and class_names(files.join(folder, _TRAIN))):
        return folder, None, names
    if {*names} - {_TRAIN, _TEST} or _TRAIN not in names:
        raise DataError(
            f"{folder}: expected train/ with or without test/, found {'/, '.join(names)}/"
        )
    train, test = (files.join(folder, part) for part in (_TRAIN, _TEST))
    classes = class_names(train)
    if _TEST not in names:
        return train, None, classes
    test_classes = class_names(test)
    differences = [
        f"only in {part}/: {', '.join(sorted(more))}"
        for part, more in (
            (_TRAIN, {*classes} - {*test_classes}),
            (_TEST, {*test_classes} - {*classes}),
        )
        if more
    ]
    if differences:
        raise DataError(
            f"{folder}: train/ and test/ must hold the same classes; {'; '.join(differences)}"
        )
    return train, test, classes


def open_labelled_folder(
    folder: str, classes: Sequence[str], image_shape: tuple[int, ...], *, ignore_exif: bool
) -> tuple[list[tuple[ImageStore, Indices]], tuple[str, ...]]:
    """Lists the images, each [S, S, C], of a folder by class and then by name.

    `classes` are taken in the order of their labels; () takes all, sorted.

    Returns:
      The images, not yet read, with their labels, int64 [N]: to train on and, where there are any,
      to test on; and the names of the classes.

    Raises:
      DataError: no such layout, fewer than two classes, a class without a file, or a class that is
        not there.
    """
    train, test, known = find_parts(folder)
    if len(known) == 1:
        raise DataError(f"{train}: expected two classes or more, found {known[0]} only")
    choice = choose(classes, known)
    parts = []
    for part in (train, test) if test else (train,):
        paths, labels = zip(*list_images(part), strict=True)
        members, new_labels = chosen_rows(np.array(labels, np.int64), choice)
        chosen = [paths[member] for member in members.tolist()]
        store = ImageStore(chosen, folder, image_shape, ignore_exif)
        parts.append((store, new_labels[members]))
    return parts, tuple(classes) or known
