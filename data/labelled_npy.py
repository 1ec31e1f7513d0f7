"""Images in an .npy file, with their labels in another one beside it."""

from data import files
from data.errors import DataError
from data.image_arrays import as_labels, check_image_shape
from data.image_file import IMAGE_SHAPE
from data.npy_rows import NpyRows
from data.npz import read_npy
from data.source import Indices

SUFFIX = ".npy"
LABELS_SUFFIX = ".labels.npy"
_MAX_LABEL_BYTES = 2**30


def open_labelled_npy(
    path: str, image_shape: tuple[int, ...] = IMAGE_SHAPE
) -> tuple[NpyRows, Indices]:
    """Opens images and reads their labels: of images.npy, those in images.labels.npy.

    Args:
      path: of the images, uint8 or float [N, *image_shape]; ends with .npy.
      image_shape: of each.

    Returns:
      The images, not yet read, and the labels, int64 [N].

    Raises:
      DataError: one of the two files is missing or cannot be used, or their counts differ.
    """
    labels_path = path.removesuffix(SUFFIX) + LABELS_SUFFIX
    if path.endswith(LABELS_SUFFIX):
        raise DataError(
            f"--data={path}: holds the labels; give the images, "
            f"{path.removesuffix(LABELS_SUFFIX)}{SUFFIX}"
        )
    images = NpyRows(path)
    check_image_shape(images.shape, path, image_shape)
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
    return images, labels
