"""Opens IDX files, such as those of MNIST, as rows for one tensor."""

import re

from data.idx import read_idx
from prediction.array_input import open_array
from prediction.target import Input, Target

_NAME = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$", re.IGNORECASE)


def is_idx_name(path: str) -> bool:
    """Whether a file is named as IDX files are: `images.idx`, `train-images-idx3-ubyte.gz`."""
    return _NAME.search(path) is not None


def open_idx_input(path: str, target: Target, max_bytes: int) -> Input:
    """The rows of an IDX file, gzipped or not; see `open_array`."""
    return open_array(read_idx(path, max_bytes), path, target)
