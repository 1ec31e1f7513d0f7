"""Small IDX files, written byte by byte as the format says."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(values: npt.NDArray[Any]) -> bytes:
    """The bytes of an IDX file of these values."""
    start = bytes([0, 0, TYPES[values.dtype.str[1:]], values.ndim])
    dimensions = struct.pack(f">{values.ndim}I", *values.shape)
    return start + dimensions + values.astype(values.dtype.newbyteorder(">")).tobytes()


def digits(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images uint8 [count, 28, 28] with a bright bar where the label says, and the labels."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = generator.integers(0, 60, (count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 6] += 190
    return images, labels


def write_mnist(folder: Path, num_train: int, num_test: int) -> Path:
    """The four files in a folder: those to train on gzipped, those to test on plain."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count, seed in (("train", num_train, 0), ("t10k", num_test, 1)):
        images, labels = digits(count, seed)
        files = {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}
        for name, values in files.items():
            content = idx_bytes(values)
            if part == "train":
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / name).write_bytes(content)
    return folder
