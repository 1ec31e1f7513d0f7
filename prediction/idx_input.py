"""Opens IDX files, such as those of MNIST, as rows for one tensor."""

import re

from data.idx import read_idx
from data.mnist import labels_beside
from prediction.array_input import checked_labels, open_array
from prediction.errors import PredictionError
from prediction.target import Input, Labels, Target

_NAME = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$", re.IGNORECASE)


def is_idx_name(path: str) -> bool:
    """Whether a file is named as IDX files are: `images.idx`, `train-images-idx3-ubyte.gz`."""
    return _NAME.search(path) is not None


def open_idx_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of an IDX file, gzipped or not; see `open_array`.

    For a classifier, the labels are those of the file that MNIST has beside its images.

    Raises:
      PredictionError: that file has another number of rows, or labels out of range.
    """
    opened = open_array(read_idx(path, max_bytes), path, target)
    labels_path = None if target.classifier is None else labels_beside(path)
    if labels_path is None:
        return opened
    return opened._replace(labels=_labels(labels_path, len(opened.rows), path, target, max_bytes))


def _labels(
    labels_path: str, num_rows: int, path: str, target: Target, max_bytes: int
) -> Labels | None:
    try:
        labels = checked_labels(read_idx(labels_path, max_bytes), labels_path, target)
        if labels is not None and len(labels) != num_rows:
            raise PredictionError(f"{labels_path}: holds {len(labels)} labels, {path} {num_rows}")
    except PredictionError as error:
        raise PredictionError(f"{error}; move it away if its labels are not of these") from error
    return labels
