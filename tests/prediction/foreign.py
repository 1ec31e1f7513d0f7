"""Graphs as others made them, in plain TensorFlow, with one variable."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.metagraph.made import saved


def save(folder: Path, build: Callable[[], object]) -> str:
    """Saves what `build` builds, beside a variable; returns the `.meta` file."""

    def with_bias() -> None:
        tf.compat.v1.get_variable("bias", initializer=np.float32(0.5), use_resource=False)
        build()

    return saved(folder, with_bias).path


def bias() -> tf.Tensor:
    """The variable that `save` adds: 0.5."""
    (variable,) = tf.compat.v1.global_variables()
    return variable
