"""Files: written so that they are whole or absent, listed, read up to a limit.

What reads or changes files of checkpoints or data goes through here, but for locks and the rows of
large .npy files, which need a descriptor. A path with `://` in it,
such as `gs://bucket/f`, is for TensorFlow's file systems; all others are read without TensorFlow.
What a file system refuses is an OSError either way.
"""

import errno
import functools
import glob
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, NamedTuple

from absl import logging

from errors import CheckpointError, NotInstalledError, UserError, reason

TEMPORARY_SUFFIX = ".tmp"
_COPY_IT = (
    "copy it to a disk first: aws s3 cp, hdfs dfs -get, gcloud storage cp, curl -O, rclone copy"
)
# What file systems answer, some network mounts among them, that cannot do what is asked of them.
NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK})


def is_local(path: str) -> bool:
    """Whether the operating system opens `path`, and can flush it: it has no `://`."""
    return "://" not in path


class FileStat(NamedTuple):
    """A file's size in bytes, when it was changed (seconds since 1970), and if it is a folder."""

    size: int
    changed: float
    is_folder: bool


def stat(path: str) -> FileStat:
    """What is known of a file or a folder; OSError where there is none."""
    if is_local(path):
        found = os.stat(path)
        return FileStat(found.st_size, found.st_mtime, os.path.isdir(path))
    told = _gfile("stat", path)
    return FileStat(int(told.length), told.mtime_nsec / 1e9, bool(told.is_directory))


_LOCAL: dict[str, Callable[[str], Any]] = {
    "exists": os.path.exists,
    "isdir": os.path.isdir,
    "makedirs": functools.partial(os.makedirs, exist_ok=True),
    "rmtree": shutil.rmtree,
    "remove": os.remove,
    "glob": functools.partial(glob.glob, recursive=True),
}


def exists(path: str) -> bool:
    """Whether there is a file or a folder."""
    return bool(_done("exists", path))


def is_folder(path: str) -> bool:
    """Whether there is a folder."""
    return bool(_done("isdir", path))


def make_folder(path: str) -> None:
    """Makes a folder, and those it is in, where it is not there."""
    try:
        _done("makedirs", path)
    except (FileExistsError, NotADirectoryError) as error:
        is_last = isinstance(error, FileExistsError)  # Else it is one of those that it is in.
        file = error.filename if is_last else os.path.dirname(error.filename)
        raise OSError(errno.ENOTDIR, f"{file} is not a directory") from error


def remove_folder(path: str) -> None:
    """Deletes a folder with all that is in it."""
    _done("rmtree", path)


def remove(path: str) -> None:
    """Deletes a file; its folder is left to the caller."""
    _done("remove", path)


def matching(pattern: str) -> list[str]:
    """The paths that a pattern such as `photos/*.jpg` stands for, sorted."""
    return sorted(_done("glob", pattern))


def _done(name: str, path: str) -> Any:
    return _LOCAL[name](path) if is_local(path) else _gfile(name, path)


@contextmanager
def opened(path: str, mode: Literal["rb", "wb"] = "rb") -> Iterator[BinaryIO]:
    """An open file, to be read (`rb`) or written (`wb`)."""
    with os_errors(path), open(path, mode) if is_local(path) else _gfile("GFile", path, mode) as f:
        yield f


def _gfile(name: str, path: str, *others: Any, **options: Any) -> Any:
    try:
        import tensorflow as tf

        gfile = tf.io.gfile
    except (ImportError, NotInstalledError) as error:
        raise NotInstalledError(
            f"{path} is on no local disk, and only TensorFlow reads it: pip install tensorflow, or "
            f"{_COPY_IT}"
        ) from error
    scheme = path.partition("://")[0]
    if scheme not in gfile.get_registered_schemes():
        raise UserError(f"{path}: TensorFlow has no file system {scheme}:// here; {_COPY_IT}")
    with os_errors(path):
        return getattr(gfile, name)(path, *others, **options)


@contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Makes an OSError of what TensorFlow's file systems raise."""
    if is_local(path):
        yield
        return
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:  # Of a position.
        raise OSError(errno.EINVAL, reason(error)) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, reason(error), path) from error


def flush(path: str) -> None:
    """Flushes a file or a folder to the local disk; elsewhere the service's own commit will do."""
    if not is_local(path) or (os.name == "nt" and os.path.isdir(path)):
        return  # Windows has no handle to a folder: its rename is durable by itself.
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED or not os.path.isdir(path):
            raise
        logging.log_first_n(
            logging.WARNING,
            "%s: its file system cannot flush folders (%s): a power cut may undo the newest save",
            1,
            path,
            error.strerror,
        )
    finally:
        os.close(descriptor)


def write_file(path: str, content: bytes | Iterable[bytes]) -> None:
    """Writes a new file, perhaps in parts, and flushes it; its folder is left to the caller."""
    with opened(path, "wb") as file:
        for part in [content] if isinstance(content, bytes) else content:
            file.write(part)
    flush(path)


def rename(path: str, new_path: str) -> None:
    """Renames a file over whatever is there, in one step; its folder is left to the caller."""
    if is_local(path):
        os.replace(path, new_path)
    else:
        _gfile("rename", path, new_path, overwrite=True)


