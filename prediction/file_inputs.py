"""Opens files as rows for one tensor: .npy, .npz, IDX, images, .csv, .txt, .tfrecord.

Each function raises DataError where a file cannot be read, and PredictionError where it has no
rows, or they do not fit the tensor.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
from absl import logging

import file_io
from checkpoints.bundle import STRING
from checkpoints.index_table import masked
from data import DEFAULT_MEMORY_MB, SKIP, STOP, files, images
from data.arrays import NpyRows, example_keys, open_npy, read_csv, read_idx, read_npy, read_npz
from data.files import HeldStore, Indices, Store, read_bytes
from data.images import MAX_FILE_BYTES, as_labels, not_finite
from data.named import labels_beside, warn_out_of_range
from errors import BadRowsError, DataError, PredictionError, first_few
from metagraph.description import Array, Classifier, TensorInfo, fit_dtype, fits_shape, format_shape

Labels = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Values whose first dimension is the row, for one tensor, read a batch at a time."""

    length: int
    read: Callable[[Indices], Array]  # The rows of these numbers, ascending, in a dtype that fits.
    info: TensorInfo
    source: str  # Where they are from, for an error line.
    scale: float | None = None  # What uint8 values are multiplied by for a float tensor.
    finite: bool = False  # Whether a NaN or an infinity is an error, as in an image.
    flat: bool = False  # Whether each row is laid out as one dimension for the tensor.
    columns: bool = False  # Whether the tensor takes them as its columns, all at once.
    sizes: Sequence[tuple[int, ...]] = ()  # Of rows that differ: those alike run together.

    def __len__(self) -> int:
        return self.length

    def part(self, numbers: Indices) -> "Rows":
        """The rows of these numbers alone."""
        sizes = [self.sizes[number] for number in numbers] if self.sizes else ()
        rows = dataclasses.replace(self, length=len(numbers), sizes=sizes)
        return dataclasses.replace(rows, read=lambda wanted: self.read(numbers[wanted]))

    def take(self, numbers: Indices) -> Array:
        """Some rows in the tensor's dtype; uint8 is scaled as in training, to the bit.

        Raises DataError where a file cannot be read, or is damaged, PredictionError where a value
        does not go over into the dtype, or is not finite.
        """
        values = self.read(numbers)
        if self.finite and (bad := not_finite(values)):
            first = f"row {numbers[bad[0]]} (the first such)"
            raise PredictionError(f"{self.source}: {first} holds NaN or infinity")
        values = values.reshape(len(values), -1) if self.flat else values
        values = np.ascontiguousarray(values.T) if self.columns else values
        if values.dtype == np.uint8 and self.scale is not None and self.info.dtype.is_floating:
            values = np.multiply(values, np.float32(self.scale), dtype=np.float32)
        return fit_dtype(values, self.info, self.source)


def array_rows(
    values: Array | NpyRows, info: TensorInfo, source: str, scale: float | None = None
) -> Rows:
    """The rows of an array [N, ...], in memory or not."""

    def read(numbers: Indices) -> Array:
        if isinstance(values, NpyRows):
            return values.take(numbers)
        first, last = numbers[[0, -1]]
        return values[first : last + 1] if last - first < len(numbers) else values[numbers]

    return Rows(len(values), read, info, source, scale)


MAX_BYTES = 4 * 2**30  # of one file, unpacked


