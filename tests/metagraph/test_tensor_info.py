"""How error lines say what a tensor is."""

from collections.abc import Sequence

import pytest
import tensorflow as tf

from metagraph.meta import TensorInfo, format_shape


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((None, 32, 3), "[?, 32, 3]"),
        ((), "[]"),
        (None, "of any shape"),
        (tf.TensorShape([None, 4]), "[?, 4]"),
        (tf.TensorShape([]), "[]"),
        (tf.TensorShape(None), "of any shape"),
    ],
)
def test_shapes(shape: Sequence[int | None] | tf.TensorShape | None, shown: str) -> None:
    assert format_shape(shape) == shown


def test_a_tensor() -> None:
    assert str(TensorInfo("x:0", tf.float32, (None, 3))) == "x:0 float32 [?, 3]"
