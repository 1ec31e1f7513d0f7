"""Files that are whole and on the disk, or absent.

A local file counts once it and its folder are flushed (fsync); where `tf.io.gfile` reaches
something else (`gs://` and friends), the service's own commit has to do. All that changes a
checkpoint's folder goes through here, but for the tensors themselves.
"""

import errno
import itertools
import os

import tensorflow as tf
from absl import logging

TEMPORARY_SUFFIX = ".tmp"
# What file systems answer, some network mounts among them, that cannot do what is asked of them.
NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK})


def is_local(path: str) -> bool:
    """Whether `path` is on a disk that fsync can flush."""
    return "://" not in path


def flush(path: str) -> None:
    """Flushes a file or a folder to the disk; does nothing where there is no local disk.

    Where a file system cannot flush folders, that is logged once: a power cut may then undo the
    last renaming, and nothing else is to be lost.

    Raises:
      OSError: the disk refused.
    """
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


def write_file(path: str, content: bytes) -> None:
    """Writes a new file and flushes it; its folder is left to the caller's own flush."""
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content)
    flush(path)


def create_empty(path: str) -> None:
    """Makes a new file that says all by its name; its folder is left to the caller's own flush."""
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(b"")


def rename(path: str, new_path: str) -> None:
    """Renames a file over whatever is there, in one step; the folder is the caller's to flush."""
    tf.io.gfile.rename(path, new_path, overwrite=True)


def set_aside(path: str, suffix: str) -> str:
    """Gives a file another name, one that nothing has yet; returns the new path.

    Raises:
      tf.errors.OpError: the file system refused.
    """
    for count in itertools.count(1):
        new_path = f"{path}{suffix}" + (f"-{count}" if count > 1 else "")
        if not tf.io.gfile.exists(new_path):
            break
    rename(path, new_path)
    return new_path


def content_of(path: str) -> bytes | None:
    """What is in a file; None where there is none."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content: bytes = file.read()
            return content
    except tf.errors.NotFoundError:
        return None


def remove(path: str) -> None:
    """Deletes a file; the folder is the caller's to flush."""
    tf.io.gfile.remove(path)


def replace_file(path: str, content: bytes) -> None:
    """Puts `content` at `path` in one step: at any instant the old file is there or the new.

    Raises:
      tf.errors.OpError, OSError: the disk refused; the old file is as it was.
    """
    temporary = path + TEMPORARY_SUFFIX
    write_file(temporary, content)
    rename(temporary, path)
    flush(os.path.dirname(path) or ".")


def remove_leftover(path: str) -> None:
    """Deletes what a `replace_file` of `path` that was cut short has left."""
    if tf.io.gfile.exists(path + TEMPORARY_SUFFIX):
        remove(path + TEMPORARY_SUFFIX)
