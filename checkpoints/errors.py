"""The errors of a checkpoint that cannot be read, written or used."""


class CheckpointError(Exception):
    """One line: which checkpoint, what is wrong with it, and what mends it."""


class NotFiniteError(CheckpointError):
    """A variable is NaN or infinite: nothing that is worth a checkpoint."""


def reason(error: Exception) -> str:
    """What went wrong, in one line: TensorFlow adds the graph's node and hints in further ones.

    Args:
      error: a tf.errors.OpError, or any other.
    """
    return str(getattr(error, "message", error)).strip().split("\n", maxsplit=1)[0]
