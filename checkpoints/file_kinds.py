"""What a file is by its first bytes, for the error line where another kind was expected."""

import re
from typing import NamedTuple

HEAD_BYTES = 4096  # As much of a file as is looked at.

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ZIP_NAME_LENGTH, _ZIP_NAME = slice(26, 28), 30  # APPNOTE.TXT 4.3.7, the local file header.


class _Kind(NamedTuple):
    magic: re.Pattern[bytes]
    what: str


_KINDS = (
    _Kind(
        re.compile(re.escape(LFS_POINTER)), "a Git LFS pointer; fetch the file with `git lfs pull`"
    ),
    _Kind(re.compile(rb"\x89HDF\r\n\x1a\n"), "an HDF5 file, such as the .h5 of Keras"),
    _Kind(re.compile(rb"....TFL3", re.DOTALL), "a TensorFlow Lite model"),
    _Kind(re.compile(rb"\x93NUMPY"), "a NumPy array"),
    _Kind(re.compile(rb"\x1f\x8b"), "compressed with gzip; unpack it first"),
    _Kind(re.compile(rb"BZh\d"), "compressed with bzip2; unpack it first"),
    _Kind(re.compile(rb"\xfd7zXZ\0"), "compressed with xz; unpack it first"),
    _Kind(re.compile(rb"7z\xbc\xaf\x27\x1c"), "a 7z archive; unpack it first"),
    _Kind(re.compile(rb".{257}ustar", re.DOTALL), "a tar archive; unpack it first"),
    _Kind(re.compile(rb"\x89PNG|\xff\xd8\xff"), "an image"),
    _Kind(re.compile(rb"\x80[\x02-\x05][\x95}\]c(KXqu]"), "a Python pickle, which is never opened"),
    _Kind(re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE), "a web page, not a download"),
    _Kind(re.compile(rb'\s*[{\[]\s*["{\[]'), "JSON"),
    _Kind(re.compile(rb"model_checkpoint_path:"), "a state file; name the folder that it is in"),
)


def kind_of(head: bytes) -> str | None:
    """What a file that starts with `head` looks like, None where it is nothing well known."""
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(head)
    return next((kind.what for kind in _KINDS if kind.magic.match(head)), None)


def _kind_of_zip(head: bytes) -> str:
    """Told by the name of the archive's first member."""
    length = int.from_bytes(head[_ZIP_NAME_LENGTH], "little")
    first = head[_ZIP_NAME : _ZIP_NAME + length]
    if first.endswith(b".npy"):
        return "a .npz of NumPy arrays"
    if first.endswith(b"data.pkl"):
        return "a PyTorch file"
    if first in (b"metadata.json", b"config.json"):
        return "a .keras file of Keras 3"
    return "a zip archive; unpack it first"
