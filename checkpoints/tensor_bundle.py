"""The variables of a checkpoint: the `.index` and `.data` files, TensorFlow's tensor bundle.

Format: `tensorflow/core/util/tensor_bundle/tensor_bundle.h`; each tensor has a CRC32C, which
reading checks.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.errors import CheckpointError, reason
from checkpoints.fed_callable import make_fed_callable
from checkpoints.index_table import check_index
from checkpoints.naming import INDEX_SUFFIX
from checkpoints.readable_prefix import readable_prefix

# What TensorFlow's reader of checkpoints raises: errors of its own, and those that its C++ side
# makes of a status. A file that is cut short is an IndexError, a missing index a ValueError.
READER_ERRORS = (
    *(tf.errors.OpError, IndexError, OverflowError, RuntimeError),
    *(SystemError, TypeError, ValueError),
)


class VariableSpec(NamedTuple):
    """The shape and the dtype of a variable, as they are compared with a checkpoint's."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        """As in an error line: `float32 [3, 3]`."""
        return f"{self.dtype} {list(self.shape)}"


class BundleWriter:
    """Writes the values of a fixed set of variables, from any thread.

    It has a small graph and a session of its own, so that the training session goes on while
    values that were copied out of it are being written.
    """

    def __init__(self, specs: Mapping[str, VariableSpec]) -> None:
        """Prepares to write variables of these names, shapes and dtypes."""
        self._names = list(specs)
        graph = tf.Graph()
        with graph.as_default():
            prefix = tf.compat.v1.placeholder(tf.string, [])
            values = [tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in specs.values()]
            save = tf.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=self._names,
                shape_and_slices=[""] * len(values),
                tensors=values,
            )
        self._session = tf.compat.v1.Session(graph=graph)
        self._save = make_fed_callable(self._session, [prefix, *values], [], [save])

    def write(self, prefix: str, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Writes `<prefix>.data-00000-of-00001`, then `<prefix>.index`.

        Raises:
          tf.errors.OpError: the file system refused, or the disk is full.
        """
        self._save(np.array(prefix, object), *(values[name] for name in self._names))

    def close(self) -> None:
        """Frees the session."""
        self._session.close()


def read_bundle(
    prefix: str, expected: Mapping[str, VariableSpec]
) -> dict[str, np.ndarray[Any, Any]]:
    """Reads exactly the expected variables, each checked before any is read.

    Raises:
      CheckpointError: a file is missing or damaged, a variable is missing or is one too many, or
        its shape or dtype is another; the first such variables are named.
    """
    if tf.io.gfile.exists(prefix + INDEX_SUFFIX):
        check_index(prefix + INDEX_SUFFIX)
    with readable_prefix(prefix) as path:
        try:
            return _read(path, expected)
        except READER_ERRORS as error:
            line = reason(error).replace(path, prefix)
            raise CheckpointError(f"unreadable: {line}") from error


def _read(prefix: str, expected: Mapping[str, VariableSpec]) -> dict[str, np.ndarray[Any, Any]]:
    """As `read_bundle`; whatever TensorFlow's reader raises too."""
    reader = tf.train.load_checkpoint(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    found = {n: VariableSpec(tuple(shapes[n]), dtypes[n].name) for n in shapes}
    differences = list(_differences(expected, found))
    if differences:
        raise CheckpointError(_first_few(differences))
    return {name: np.asarray(reader.get_tensor(name)) for name in expected}


def _differences(
    expected: Mapping[str, VariableSpec], found: Mapping[str, VariableSpec]
) -> "list[str]":
    """One phrase for each variable that is not the same in both."""
    lines = [f"{name} is missing" for name in expected if name not in found]
    lines += [f"{name} is not in this model" for name in sorted(found) if name not in expected]
    lines += [
        f"{name} is {found[name]}, this model has {spec}"
        for name, spec in expected.items()
        if name in found and found[name] != spec
    ]
    return lines


def _first_few(differences: list[str], most: int = 4) -> str:
    more = len(differences) - most
    return "; ".join(differences[:most]) + (f"; and {more} more" if more > 0 else "")