class Target(NamedTuple):
    """The tensor that an input is opened for, what the graph says of it, and how it is read."""

    info: TensorInfo
    scale: float | None  # What uint8 values are multiplied by.
    class_names: Sequence[str]
    classifier: Classifier | None  # Without one, labels are of no use.
    image_shape: tuple[int, int, int] | None = None  # Of the image that a row holds: H, W, C.
    ignore_exif: bool = False  # Whether image files stay as they are stored.
    resize: bool = False  # Whether images in an array are made to fit, as files are.
    on_bad: str = STOP  # Or SKIP, to leave out files that are no images.
    max_bytes: int = MAX_BYTES  # What one file may unpack to.

    @property
    def flat_image(self) -> tuple[int, int, int] | None:
        """The image whose values a row holds one after another; None where it is none."""
        if self.image_shape is None or self.info.shape is None:
            return None
        is_row = self.info.shape[1:] == (math.prod(self.image_shape),)
        return self.image_shape if is_row else None

    @property
    def image(self) -> tuple[int, int, int] | None:
        """The image that a row takes, H and W 0 where they are open; None where it takes none."""
        shape = tuple(size or 0 for size in self.flat_image or (self.info.shape or ())[1:])
        if len(shape) == 3 and not any(shape[:2]):
            shape = (0, 0, shape[2] or 3)
        return (shape[0], shape[1], shape[2]) if images.is_square(shape) else None


class RowInputs(NamedTuple):
    """Rows of one input, or of several, which go together by their numbers."""

    rows: Mapping[str, Rows] = {}  # By the full names of the tensors, each of as many.
    names: Sequence[str] = ()  # Of the rows: the first input's files, or numbers from 0.
    labels: Labels | None = None  # Their true classes, int64 [N].
    bad: Collection[int] = ()  # The numbers of those that cannot be read, or are left out.

    def left_of(self, rows: Rows) -> Rows:
        """Of rows that go along with those given, the ones that are not left out."""
        good = [number for number in range(len(rows)) if number not in self.bad]
        return rows.part(np.array(good)) if self.bad else rows


def numbered(rows: Rows, labels: Labels | None = None) -> RowInputs:
    """Rows that are named by their numbers."""
    return RowInputs({rows.info.name: rows}, [str(row) for row in range(len(rows))], labels)


# Arrays, of .npy, .npz and IDX files, or of any origin.

STREAM_BYTES = 2**28  # Arrays of .npy files from this size on are read a batch at a time.
_IDX_NAME = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$", re.IGNORECASE)  # train-images-idx3-ubyte.gz


def open_npy_input(path: str, target: Target) -> RowInputs:
    """The rows of an .npy file; see `open_array`."""
    values = open_npy(path, target.max_bytes, STREAM_BYTES) or read_npy(path, target.max_bytes)
    return open_array(values, path, target)


def open_npz_input(path: str, target: Target) -> RowInputs:
    """The rows X of an .npz file, and for a classifier the labels Y; see `open_array`.

    The names may be others, as in training. Images are resized; of two splits, the test's is taken.
    """
    arrays: dict[str, Array] = read_npz(path, target.max_bytes)
    *_, x, y = example_keys(arrays)
    if x not in arrays:
        raise PredictionError(
            f"{path}: expected an array X (and Y, the labels), found "
            f"{', '.join(sorted(arrays)) or 'none'}; arrays under tensor names go to --feed"
        )
    if x != "X":
        logging.info("%s: the rows are %s, and their labels %s", path, x, y)
    opened = open_array(arrays[x], f"{path}: {x}", target._replace(resize=True))
    return _labelled(opened, arrays[y], f"{path}: {y}", target) if y in arrays else opened


def open_idx_input(path: str, target: Target) -> RowInputs:
    """The rows of an IDX file, gzipped or not; see `open_array`.

    For a classifier, the labels are those of the file that MNIST has beside its images.
    """
    opened = open_array(read_idx(path, target.max_bytes), path, target)
    beside = None if target.classifier is None else labels_beside(path)
    if beside is None:
        return opened
    source = f"{beside} (move it away if its labels are not of these)"
    return _labelled(opened, read_idx(beside, target.max_bytes), source, target)


