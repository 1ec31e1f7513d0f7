"""The errors of a checkpoint that cannot be read, written or used."""

from collections.abc import Sequence


class CheckpointError(Exception):
    """One line: which checkpoint, what is wrong with it, and what mends it."""


class NotFiniteError(CheckpointError):
    """A variable is NaN or infinite: nothing that is worth a checkpoint."""


class FolderLostError(CheckpointError):
    """The folder is no longer ours to write into: it was moved, or its lock was removed."""


class LaterVersionError(CheckpointError):
    """A later version made it: it is not damaged, and nothing may take its place."""


def first_few(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first texts of a list that may be long, and how many more there are."""
    more = len(texts) - most
    return separator.join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def reason(error: Exception) -> str:
    """What went wrong, in one line: TensorFlow adds the graph's node and hints in further ones.

    Args:
      error: a tf.errors.OpError, or any other.
    """
    return str(getattr(error, "message", error)).strip().split("\n", maxsplit=1)[0]
