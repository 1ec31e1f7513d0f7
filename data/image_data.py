"""Opens the images that `--data` names, whatever they are kept in."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

import file_io
from data import DEFAULT_MEMORY_MB, RAMP, SHAPES, SKIP, STOP, files, named
from data.arrays import NpyStore, example_keys, read_npy, read_npz
from data.batches import split_rows, stopped_by
from data.files import UINT8_SCALE, Array, HeldStore, Indices, LabelledSource, Source, Store, Subset
from data.images import (
    IMAGE_SHAPE,
    ImageStore,
    as_images,
    as_labels,
    can_be_fitted,
    choose,
    count_classes,
    find_parts,
    fit_images,
    is_square,
    list_images,
)
from data.named import warn_out_of_range
from errors import BadRowsError, DataError

# 1.4 million images of uint8, or a quarter of that of float32.
MAX_NPZ_BYTES = 4 * 2**30
_MAX_LABEL_BYTES = 2**30
_NPY, _LABELS = ".npy", ".labels.npy"

_EXPECTED = (
    f'expected "{SHAPES}", "{RAMP}", {", ".join(named.NAMED)}, an .npz file, an .npy file (with '
    f"the labels beside it, x{_NPY} and x{_LABELS}) or a folder"
)


class ImageData(NamedTuple):
    """Images to train on and, where there are any, to test on; class names are () when unknown."""

    train: Source
    test: Source | None
    class_names: tuple[str, ...]
    num_classes: int
    write: Callable[[], None] | None = None  # Puts the ramp's images where they are kept.

    def identity(self) -> dict[str, Any]:
        """Tells the images from others."""
        test = {} if self.test is None else {"test_data": self.test.digest()}
        return {
            "data": self.train.digest(),
            **test,
            "images": len(self.train),
            "classes": list(self.class_names) or self.num_classes,
        }


class ReadOptions(NamedTuple):
    """How images are read; see the flags of `training.config.DataConfig`."""

    classes: tuple[str, ...] = ()  # Those to take, in the order of their labels; () takes all.
    memory_mb: int = DEFAULT_MEMORY_MB  # For training and test images together.
    on_bad: str = STOP  # Or SKIP, to refuse images only where they are asked for.
    # Of each, as the model takes it. Files, and uint8 of an .npz, are made to fit [S, S, 3 or 1].
    image_shape: tuple[int, ...] = IMAGE_SHAPE
    scale: np.float32 = UINT8_SCALE  # What uint8 is multiplied by.
    ignore_exif: bool = False


def open_image_data(
    spec: str, *, ramp_path: str, validation_fraction: float, seed: int, options: ReadOptions
) -> ImageData:
    """Opens images and their labels; DataError where they are missing or cannot be used.

    `spec` is "shapes"; "ramp", which is kept at `ramp_path`; a name of `data.named.NAMED`; an .npz
    with X [N, 32, 32, 3] (uint8 or float) and Y [N], see `example_keys`; an .npy with such an X,
    and Y beside it (x.npy, x.labels.npy); or a folder with one subfolder of images per class,
    perhaps in train/ and test/. Without test images, `validation_fraction` of each class, in
    [0, 1), is held out for them; the run's seed tells which.
    """
    data = _open(spec, ramp_path, options)
    if not validation_fraction:
        return data
    if data.test is not None:
        is_folder = file_io.is_folder(spec) and spec not in (SHAPES, *named.NAMED)
        part = os.path.join(spec, "test") if is_folder else f"the test split of {spec}"
        logging.info("--validation_fraction is not used: %s is there to test on", part)
        return data
    train, test = split_rows(data.train.labels, validation_fraction, seed)
    return data._replace(train=Subset(data.train, train), test=Subset(data.train, test))


def _open(spec: str, ramp_path: str, options: ReadOptions) -> ImageData:
    if spec == RAMP:
        named.check_ramp(ramp_path)
        images = as_images(named.ramp_images(), f"--data={RAMP}", options.image_shape)
        ramp = _image_data([(images, named.RAMP_LABELS)], named.RAMP_CLASSES, options)
        logging.info(
            "the ramp's ten images say nothing of their classes: no more than the classes' shares, "
            "0.3 at best, can be learnt from them; --data=%s can be learnt",
            SHAPES,
        )
        return ramp._replace(write=functools.partial(named.write_ramp, ramp_path))
    if spec == SHAPES:
        parts = [named.shape_examples(named.TRAIN_SHAPES), named.shape_examples(named.TEST_SHAPES)]
        return _open_arrays(spec, parts, named.SHAPE_NAMES, options)
    if spec in named.NAMED:
        class_names = named.NAMED[spec].class_names
        return _open_arrays(spec, named.load_named(spec), class_names, options)
    if file_io.is_folder(spec):
        return _open_folder(spec, options)
    if not files.exists(spec):
        raise DataError(f"--data={spec}: {_EXPECTED}; found nothing")
    if spec.endswith(".npz"):
        return _open_npz(spec, options)
    if spec.endswith(_NPY):
        return _open_npy(spec, options)
    raise DataError(f"--data={spec}: {_EXPECTED}")


def _image_data(
    splits: Sequence[tuple[Array | Store, Indices]],
    num_classes: int,
    options: ReadOptions,
    class_names: tuple[str, ...] = (),
) -> ImageData:
    """Images with their labels, to train on and perhaps to test on, of the options' classes."""
    choice = choose(options.classes, class_names or tuple(map(str, range(num_classes))))
    sources: list[Source] = []
    for images, labels in splits:
        source = LabelledSource(images, labels, options.scale)
        sources.append(_pick(source, choice, num_classes) if options.classes else source)
    train, *rest = sources
    return ImageData(train, rest[0] if rest else None, options.classes or class_names, len(choice))


