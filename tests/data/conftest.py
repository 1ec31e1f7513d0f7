"""What the tests of data/ share: small image files, folders of them, bad rows, error lines."""

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from data.files import Array, Indices
from errors import BadRowsError, DataError

MakeFolder = Callable[[Mapping[str, int]], str]


@contextmanager
def error_line(pattern: str) -> Iterator[None]:
    """Expects a DataError of one line that the pattern is found in."""
    with pytest.raises(DataError, match=pattern) as caught:
        yield
    assert "\n" not in str(caught.value)


class BadRows:
    """A store of an array in which some rows are bad."""

    def __init__(self, values: Array, bad: Collection[int] = (), workers: int = 1) -> None:
        self.values, self.bad, self.workers = values, bad, workers
        self.shape, self.dtype = values.shape, values.dtype

    def take(self, indices: Indices) -> Array:
        numbers = enumerate(indices.tolist())
        errors = {at: DataError(f"{row}.png: is bad") for at, row in numbers if row in self.bad}
        if errors:
            raise BadRowsError(errors)
        return self.values[indices]

    def digest(self) -> str:
        return "digest of the values"


def encode(
    pixels: npt.NDArray[np.uint8] | Image.Image, file_format: str = "PNG", **options: Any
) -> bytes:
    """Pixels (uint8 [H, W, 3], or an image of Pillow's) as a PNG or JPEG file."""
    content = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(content, file_format, **options)
    return content.getvalue()


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes a folder of subfolders, given how many images each has.

    Image i of the k-th subfolder is filled with the colour (k, i, 0).
    """

    def make(counts: Mapping[str, int]) -> str:
        for number, (name, count) in enumerate(counts.items()):
            subfolder = tmp_path / "images" / name
            subfolder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = np.full((32, 32, 3), (number, i, 0), np.uint8)
                (subfolder / f"{i:04d}.png").write_bytes(encode(pixels))
        return str(tmp_path / "images")

    return make
