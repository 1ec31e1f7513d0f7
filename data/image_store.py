"""Image files as a store: each is read and decoded when it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from data import files
from data.errors import BadRowsError, DataError, UnreachableError
from data.image_file import IMAGE_SHAPE, decoding_workers, read_image, to_grey
from data.sampled_digest import digest_of_files
from data.source import Array, Indices


@dataclass(frozen=True, eq=False)
class ImageStore:
    """PNG and JPEG files, decoded to images of one size.

    Attributes:
      paths: of N files.
      folder: what they all are in; their names in it are part of the digest, it itself is not.
      image_shape: [S, S, C] of each, C 3, or 1 for grey.
      ignore_exif: whether they stay as they are stored, see `decode_image`.
    """

    paths: Sequence[str]
    folder: str
    image_shape: tuple[int, ...] = IMAGE_SHAPE
    ignore_exif: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Store.shape`: [N, S, S, C]."""
        return len(self.paths), *self.image_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Store.dtype`: uint8."""
        return np.dtype(np.uint8)

    @property
    def workers(self) -> int:
        """See `Store.workers`."""
        return decoding_workers(self.paths)

    def take(self, indices: Indices) -> Array:
        """See `Store.take`; UnreachableError where the folder of an image stays away."""
        size, _, channels = self.image_shape
        read = partial(read_image, size=size, ignore_exif=self.ignore_exif)
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        errors: dict[int, DataError] = {}
        for position, index in enumerate(indices.tolist()):
            try:
                image = files.patiently(read, self.paths[index])
                images[position] = to_grey(image) if channels == 1 else image
            except UnreachableError:
                raise
            except DataError as error:
                errors[position] = error
        if errors:
            raise BadRowsError(errors)
        return images

    def digest(self) -> str:
        """See `Store.digest`."""
        names = [path.removeprefix(self.folder).lstrip("/") for path in self.paths]
        return digest_of_files(self.paths, names)
