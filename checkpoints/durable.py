"""Files that are whole and on the disk, or absent.

A local file counts once it and its folder are flushed (fsync); where `tf.io.gfile` reaches
something else (`gs://` and friends), the service's own commit has to do.
"""

import os

import tensorflow as tf


def is_local(path: str) -> bool:
    """Whether `path` is on a disk that fsync can flush."""
    return "://" not in path


def flush(path: str) -> None:
    """Flushes a file or a folder to the disk; does nothing where there is no local disk."""
    if not is_local(path) or (os.name == "nt" and os.path.isdir(path)):
        return  # Windows has no handle to a folder: its rename is durable by itself.
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: str, content: bytes) -> None:
    """Writes a new file and flushes it; its folder is left to the caller's own flush."""
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content)
    flush(path)


def replace_file(path: str, content: bytes) -> None:
    """Puts `content` at `path` in one step: at any instant the old file is there or the new.

    Raises:
      tf.errors.OpError, OSError: the disk refused; the old file is as it was.
    """
    temporary = f"{path}.tmp"
    write_file(temporary, content)
    tf.io.gfile.rename(temporary, path, overwrite=True)
    flush(os.path.dirname(path) or ".")
