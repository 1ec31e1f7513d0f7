"""Opens the images that `--data` names, whatever they are kept in."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from data import DEFAULT_MEMORY_MB, RAMP, SHAPES, SKIP, STOP, files, shapes
from data.arrays import read_npz
from data.batches import split_rows, stopped_by
from data.image_folder import choose, open_labelled_folder, pick
from data.images import (
    IMAGE_SHAPE,
    as_images,
    as_labels,
    check_image_shape,
    count_classes,
    fit_images,
    warn_out_of_range,
)
from data.named import NAMED, RAMP_CLASSES, load_named, open_ramp, write_ramp
from data.npy_store import LABELS_SUFFIX, SUFFIX, open_labelled_npy
from data.source import UINT8_SCALE, Array, HeldStore, LabelledSource, Source, Store, Subset, hold
from errors import BadRowsError, DataError

# 1.4 million images of uint8, or a quarter of that of float32.
MAX_NPZ_BYTES = 4 * 2**30

_EXPECTED = (
    f'expected "{SHAPES}", "{RAMP}", {", ".join(NAMED)}, an .npz file, an .npy file (with the '
    f"labels beside it, x{SUFFIX} and x{LABELS_SUFFIX}) or a folder"
)


class ImageData(NamedTuple):
    """Images to train on and, where there are any, to test on; class names are () when unknown.

    `write` puts images that are nowhere yet, those of the ramp, where they are kept.
    """

    train: Source
    test: Source | None
    class_names: tuple[str, ...]
    num_classes: int
    write: Callable[[], None] | None = None

    def identity(self) -> dict[str, Any]:
        """Tells the images from others; `test_data` only where there are test images."""
        test = {} if self.test is None else {"test_data": self.test.digest()}
        return {
            "data": self.train.digest(),
            **test,
            "images": len(self.train),
            "classes": list(self.class_names) or self.num_classes,
        }


class ReadOptions(NamedTuple):
    """How images are read.

    Attributes:
      classes: the ones to take, in the order of their labels, by name or, where they have none, by
        number; () takes all.
      memory_mb: images on disk that take no more, decoded, training and test ones together, are
        read into memory at once; more of them each time they are needed.
      on_bad: STOP refuses images that cannot be read when they are opened; SKIP leaves that to who
        asks for them.
      image_shape: of each, as the model takes it; [S, S, C] with C 3, or 1 for grey, where it is
        an image. Images in files are made to fit; arrays have to.
      scale: what uint8 is multiplied by.
      ignore_exif: images in files are not turned as their EXIF orientation says.
    """

    classes: tuple[str, ...] = ()
    memory_mb: int = DEFAULT_MEMORY_MB
    on_bad: str = STOP
    image_shape: tuple[int, ...] = IMAGE_SHAPE
    scale: np.float32 = UINT8_SCALE
    ignore_exif: bool = False


ALL_CLASSES = ReadOptions()


def open_image_data(
    spec: str,
    *,
    ramp_path: str,
    validation_fraction: float,
    seed: int,
    options: ReadOptions = ALL_CLASSES,
) -> ImageData:
    """Opens images, of 32 x 32 pixels unless the options say another size, and their labels.

    Args:
      spec: "shapes"; "ramp"; the name of a data set of `data.named`; an .npz file with X
        [N, 32, 32, 3] (uint8 or float) and Y [N]; an .npy file with such an X, with Y beside it
        (x.npy, x.labels.npy); or a folder with one subfolder of PNG or JPEG images per class, or
        with such folders in train/ and test/. Symbolic links are followed, out of the folder too.
      ramp_path: where the ramp is kept.
      validation_fraction: of each class, held out as test images, in [0, 1); 0 for none. Where
        there are test images it is not used.
      seed: the run's seed, 0 or more: tells which images are held out.
      options: how they are read.

    Raises:
      DataError: the data is missing or cannot be used.
    """
    data = _open(spec, ramp_path, options)
    if not validation_fraction:
        return data
    if data.test is not None:
        part = f"the test split of {spec}" if spec in (SHAPES, *NAMED) else files.join(spec, "test")
        logging.info("--validation_fraction is not used: %s is there to test on", part)
        return data
    train, test = split_rows(data.train.labels, validation_fraction, seed)
    return data._replace(train=Subset(data.train, train), test=Subset(data.train, test))


def _open(spec: str, ramp_path: str, options: ReadOptions) -> ImageData:
    if spec == RAMP:
        check_image_shape((1, *IMAGE_SHAPE), f"--data={RAMP}", options.image_shape)
        ramp = dataclasses.replace(open_ramp(ramp_path), scale=options.scale)
        write = functools.partial(write_ramp, ramp_path)
        logging.info(
            "the ramp's ten images say nothing of their classes: no more than the classes' shares, "
            "0.3 at best, can be learnt from them; --data=%s can be learnt",
            SHAPES,
        )
        return _picked([ramp], RAMP_CLASSES, options)._replace(write=write)
    if spec == SHAPES:
        parts = [shapes.examples(shapes.TRAIN), shapes.examples(shapes.TEST)]
        return _fitted_to(options, SHAPES, shapes.CLASS_NAMES, parts)
    if spec in NAMED:
        return _fitted_to(options, spec, NAMED[spec].class_names, load_named(spec))
    if files.is_folder(spec):
        return _open_folder(spec, options)
    if not files.exists(spec):
        raise DataError(f"--data={spec}: {_EXPECTED}; found nothing")
    if spec.endswith(".npz"):
        return _open_npz(spec, options)
    if spec.endswith(SUFFIX):
        return _open_npy(spec, options)
    raise DataError(f"--data={spec}: {_EXPECTED}")


def _picked(sources: Sequence[LabelledSource], num_classes: int, options: ReadOptions) -> ImageData:
    """The images of one source or two, of all classes or those of the options."""
    train, test = sources[0], sources[1] if len(sources) > 1 else None
    names = train.class_names
    if not options.classes:
        return ImageData(train, test, names, num_classes)
    choice = choose(options.classes, names or tuple(map(str, range(num_classes))))
    picked = [pick(source, choice, options.classes) for source in sources]
    return ImageData(picked[0], picked[1] if test else None, options.classes, len(choice))


def _fitted_to(
    options: ReadOptions,
    name: str,
    class_names: tuple[str, ...],
    parts: Sequence[tuple[Array, Array]],
) -> ImageData:
    """The training and the test images of a data set, resized to what the options ask for."""
    sources = []
    for images, labels in parts:
        if images.shape[1:] != options.image_shape:
            _check_square(name, options.image_shape)
        fitted = fit_images(images, options.image_shape)
        sources.append(LabelledSource(fitted, labels, class_names, options.scale))
    return _picked(sources, len(class_names), options)


def _check_square(spec: str, image_shape: tuple[int, ...]) -> None:
    """Raises DataError unless images can be made to fit this shape: [S, S, 3] or [S, S, 1]."""
    if len(image_shape) != 3 or image_shape[0] != image_shape[1] or image_shape[2] not in (1, 3):
        raise DataError(
            f"--data={spec}: its images can be made [S, S, 3] or [S, S, 1], and the model takes "
            f"{list(image_shape)}; give an .npz with such an X"
        )


def _open_npz(path: str, options: ReadOptions) -> ImageData:
    arrays = read_npz(path, MAX_NPZ_BYTES, required=("X", "Y"))
    images = as_images(arrays["X"], f"{path}: X", options.image_shape)
    labels = as_labels(arrays["Y"], f"{path}: Y")
    if len(images) != len(labels):
        raise DataError(f"{path}: X holds {len(images)} images, but Y {len(labels)} labels")
    warn_out_of_range(images, f"{path}: X")
    num_classes = count_classes(labels, f"{path}: Y")
    return _picked([LabelledSource(images, labels, scale=options.scale)], num_classes, options)


def _open_npy(path: str, options: ReadOptions) -> ImageData:
    images, labels = open_labelled_npy(path, options.image_shape)
    num_classes = count_classes(labels, path.removesuffix(SUFFIX) + LABELS_SUFFIX)
    (store,) = _read_if_small([images], options)
    if isinstance(store, HeldStore):
        warn_out_of_range(store.values, path)
    return _picked([LabelledSource(store, labels, scale=options.scale)], num_classes, options)


def _open_folder(folder: str, options: ReadOptions) -> ImageData:
    _check_square(folder, options.image_shape)
    parts, names = open_labelled_folder(
        folder, options.classes, options.image_shape, ignore_exif=options.ignore_exif
    )
    stores = _read_if_small([store for store, _ in parts], options)
    sources = [
        LabelledSource(store, labels, names, options.scale)
        for store, (_, labels) in zip(stores, parts, strict=True)
    ]
    return _picked(sources, len(names), options._replace(classes=()))  # Picked already.


def _read_if_small(stores: Sequence[Store], options: ReadOptions) -> Sequence[Store]:
    """The stores in memory, where they all fit `options.memory_mb`; else as they are."""
    if sum(math.prod(s.shape) * s.dtype.itemsize for s in stores) > options.memory_mb * 10**6:
        return stores
    try:
        return [hold(s, keep_bad=options.on_bad == SKIP) for s in stores]
    except BadRowsError as bad:
        raise stopped_by(bad) from bad
