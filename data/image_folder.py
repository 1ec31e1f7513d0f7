"""Folders of images: one subfolder per class, whole or split into train/ and test/.

Each file is read and decoded when it is asked for.
"""

from collections.abc import Sequence

import numpy as np

from data import files
from data.images import IMAGE_SHAPE, MAX_FILE_BYTES, decode_image, decoding_workers
from data.source import Array, Indices
from errors import BadRowsError, DataError, RefusedError

_SHOWN = 20  # class names in an error
_TRAIN, _TEST = "train", "test"
# What Windows leaves in folders that hold images; hidden files are left out too.
_LEFT_OUT = frozenset({"thumbs.db", "desktop.ini"})


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
    """The path of each file and its label, an index into `class_names`; by class, then by name.

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


def find_parts(folder: str) -> tuple[list[str], tuple[str, ...]]:
    """The folder to train on, then the one to test on where there is one; and the classes, sorted.

    Raises:
      DataError: test/ without train/, other folders beside them, or different classes in the two.
    """
    names = class_names(folder)
    train, test = (files.join(folder, part) for part in (_TRAIN, _TEST))
    beside = {*names} - {_TRAIN, _TEST}
    # A class may be named train: it has no subfolders, and other classes beside it.
    if not names or (beside and not (_TRAIN in names and class_names(train))):
        return [folder], names
    if beside or _TRAIN not in names:
        raise DataError(
            f"{folder}: expected train/ with or without test/, found {'/, '.join(names)}/"
        )
    classes = class_names(train)
    if _TEST not in names:
        return [train], classes
    if only_in_one := sorted({*classes} ^ {*class_names(test)}):
        raise DataError(
            f"{folder}: train/ and test/ must hold the same classes; only in one of them: "
            f"{', '.join(only_in_one)}"
        )
    return [train, test], classes


def choose(wanted: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """The labels of the wanted classes among the known ones; () wants all.

    `known` has all names, or the numbers of classes without names, in the order of the labels. The
    place of a class in the result is its new label.

    Raises:
      DataError: an unknown or a repeated class, or fewer than two.
    """
    if not wanted:
        return tuple(range(len(known)))
    wrong = [f"there is no class {name!r}" for name in wanted if name not in known]
    wrong += [f"names {name!r} twice" for name in wanted if wanted.count(name) > 1]
    if len(wanted) < 2:
        wrong.append("expected two classes or more")
    if wrong:
        shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        raise DataError(f"--classes={','.join(wanted)}: {wrong[0]}; the classes are {shown}")
    return tuple(known.index(name) for name in wanted)


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

        Their names in the folder are part of the digest, it itself is not. The images are made
        [S, S, C], C 3, or 1 for grey; for `ignore_exif` see `decode_image`.
        """
        self.paths = paths
        self.shape = (len(paths), *image_shape)
        self.dtype = np.dtype(np.uint8)
        self.workers = decoding_workers(paths)
        self._folder, self._ignore_exif = folder, ignore_exif

    def take(self, indices: Indices) -> Array:
        """See `Store.take`; RefusedError where a file is refused, or its folder is away."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        errors: dict[int, DataError] = {}
        for position, index in enumerate(indices.tolist()):
            try:
                images[position] = files.retried(self._image, self.paths[index])
            except RefusedError:
                raise
            except DataError as error:
                errors[position] = error
        if errors:
            raise BadRowsError(errors)
        return images

    def _image(self, path: str) -> Array:
        _, _, size, channels = self.shape
        content = files.read_bytes(path, MAX_FILE_BYTES)
        return decode_image(content, path, size, channels, ignore_exif=self._ignore_exif)

    def digest(self) -> str:
        """See `Store.digest`."""
        names = [path.removeprefix(self._folder).lstrip("/") for path in self.paths]
        return files.digest_of_files(self.paths, names)