def _pick(source: LabelledSource, choice: Sequence[int], num_classes: int) -> Subset:
    """The examples of the chosen labels, in the order of the source; choice[i] becomes i."""
    renumbered = np.full(num_classes, -1, np.int64)
    renumbered[list(choice)] = np.arange(len(choice))
    labels = renumbered[source.labels]
    return Subset(dataclasses.replace(source, labels=labels), np.flatnonzero(labels >= 0))


def _open_arrays(
    spec: str,
    splits: Sequence[tuple[Array, Indices]],
    class_names: tuple[str, ...],
    options: ReadOptions,
) -> ImageData:
    """Images in memory, uint8 [N, H, W] or [N, H, W, 3], which are made to fit."""
    shape = options.image_shape
    if splits[0][0].shape[1:] != shape:
        _check_square(spec, shape)
        splits = [(fit_images(images, shape[0], shape[2]), labels) for images, labels in splits]
    return _image_data(splits, len(class_names), options, class_names)


def _check_square(spec: str, image_shape: tuple[int, ...]) -> None:
    """Raises DataError unless images can be made to fit this shape: [S, S, 3] or [S, S, 1]."""
    if not is_square(image_shape):
        raise DataError(
            f"--data={spec}: its images can be made [S, S, 3] or [S, S, 1], and the model takes "
            f"{list(image_shape)}; give an .npz with such an X"
        )


def _open_npz(path: str, options: ReadOptions) -> ImageData:
    """Images, which are made to fit if they are uint8, and labels; perhaps some to test on, too."""
    arrays = read_npz(path, MAX_NPZ_BYTES, example_keys)
    splits, shape, names = [], options.image_shape, [*arrays]
    if names != ["X", "Y"]:
        logging.info("%s: read as images, labels, then those to test on: %s", path, names)
    for name, label_name in zip(names[::2], names[1::2], strict=True):
        images, labels = arrays[name], as_labels(arrays[label_name], f"{path}: {label_name}")
        if images.shape[1:] != shape and can_be_fitted(images) and is_square(shape):
            logging.info("%s: %s %s is resized to %s", path, name, [*images.shape], [*shape])
            images = fit_images(images, shape[0], shape[2])
        images = as_images(images, f"{path}: {name}", shape)
        if len(images) != len(labels):
            found = f"{len(images)} images, but {label_name} {len(labels)} labels"
            raise DataError(f"{path}: {name} holds {found}")
        warn_out_of_range(images, f"{path}: {name}")
        splits.append((images, labels))
    num_classes = count_classes(splits[0][1], f"{path}: {names[1]}")
    if splits[-1][1].max() >= num_classes:
        raise DataError(f"{path}: {names[-1]} has classes that {names[1]} has not")
    return _image_data(splits, num_classes, options)


