"""Opens what --input names as rows for one tensor, with a name and maybe a label for each."""

import os
from collections.abc import Callable, Mapping

from data import files, ramp
from prediction.array_input import open_npy_input, open_npz_input
from prediction.errors import PredictionError
from prediction.idx_input import is_idx_name, open_idx_input
from prediction.image_input import open_folder_input, open_images, takes_whole_files
from prediction.other_files import is_image, why_not_taken
from prediction.rows import ArrayRows
from prediction.target import Input, Target, numbered
from prediction.text_input import open_csv_input, open_tf_record_input, open_txt_input

MAX_BYTES = 4 * 2**30  # of one file, unpacked

_READERS: Mapping[str, Callable[[str, Target, int], Input]] = {
    ".npz": open_npz_input,
    ".npy": open_npy_input,
    ".csv": open_csv_input,
    ".txt": open_txt_input,
    ".tfrecord": open_tf_record_input,
    ".tfrecords": open_tf_record_input,
}
_IMAGES = (".png", ".jpg", ".jpeg")


def open_input(path: str, target: Target, max_bytes: int = MAX_BYTES) -> Input:
    """Opens an image, a folder of images or of class folders, or a file of rows.

    Files of rows are .npz, .npy, .csv and IDX files, and for a tensor of strings .txt (a row a
    line) and .tfrecord (a row a record) as well; there, any other file is a row. The rows are first
    in all of them.

    Args:
      path: the file or folder.
      target: what it is opened for.
      max_bytes: that one file may unpack to.

    Raises:
      PredictionError: it holds no rows, they do not fit the tensor, or it is of another kind.
      DataError: it cannot be read.
    """
    if files.is_folder(path):
        return open_folder_input(path, target)
    if is_idx_name(path):
        return open_idx_input(path, target, max_bytes)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _READERS:
        return _READERS[suffix](path, target, max_bytes)
    files.size(path)  # Before the shape: a missing file is the nearer cause.
    if suffix not in _IMAGES and not takes_whole_files(target.info) and not is_image(path):
        raise PredictionError(why_not_taken(path, suffix, [*_READERS, *_IMAGES]))
    return open_images([path], [path], None, target)


def demo_input(target: Target) -> Input:
    """The two images of the ramp that are kept for a first prediction."""
    rows = ArrayRows(ramp.demo_images(), target.info, "the ramp", target.scale)
    return numbered(rows)._replace(labels=ramp.demo_labels())
