"""Arrays that are too large to be held: their rows, read from an .npy or .npz file as needed."""

import math
import zipfile
from contextlib import ExitStack
from typing import IO, Any

import numpy as np

from data import files
from data.npz import (
    ZIP_START,
    check_array,
    check_member,
    damage_as_data_error,
    members_of,
    read_header,
)
from data.source import Array


class StreamedArray:
    """An array of a file, of which only the rows that are asked for are in memory.

    Rows that are asked for in order are read once; going back in a compressed file unpacks it
    anew. The file stays open as long as the object lives.

    Attributes:
      shape: of the array, one dimension or more.
      dtype: of its values.
    """

    def __init__(self, path: str, stream: IO[bytes], files_open: ExitStack, name: str) -> None:
        """Takes a stream at the start of an array whose header has been checked."""
        self.shape, _, self.dtype = read_header(stream, name)
        self._path = path
        self._stream = stream
        self._files_open = files_open
        self._start = stream.tell()
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> Array:
        """The rows [start, stop), [stop - start, ...].

        Raises:
          DataError: the file is damaged, or cannot be read any more.
        """
        with files.refusals_as_data_errors(self._path), damage_as_data_error(self._path):
            self._stream.seek(self._start + start * self._row_bytes)
            content = self._stream.read((stop - start) * self._row_bytes)
            flat: np.ndarray[Any, Any] = np.frombuffer(content, self.dtype)
            return flat.reshape(stop - start, *self.shape[1:])

    def close(self) -> None:
        """Closes the file."""
        self._files_open.close()


def open_npy(path: str, max_bytes: int, min_bytes: int) -> StreamedArray | None:
    """Opens the array of an .npy file; None where it should rather be read as a whole.

    That is one of fewer than `min_bytes`, without a first dimension, or in Fortran's order, in
    which a row's values are all over the file.

    Raises:
      DataError: as `data.npz.read_npy` does.
    """
    length = files.size(path)
    with ExitStack() as stack:

        def start() -> IO[bytes]:
            return stack.enter_context(files.open_binary(path))

        with damage_as_data_error(path):
            if check_array(start(), length, path, max_bytes) < min_bytes or not _has_rows(start()):
                return None
            return StreamedArray(path, start(), stack.pop_all(), path)


def open_npz(path: str, key: str, max_bytes: int, min_bytes: int) -> StreamedArray | None:
    """Opens one array of an .npz file; None where there is none or as `open_npy` says.

    Raises:
      DataError: as `data.npz.read_npz` does.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(files.open_binary(path))
        with damage_as_data_error(path):
            if stream.read(len(ZIP_START)) != ZIP_START:
                return None
            archive = stack.enter_context(zipfile.ZipFile(stream))
            member = members_of(archive, path, ()).get(key)
            if member is None:
                return None
            name = f"{path}: {key}"
            if check_member(archive, member, name, max_bytes) < min_bytes:
                return None
            with archive.open(member) as header:
                if not _has_rows(header):
                    return None
            content = stack.enter_context(archive.open(member))
            return StreamedArray(path, content, stack.pop_all(), name)


def _has_rows(stream: IO[bytes]) -> bool:
    shape, fortran, _ = read_header(stream, "")
    return bool(shape) and not fortran
