"""Reads a stranger's file up to a limit, which is held even where its size is a lie."""

import os

import tensorflow as tf

from checkpoints.errors import CheckpointError, reason
from checkpoints.file_kinds import LFS_POINTER, kind_of

_MIB = 1 << 20


def read_bounded(path: str, max_bytes: int, flag: str | None = None) -> bytes:
    """The content of a file.

    Args:
      path: of the file.
      max_bytes: that it may have.
      flag: the user's for another limit, in MiB; None where there is none.

    Raises:
      CheckpointError: there is no such file, it cannot be read, is no regular file (a pipe or a
        device may never end), or has more than `max_bytes` bytes.
    """
    _check_regular(path)
    try:
        size = tf.io.gfile.stat(path).length
        if size > max_bytes:
            raise _too_large(path, size, max_bytes, flag)
        with tf.io.gfile.GFile(path, "rb") as file:
            content: bytes = file.read(max_bytes + 1) if size else b""
    except tf.errors.NotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except tf.errors.OpError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    if len(content) > max_bytes:  # It has grown since.
        raise _too_large(path, len(content), max_bytes, flag)
    return content


def read_head(path: str, count: int) -> bytes:
    """The first `count` bytes of a file, or all where it has fewer; nothing where there is none."""
    if _is_irregular(path):
        return b""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            head: bytes = file.read(count)
            return head
    except tf.errors.OpError:
        return b""


def check_fetched(path: str) -> None:
    """Raises CheckpointError where in place of a file there is a Git LFS pointer, or a pipe.

    For a file of values, of which any first bytes are as good as others.
    """
    _check_regular(path)
    if read_head(path, len(LFS_POINTER)) == LFS_POINTER:
        raise CheckpointError(f"{path} cannot be read: it is {kind_of(LFS_POINTER)}")


def _is_irregular(path: str) -> bool:
    """Whether something is there that is no file, such as a pipe or a device."""
    return os.path.exists(path) and not os.path.isfile(path)


def _check_regular(path: str) -> None:
    if _is_irregular(path):
        raise CheckpointError(f"{path} cannot be read: it is no regular file")


def _too_large(path: str, size: int, max_bytes: int, flag: str | None) -> CheckpointError:
    advice = f"; {flag}={-(-size // _MIB)} reads it all the same" if flag else ""
    return CheckpointError(
        f"{path} has {size / _MIB:,.1f} MiB, more than the limit of {max_bytes / _MIB:,.1f} MiB"
        f"{advice}"
    )
