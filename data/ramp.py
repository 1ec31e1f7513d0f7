"""The ten images that everything runs on where no data is given: a ramp of numbers."""

import io

import numpy as np
import numpy.typing as npt

from data import files
from data.errors import DataError
from data.image_arrays import as_images, as_labels
from data.npz import read_npz
from data.source import ArraySource

RAMP_FILE = "data10_4.npz"
RAMP_CLASSES = 4

_LABELS = (0, 0, 1, 1, 2, 2, 3, 3, 2, 0)
_DEMO_LABELS = (3, 1)
_IMAGE_VALUES = 32 * 32 * 3
_MAX_BYTES = 1_000_000


def ramp_images() -> npt.NDArray[np.float32]:
    """The training images: float32 [10, 32, 32, 3] in [0, 120.5]."""
    return _ramp(0, 10)


def ramp_labels() -> npt.NDArray[np.int64]:
    """The labels of `ramp_images`: int64 [10], four classes."""
    return np.array(_LABELS, np.int64)


def demo_images() -> npt.NDArray[np.float32]:
    """Two images to predict, the third and the fourth of the ramp: float32 [2, 32, 32, 3]."""
    return _ramp(2, 4)


def demo_labels() -> npt.NDArray[np.int64]:
    """What is written beside `demo_images`: int64 [2]. Not what the ramp was labelled with."""
    return np.array(_DEMO_LABELS, np.int64)


def _ramp(first: int, last: int) -> npt.NDArray[np.float32]:
    values = np.arange(first * _IMAGE_VALUES, last * _IMAGE_VALUES) / 255
    return values.astype(np.float32).reshape(-1, 32, 32, 3)


def open_ramp(path: str) -> ArraySource:
    """The ramp, which may be kept in an .npz file (keys X, Y); nothing is written.

    Raises:
      DataError: the file is there and cannot be read, or holds something else.
    """
    ramp = ArraySource(ramp_images(), ramp_labels())
    if not files.exists(path):
        return ramp
    found = read_npz(path, _MAX_BYTES, required=("X", "Y"))
    same_images = np.array_equal(as_images(found["X"], f"{path}: X"), ramp.features)
    if not same_images or not np.array_equal(as_labels(found["Y"], f"{path}: Y"), ramp.labels):
        raise DataError(
            f"{path}: holds other values than the ramp; remove it and it is made anew, "
            f"or train on it with --data={path}"
        )
    return ramp


def write_ramp(path: str) -> None:
    """Keeps the ramp in an .npz file, where that is absent.

    Raises:
      DataError: the file cannot be written.
    """
    if not files.exists(path):
        content = io.BytesIO()
        np.savez(content, X=ramp_images(), Y=ramp_labels())
        files.write_atomically(path, content.getvalue())