def set_aside(path: str) -> str:
    """Gives a file a name that nothing has yet, `<path>.set-aside` or `-2`; returns its path."""
    new_path, count = f"{path}.set-aside", 1
    while exists(new_path):
        count += 1
        new_path = f"{path}.set-aside-{count}"
    rename(path, new_path)
    return new_path


def content_of(path: str, count: int = -1) -> bytes | None:
    """What is in a file, or its first `count` bytes; None for no file, no bytes for a device."""
    if is_endless(path):
        return b""
    try:
        with opened(path) as file:
            return file.read(count)
    except FileNotFoundError:
        return None


def replace_file(path: str, content: bytes) -> None:
    """Puts `content` at `path` in one step: at any instant the old file is there or the new."""
    temporary = path + TEMPORARY_SUFFIX
    write_file(temporary, content)
    rename(temporary, path)
    flush(os.path.dirname(path) or ".")


def remove_leftover(path: str) -> None:
    """Deletes what a `replace_file` of `path` that was cut short has left."""
    if exists(path + TEMPORARY_SUFFIX):
        remove(path + TEMPORARY_SUFFIX)


def listed(path: str) -> list[str]:
    """The names of a folder's entries, sorted."""
    if is_local(path):
        return sorted(os.listdir(path or "."))
    return sorted(name.rstrip("/") for name in _gfile("listdir", path))  # As object stores mark.


def is_utf8(name: str) -> bool:
    """Whether the bytes of a file's name are text."""
    return name == name.encode(errors="ignore").decode()


def names_in(path: str) -> list[str]:
    """As `listed`, without names that no checkpoint has; CheckpointError where it cannot be read.

    Those are what is not UTF-8, and `._name`, where a Mac keeps what it says of a file.
    """
    try:
        return [name for name in listed(path) if is_utf8(name) and not name.startswith("._")]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


# What a file is by its first bytes, for the error line where another kind was expected.

HEAD_BYTES = 4096  # As much of a file as is looked at.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_KINDS = (
    (re.escape(LFS_POINTER), "a Git LFS pointer; fetch the file with `git lfs pull`"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, such as the .h5 of Keras"),
    (rb"....TFL3", "a TensorFlow Lite model"),
    (rb"\x93NUMPY", "a NumPy array"),
    # Of a zip, the name of its first member tells; it comes after a header of 30 bytes.
    (rb"PK\x03\x04.{26}[^\0]{0,200}?\.npy", "a .npz of NumPy arrays"),
    (rb"PK\x03\x04.{26}[^\0]{0,200}?data\.pkl", "a PyTorch file"),
    (rb"PK\x03\x04.{26}(metadata|config)\.json", "a .keras file of Keras 3"),
    (rb"PK\x03\x04", "a zip archive; unpack it first"),
    (rb"\x1f\x8b", "compressed with gzip; unpack it first"),
    (rb"BZh\d", "compressed with bzip2; unpack it first"),
    (rb"\xfd7zXZ\0", "compressed with xz; unpack it first"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (rb".{257}ustar", "a tar archive; unpack it first"),
    (rb"\x89PNG|\xff\xd8\xff", "an image"),
    (rb"\x80[\x02-\x05][\x95}\]c(KXqu]", "a Python pickle, which is never opened"),
    (rb"\s*<(?i:!doctype|html|\?xml)", "a web page, not a download"),
    (rb'\s*[{\[]\s*["{\[]', "JSON"),
    (rb"model_checkpoint_path:", "a state file; name the folder that it is in"),
)


def kind_of(head: bytes) -> str | None:
    """What a file that starts with `head` looks like, None where it is nothing well known."""
    if not head:
        return "empty"
    return next((what for magic, what in _KINDS if re.match(magic, head, re.DOTALL)), None)


# Reads a stranger's file up to a limit, which is held even where its size is a lie.

_MIB = 1 << 20


def read_bounded(path: str, max_bytes: int, flag: str | None = None) -> bytes:
    """The content of a file of at most `max_bytes`; `flag` sets another limit, in MiB.

    Raises CheckpointError where it is larger, cannot be read, or may never end, as a pipe.
    """
    _check_regular(path)
    try:
        size = stat(path).size
        content = b""
        if 0 < size <= max_bytes:
            with opened(path) as file:
                content = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    size = max(size, len(content))  # It may have grown since.
    if size > max_bytes:
        advice = f"; {flag}={-(-size // _MIB)} reads it all the same" if flag else ""
        raise CheckpointError(
            f"{path} has {size / _MIB:,.1f} MiB, more than the limit of {max_bytes / _MIB:,.1f} MiB"
            f"{advice}"
        )
    return content


def read_head(path: str, count: int) -> bytes:
    """The first `count` bytes of a file, or all where it has fewer; nothing where there is none."""
    try:
        return content_of(path, count) or b""
    except OSError:
        return b""


def check_fetched(path: str) -> None:
    """CheckpointError where a Git LFS pointer or a pipe is in place of a file of values."""
    _check_regular(path)
    if read_head(path, len(LFS_POINTER)) == LFS_POINTER:
        raise CheckpointError(f"{path} cannot be read: it is {kind_of(LFS_POINTER)}")


def is_endless(path: str) -> bool:
    """Whether it is neither file nor folder, such as a pipe or a device, which may never end."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _check_regular(path: str) -> None:
    if is_endless(path) or os.path.isdir(path):
        raise CheckpointError(f"{path} cannot be read: it is no regular file")
