"""Opens the images that `--data` names, whatever they are kept in."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from data import files
from data.arrays import read_npz
from data.batches import split_rows, stopped_by
from data.image_folder import choose, open_labelled_folder, pick
from data.images import (
    IMAGE_SHAPE,
    as_images,
    as_labels,
    check_image_shape,
    count_classes,
    resize_grey,
    to_grey,
    warn_out_of_range,
)
from data.named import NAMED, RAMP_CLASSES, Split, load_named, open_ramp, write_ramp
from data.npy_store import LABELS_SUFFIX, SUFFIX, open_labelled_npy
from data.options import DEFAULT_MEMORY_MB, RAMP, SKIP, STOP
from data.source import (
    UINT8_SCALE,
    Array,
    ArraySource,
    HeldStore,
    LabelledSource,
    Source,
    Store,
    StoredSource,
    Subset,
    hold,
)
from errors import BadRowsError, DataError

# 1.4 million images of uint8, or a quarter of that of float32.
MAX_NPZ_BYTES = 4 * 2**30

_EXPECTED = (
    f'expected "{RAMP}", {", ".join(NAMED)}, an .npz file, an .npy file (with the labels beside '
    f"it, x{SUFFIX} and x{LABELS_SUFFIX}) or a folder"
)


class ImageData(NamedTuple):
    """Images to train on and, where there are any, to test on.

    Attributes:
      train: to train on.
      test: to test on; None where there are none.
      class_names: in the order of the labels; () when unknown.
      num_classes: 2 or more.
      write: puts images that are nowhere yet, those of the ramp, where they are kept; None for all
        others.
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
      spec: "ramp"; the name of a data set of `data.named`, whose images are made to fit, as image
        files are; an .npz file with X [N, 32, 32, 3] (uint8 or float) and Y [N]; an .npy file
        with such an X, with Y beside it (x.npy, x.labels.npy); or a folder with one
        subfolder of PNG or JPEG images per class, or with such folders in train/ and test/.
        Symbolic links are followed, out of the folder too.
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
        logging.info("--validation_fraction is not used: %s is there to test on", _test_part(spec))
        return data
    train, test = split_rows(data.train.labels, validation_fraction, seed)
    return data._replace(train=Subset(data.train, train), test=Subset(data.train, test))


def _test_part(spec: str) -> str:
    return f"the test split of {spec}" if spec in NAMED else files.join(spec, "test")


def _open(spec: str, ramp_path: str, options: ReadOptions) -> ImageData:
    if spec == RAMP:
        check_image_shape((1, *IMAGE_SHAPE), f"--data={RAMP}", options.image_shape)
        ramp = dataclasses.replace(open_ramp(ramp_path), scale=options.scale)
        data = _of_arrays(ramp, None, _numbers(RAMP_CLASSES), options)
        return data._replace(write=functools.partial(write_ramp, ramp_path))
    if spec in NAMED:
        return _open_named(spec, options)
    if files.is_folder(spec):
        return _open_folder(spec, options)
    if not files.exists(spec):
        raise DataError(f"--data={spec}: {_EXPECTED}; found nothing")
    if spec.endswith(".npz"):
        images = _open_npz(spec, options)
        num_classes = count_classes(images.labels, f"{spec}: Y")
        return _of_arrays(images, None, _numbers(num_classes), options)
    if spec.endswith(SUFFIX):
        return _open_npy(spec, options)
    raise DataError(f"--data={spec}: {_EXPECTED}")


def _numbers(num_classes: int) -> tuple[str, ...]:
    """What classes without names are called."""
    return tuple(map(str, range(num_classes)))


def _of_arrays(
    train: LabelledSource[Any],
    test: LabelledSource[Any] | None,
    known: Sequence[str],
    options: ReadOptions,
) -> ImageData:
    """All classes of the sources, or those picked from the `known` ones."""
    if not options.classes:
        return ImageData(train, test, train.class_names, len(known))
    choice = choose(options.classes, known)
    picked_test = None if test is None else pick(test, choice)
    return ImageData(pick(train, choice), picked_test, choice.names, len(choice.names))


def _open_named(name: str, options: ReadOptions) -> ImageData:
    class_names = NAMED[name].class_names

    def source(split: Split) -> ArraySource:
        images = _fitted(split.images, name, options.image_shape)
        return ArraySource(images, split.labels, class_names, options.scale)

    train, test = load_named(name)
    return _of_arrays(source(train), source(test), class_names, options)


def _fitted(images: Array, name: str, image_shape: tuple[int, ...]) -> Array:
    """Images [N, H, W] or [N, H, W, 3] as [N, *image_shape]."""
    if images.shape[1:] == image_shape:
        return images
    size, channels = _size_and_channels(name, image_shape)
    resized = resize_grey(images, size)
    return to_grey(resized) if channels == 1 else resized


def _size_and_channels(spec: str, image_shape: tuple[int, ...]) -> tuple[int, int]:
    """S and C of [S, S, C].

    Raises:
      DataError: images are not made to fit any other shape.
    """
    match image_shape:
        case (height, width, (1 | 3) as channels) if height == width:
            return height, channels
    raise DataError(
        f"--data={spec}: its images can be made [S, S, 3] or [S, S, 1], and the model takes "
        f"{list(image_shape)}; give an .npz with such an X"
    )


def _open_npz(path: str, options: ReadOptions) -> ArraySource:
    arrays = read_npz(path, MAX_NPZ_BYTES, required=("X", "Y"))
    images = as_images(arrays["X"], f"{path}: X", options.image_shape)
    labels = as_labels(arrays["Y"], f"{path}: Y")
    if len(images) != len(labels):
        raise DataError(f"{path}: X holds {len(images)} images, but Y {len(labels)} labels")
    warn_out_of_range(images, f"{path}: X")
    return ArraySource(images, labels, scale=options.scale)


def _open_npy(path: str, options: ReadOptions) -> ImageData:
    images, labels = open_labelled_npy(path, options.image_shape)
    num_classes = count_classes(labels, path.removesuffix(SUFFIX) + LABELS_SUFFIX)
    (store,) = _read_if_small([images], options)
    if isinstance(store, HeldStore):
        warn_out_of_range(store.values, path)
    source = StoredSource(store, labels, scale=options.scale)
    return _of_arrays(source, None, _numbers(num_classes), options)


def _open_folder(folder: str, options: ReadOptions) -> ImageData:
    _size_and_channels(folder, options.image_shape)
    train, test, names = open_labelled_folder(folder, options.classes, options.image_shape)
    parts = [train] if test is None else [train, test]
    images = [dataclasses.replace(p.images, ignore_exif=options.ignore_exif) for p in parts]
    stores = _read_if_small(images, options)
    sources = [
        StoredSource(store, part.labels, names, options.scale)
        for store, part in zip(stores, parts, strict=True)
    ]
    return ImageData(sources[0], sources[1] if test else None, names, len(names))


def _read_if_small(stores: Sequence[Store], options: ReadOptions) -> Sequence[Store]:
    """The stores in memory, where they all fit `options.memory_mb`; else as they are."""
    if sum(math.prod(s.shape) * s.dtype.itemsize for s in stores) > options.memory_mb * 10**6:
        return stores
    try:
        return [hold(s, keep_bad=options.on_bad == SKIP) for s in stores]
    except BadRowsError as bad:
        raise stopped_by(bad) from bad