def _open_npy(path: str, options: ReadOptions) -> ImageData:
    """Images in x.npy, and labels in x.labels.npy."""
    images = NpyStore(path, options.image_shape)
    labels_path = path.removesuffix(_NPY) + _LABELS
    if not files.exists(labels_path):
        raise DataError(
            f"--data={path}: expected the labels, whole numbers [N], beside it in {labels_path}; "
            "found no such file"
        )
    labels = as_labels(read_npy(labels_path, _MAX_LABEL_BYTES), labels_path)
    if len(labels) != images.shape[0]:
        raise DataError(
            f"{path}: holds {images.shape[0]} images, but {labels_path} {len(labels)} labels"
        )
    num_classes = count_classes(labels, labels_path)
    (store,) = _read_if_small([images], options)
    _check_readable(store, labels, tuple(map(str, range(num_classes))), options)
    if isinstance(store, HeldStore):
        warn_out_of_range(store.values, path)
    return _image_data([(store, labels)], num_classes, options)


def _open_folder(folder: str, options: ReadOptions) -> ImageData:
    _check_square(folder, options.image_shape)
    folders, names = find_parts(folder)
    if len(names) == 1:
        raise DataError(f"{folders[0]}: expected two classes or more, found {names[0]} only")
    choice = choose(options.classes, names)
    label_of = {label: place for place, label in enumerate(choice)}
    stores, labels = [], []
    for part in folders:
        chosen = [image for image in list_images(part) if image[1] in label_of]
        paths = [path for path, _ in chosen]
        stores.append(ImageStore(paths, folder, options.image_shape, options.ignore_exif))
        labels.append(np.array([label_of[label] for _, label in chosen], np.int64))
    splits = [*zip(_read_if_small(stores, options), labels, strict=True)]
    taken = options.classes or names
    for split in splits:
        _check_readable(*split, taken, options)
    return _image_data(splits, len(taken), options._replace(classes=()), taken)  # Chosen already.


def _read_if_small(stores: Sequence[Store], options: ReadOptions) -> Sequence[Store]:
    """The stores, in memory as far as `options.memory_mb` goes; a part of an .npy never is."""
    size = sum(math.prod(s.shape) * s.dtype.itemsize for s in stores)
    share = options.memory_mb * 10**6 / max(1, size)
    if share < 1:
        held = [int(share * s.shape[0]) if isinstance(s, ImageStore) else 0 for s in stores]
        pairs = zip(stores, held, strict=True)
        return [HeldStore(s, most) if most else s for s, most in pairs]
    whole = [HeldStore(s, s.shape[0]) for s in stores]
    try:
        for store in whole:
            store.fill(keep_bad=options.on_bad == SKIP)
    except BadRowsError as bad:
        raise stopped_by(bad) from bad
    return whole


def _check_readable(
    store: Store, labels: Indices, names: Sequence[str], options: ReadOptions
) -> None:
    """DataError for a class of which no image can be read, where bad ones are skipped."""
    for label in np.unique(labels) if options.on_bad == SKIP else ():
        for index in np.flatnonzero(labels == label):
            try:
                store.take(index[np.newaxis])
                break
            except BadRowsError as bad:
                error = bad
        else:
            raise DataError(f"no image of the class {names[label]} can be read: {error}") from error