def _labelled(opened: RowInputs, values: Array, source: str, target: Target) -> RowInputs:
    """The rows with their labels, where these are of a classifier."""
    num_rows = len(opened.names)
    if values.shape[:1] != (num_rows,):
        found = f"{values.shape[0]}" if values.shape else "a single value"
        raise PredictionError(f"{source}: expected {num_rows} labels, one a row, found {found}")
    if target.classifier is None:
        return opened
    labels, num_classes = as_labels(values, source), target.classifier.num_classes
    if num_classes is not None and len(labels) and labels.max() >= num_classes:
        raise PredictionError(
            f"{source}: expected labels from 0 to {num_classes - 1}, found {labels.max()}"
        )
    return opened._replace(labels=labels)


def open_array(values: Array | NpyRows, source: str, target: Target) -> RowInputs:
    """Rows of an array, whose shape is checked here and whose dtype goes over batch by batch.

    There may be any number of them, also where the tensor's first dimension is fixed. Those for a
    tensor [features, ?] are fed as its columns; a square array could be meant either way.
    """
    info, shape, image = target.info, tuple(values.shape[1:]), target.flat_image
    # Images whose values the tensor takes in a row; grey ones may be without their one channel.
    flat = image is not None and shape in (image, image[:2] if image[2] == 1 else image)
    columns = len(shape) == 1 and info.shape == (*shape, None)
    square = columns and values.shape[0] == shape[0] > 1
    own = info.shape and (None, *info.shape[1:])
    fits = flat or (bool(values.shape) and fits_shape(own, values.shape))
    size = target.image if not fits and images.can_be_fitted(values) else None
    if square or not (fits or (size and target.resize)):
        hint = "; --resize makes images fit, as files of them are made" if size else ""
        if square:
            hint = ", whose rows could be meant as columns: use --feed, or fewer rows"
        raise PredictionError(
            f"{source}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}, "
            f"found {values.dtype} {format_shape(values.shape)}{hint}"
        )
    if not len(values):
        raise PredictionError(f"{source}: has no rows")
    is_image = target.scale is not None and values.dtype.kind == "f"
    rows = array_rows(values, info, source, target.scale)
    if size is not None:
        logging.info("%s: %s is resized to %s", source, [*values.shape], [*size])
        stored, flat = rows.read, target.flat_image is not None
        rows = dataclasses.replace(rows, read=lambda n: images.fit_images(stored(n), *size[::2]))
    rows = dataclasses.replace(rows, finite=is_image, flat=flat, columns=columns)
    rows.take(np.array([0]))  # A dtype that does not go over is told before the checkpoint is read.
    if is_image and isinstance(values, np.ndarray):
        warn_out_of_range(values, source)
    return numbered(rows)


# Image files, and folders of them.


def open_folder_input(folder: str, target: Target) -> RowInputs:
    """The images of a folder, or of its subfolders, one a class, in the order of their names.

    The labels of class folders are known where the graph has names for its classes.
    """
    classes = images.class_names(folder)
    if not classes:
        found = images.visible_names(folder)
        if not found:
            raise PredictionError(f"{folder}: the folder is empty, expected images")
        return open_images([os.path.join(folder, name) for name in found], found, None, target)
    unknown = [name for name in classes if name not in target.class_names]
    if target.class_names and unknown:
        raise PredictionError(
            f"{folder}: the graph has no class {', '.join(unknown)}; its classes are "
            f"{', '.join(target.class_names)}; point --input at a folder of those, or of images"
        )
    listed = images.list_images(folder)
    paths = [path for path, _ in listed]
    labels = None
    if target.class_names and target.classifier:
        label_of = [target.class_names.index(name) for name in classes]
        labels = np.array([label_of[label] for _, label in listed], np.int64)
    else:
        logging.warning("the graph has no class names: the labels of %s are unknown", folder)
    names = [path.removeprefix(folder).lstrip("/\\") for path in paths]
    return open_images(paths, names, labels, target)


