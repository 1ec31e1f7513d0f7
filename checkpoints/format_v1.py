"""Checkpoints of TensorFlow's format V1, of 2016, which only TensorFlow reads.

They are one file, or shards of one, without an index.
"""

import os
import re
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from checkpoints import file_io
from checkpoints.dtypes import STRING, DType
from errors import CheckpointError, reason

# What TensorFlow's reader of checkpoints raises.
_ERRORS = (
    *(tf.errors.OpError, IndexError, OverflowError, RuntimeError),
    *(SystemError, TypeError, ValueError),
)


class OldReader:
    """The tensors of a checkpoint of the format V1; what it raises for damage is a ValueError.

    Attributes:
      shapes: key -> shape of each tensor; of one that was saved in slices, that of the whole.
      dtypes: key -> dtype.
    """

    def __init__(self, prefix: str, tail: str) -> None:
        """Opens the files of a pattern, the prefix and `tail`."""
        self._prefix = prefix
        links = ExitStack()
        self._readable = links.enter_context(_readable_prefix(prefix))
        weakref.finalize(self, links.close)
        self._pattern = self._readable + tail
        with self._one_error():
            # Not tf.train.load_checkpoint: given a folder of that name, it follows the state file.
            self._reader = tf.compat.v1.train.NewCheckpointReader(self._pattern)
            self.shapes: Mapping[str, list[int]] = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
            self.dtypes = {key: DType(dtype.name) for key, dtype in dtypes.items()}

    def read(self, key: str) -> np.ndarray[Any, Any]:
        """The value of a tensor."""
        with self._one_error():
            try:
                # A single text comes as bytes, of which NumPy's own kind loses zeros at the end.
                kind = object if self.dtypes[key] == STRING else None
                return np.asarray(self._reader.get_tensor(key), kind)
            except tf.errors.UnimplementedError:  # It joins no slices.
                return _restored(self._pattern, key, self.dtypes[key])

    @contextmanager
    def _one_error(self) -> Iterator[None]:
        """Makes a ValueError of whatever TensorFlow raises, in its line the prefix as it is."""
        try:
            yield
        except _ERRORS as error:
            line = (str(error).splitlines() or ["it cannot be read"])[0]
            raise ValueError(line.replace(self._readable, self._prefix)) from error


def _restored(pattern: str, key: str, dtype: DType) -> np.ndarray[Any, Any]:
    """The value of a tensor, by a restore operation of our own in a graph of our own."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        (value,) = tf.raw_ops.RestoreV2(
            prefix=pattern, tensor_names=[key], shape_and_slices=[""], dtypes=[dtype]
        )
        return np.asarray(session.run(value))


# What TensorFlow looks for the files by is a pattern, and no escaping suits it. On Windows,
# a backslash is none.
_OF_A_PATTERN = re.compile(r"[*?\[]" if os.name == "nt" else r"[*?\[\\]")
_TAKEN_FOR_A_PATTERN = "TensorFlow takes *, ?, [ and \\ in a path for a pattern"


@contextmanager
def _readable_prefix(prefix: str) -> Iterator[str]:
    """A prefix by which TensorFlow reads the checkpoint at `prefix`, as long as the context lasts.

    It looks for the files as for a pattern, and then opens them by their very names: no way of
    escaping suits both. So it is given links in a folder of their own, where `prefix` itself will
    not do.

    Raises:
      CheckpointError: it is not on a local disk, or no link can be made.
    """
    if not _OF_A_PATTERN.search(prefix):
        yield prefix
        return
    if not file_io.is_local(prefix):
        raise CheckpointError(
            f"{prefix} cannot be read: {_TAKEN_FOR_A_PATTERN}; name it without them"
        )
    with ExitStack() as stack:
        try:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="checkpoint-"))
            plain = os.path.join(place, "model")
            folder, base = os.path.split(os.path.abspath(prefix))
            for name in os.listdir(folder):
                suffix = name.removeprefix(base)
                if name.startswith(base) and suffix[:1] in ("", ".", "-"):
                    os.symlink(os.path.join(folder, name), plain + suffix)
        except OSError as error:
            raise CheckpointError(
                f"{prefix} cannot be read: {_TAKEN_FOR_A_PATTERN}, and links to its files cannot "
                f"be made: {reason(error)}"
            ) from error
        yield plain