def open_images(
    paths: Sequence[str], names: Sequence[str], labels: Labels | None, target: Target
) -> RowInputs:
    """Image files, decoded to the size that the tensor takes, or their own; bytes for strings.

    As in training, an image is turned as its EXIF orientation says, unless that is to be ignored,
    and resized as a whole, bilinear. A graph that decodes the files itself does not turn them.
    """
    info = target.info

    def as_they_are(numbers: Indices) -> Array:
        return as_objects([read_bytes(paths[n], MAX_FILE_BYTES) for n in numbers])

    if takes_strings(info):
        rows = Rows(len(paths), as_they_are, info, paths[0])
        return RowInputs({info.name: rows}, names, labels)
    shape = target.image
    if shape is None:
        raise PredictionError(
            f"{paths[0]}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}; images "
            "are for a tensor of shape [?, size, size, 3] or [?, size, size, 1], or for one whose "
            "graph says what image its rows hold (collection image_shape)"
        )
    if target.scale is None and info.dtype.is_floating:
        logging.warning("the graph records no scale for images: they are fed as 0 to 255")
    store: Store = images.ImageStore(paths, "", shape, target.ignore_exif)
    sizes: list[tuple[int, ...]] = [()] * (0 if shape[0] else len(paths))
    bad: dict[int, DataError] = {}
    if shape[0]:
        held = HeldStore(store, min(len(paths), DEFAULT_MEMORY_MB * 10**6 // math.prod(shape)))
        store, bad = held, held.fill(keep_bad=True)
    for row in range(len(sizes)):
        try:
            sizes[row] = store.take(np.array([row])).shape
        except BadRowsError as error:
            bad[row] = error.errors[0]
    _tell_bad([str(bad[row]) for row in sorted(bad)], len(paths), target.on_bad)
    flat = target.flat_image is not None
    rows = Rows(len(paths), store.take, info, paths[0], target.scale, flat=flat, sizes=sizes)
    return RowInputs({info.name: rows}, names, labels, bad)


def _tell_bad(errors: Sequence[str], num_files: int, on_bad: str) -> None:
    """Says which files are left out; DataError where none may be, or all are."""
    if errors and (on_bad == STOP or len(errors) == num_files):
        every = f"none of the {num_files} files is an image: "
        raise DataError((every if on_bad == SKIP and errors[1:] else "") + errors[0])
    if errors:
        logging.warning("left out: %s", first_few(errors, 20, "; "))


# Files of text, and records.

# How many bytes of memory a byte of text may take: `0,` becomes a float64 and is held as text
# meanwhile; a text of a few letters becomes an object of 35 bytes or so, twice pointed to.
_NUMBER_GROWTH, _TEXT_GROWTH = 8, 32


def open_csv_input(path: str, target: Target) -> RowInputs:
    """The rows of a CSV file of numbers, in the shape of the tensor's rows."""
    info = target.info
    values = read_csv(path, target.max_bytes // _NUMBER_GROWTH)
    # Floats are all that is read; integers and bools are such where they can be.
    if info.dtype.is_integer and np.array_equal(values, np.floor(values)):
        values = values.astype(np.int64)
    elif info.dtype.is_bool and np.isin(values, (0, 1)).all():
        values = values.astype(bool)
    shape = (None,) if info.shape is None else info.shape[1:]
    if shape != (None,):
        if None in shape or math.prod(int(size or 0) for size in shape) != values.shape[1]:
            raise PredictionError(
                f"{path}: {info.name} takes rows of shape {format_shape(shape)}, found "
                f"{values.shape[1]} numbers a row"
            )
        values = values.reshape(-1, *shape)
    return open_array(values, path, target)


def takes_strings(info: TensorInfo) -> bool:
    """Whether a row of the tensor is a string, such as the bytes of a file to be decoded."""
    return bool(info.dtype.name == STRING and (info.shape is None or len(info.shape) == 1))


def open_strings_input(path: str, target: Target) -> RowInputs:
    """The lines of a .txt file without their ends, or the records of a .tfrecord file.

    Text may be in any encoding that has line ends as in ASCII, for it is not decoded.
    """
    info = target.info
    if not takes_strings(info):
        raise PredictionError(
            f"{path}: {info.name} takes {info.dtype.name} {format_shape(info.shape)}; such a file "
            "is for a tensor of strings, of shape [?]; numbers go into a .csv, .npy or .npz"
        )
    if path.lower().endswith(".txt"):
        texts = read_bytes(path, target.max_bytes // _TEXT_GROWTH).splitlines()
    else:
        texts = read_records(path, target.max_bytes)
    return open_array(as_objects(texts), path, target)


def as_objects(texts: Sequence[bytes]) -> Array:
    """An array of the texts that keeps null bytes at their ends, unlike NumPy's own strings."""
    found = np.empty(len(texts), object)
    found[:] = texts
    return found


def read_records(path: str, max_bytes: int) -> list[bytes]:
    """The records of a .tfrecord file of at most `max_bytes`.

    A record is its length (8 bytes, little-endian), a checksum of that (4), the data and a checksum
    of the data (4); see https://www.tensorflow.org/tutorials/load_data/tfrecord. Raises DataError
    where the file cannot be read, is longer, or is no whole .tfrecord file.
    """
    length, position, records = files.size(path), 0, list[bytes]()
    if length > max_bytes:
        raise DataError(f"{path}: holds {length:,} bytes; at most {max_bytes:,} are read")
    with files.open_binary(path) as stream:
        while position < length:
            head = stream.read(8)
            size = int.from_bytes(head.ljust(8, b"\0"), "little")
            position += 8 + 4 + size + 4
            if position > length:  # Before memory is taken for a length that is made up.
                raise DataError(
                    f"{path}: record {len(records)} claims {size:,} bytes, past the end of the "
                    "file: it is no .tfrecord file, or is cut short or compressed"
                )
            sum_of_head, data, sum_of_data = stream.read(4), stream.read(size), stream.read(4)
            if (sum_of_head, sum_of_data) != (_checksum(head), _checksum(data)):
                raise DataError(f"{path}: is damaged: the checksum of a record does not fit")
            records.append(data)
    return records


def _checksum(content: bytes) -> bytes:
    return masked(google_crc32c.value(content)).to_bytes(4, "little")


# A file or folder of any of these kinds.

_READERS: Mapping[str, Callable[[str, Target], RowInputs]] = {
    ".npz": open_npz_input,
    ".npy": open_npy_input,
    ".csv": open_csv_input,
    ".txt": open_strings_input,
    ".tfrecord": open_strings_input,
    ".tfrecords": open_strings_input,
}


def open_files(paths: Sequence[str], target: Target) -> RowInputs:
    """Opens the files for one tensor; of several, each is an image and becomes one row."""
    if len(paths) == 1:
        return open_input(paths[0], target)
    for path in paths:
        files.size(path)
        suffix = os.path.splitext(path)[1].lower()
        if suffix in _READERS or _IDX_NAME.search(path) or file_io.is_folder(path):
            what = f"several of --input for {target.info.name} are images, a row each"
            raise PredictionError(f"{path}: {what}; give other rows in one file or folder")
    return open_images(paths, paths, None, target)


def open_input(path: str, target: Target) -> RowInputs:
    """Opens an image, a folder of images or of class folders, or a file of rows.

    For a tensor of strings, any file that is of no other kind is a row.
    """
    if file_io.is_folder(path):
        return open_folder_input(path, target)
    if _IDX_NAME.search(path):
        return open_idx_input(path, target)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _READERS:
        return _READERS[suffix](path, target)
    files.size(path)  # Before the shape: a missing file is the nearer cause.
    if suffix not in images.SUFFIXES and not takes_strings(target.info):
        what = f"a {suffix} file" if suffix else "a file without a suffix"
        raise PredictionError(
            f"{path}: {what} is not taken; --input takes .npy, .npz, .csv, {images.FORMATS} "
            "images, a folder of those, IDX files, and for a tensor of strings .txt and .tfrecord"
        )
    return open_images([path], [path], None, target)
